"""The Python functions: paths or tensors in, the documents of the command line out."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
import torch
from commands import NOISY, WIDEN, ckgrow, document, saved, tensors, written
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

import ckgrow as library
from ckgrow.errors import CheckpointError, CkgrowError, FileError, SpecError
from ckgrow.loading import Wish, load
from ckgrow.reports.documents import to_json
from ckgrow.verifying import hash_checkpoint

MAPPING = {"steps": [{"widen": "0", "factor": 2}]}


@pytest.fixture
def files(tmp_path):
    saved(tmp_path / "teacher.safetensors", tensors())
    written(tmp_path / "spec.yaml", WIDEN)
    return tmp_path


def plain(made):
    assert dataclasses.is_dataclass(made)
    with pytest.raises(dataclasses.FrozenInstanceError):
        made.schema = "another"
    return json.loads(to_json(made))


def test_documents_are_those_of_the_commands(files, monkeypatch):
    monkeypatch.chdir(files)
    teacher, spec = "teacher.safetensors", "spec.yaml"
    assert plain(library.inspect(teacher)) == document("inspect", teacher)
    assert plain(library.plan(teacher, spec)) == document("plan", teacher, spec)
    grown = plain(library.apply(teacher, spec, "student.safetensors"))
    again = document("apply", teacher, spec, "-o", "student.safetensors", "--force")
    assert (grown["status"], again["status"]) == ("written", "up to date")
    student = files / "student.safetensors"
    status = student.stat()
    assert again["files"] == grown["files"]
    assert again["files"]["student"] == {str(student): [status.st_size, status.st_mtime_ns]}
    student.unlink()
    once_more = document("apply", teacher, spec, "-o", "student.safetensors")
    assert once_more.pop("files") != grown.pop("files")  # the file is newer
    assert once_more == grown
    verdict = library.verify(teacher, "student.safetensors", quick=True)
    assert plain(verdict) == document("verify", teacher, "student.safetensors", "--quick")


def test_tensors_and_mappings_instead_of_files(files):
    from_files, from_memory = files / "a.safetensors", files / "b.safetensors"
    library.apply(files / "teacher.safetensors", files / "spec.yaml", from_files)
    library.apply(tensors(), MAPPING, from_memory)
    assert from_files.read_bytes() == from_memory.read_bytes()
    assert library.verify(tensors(), load_file(from_memory)).preserved


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
def test_torch_tensors(tmp_path, dtype):
    module = torch.nn.Sequential(torch.nn.Linear(4, 6), torch.nn.ReLU(), torch.nn.Linear(6, 3))
    module.to(dtype)
    done = library.apply(module.state_dict(), MAPPING, tmp_path / "student.safetensors")
    assert done.status == "written"
    assert done.verify.preserved
    kept = dict(module.named_parameters())  # the module still owns its tensors, untouched
    assert library.inspect(kept).parameters == 51


def test_transposed_and_foreign_byte_order(tmp_path):
    strange = {name: np.asfortranarray(values).astype(">f4") for name, values in tensors().items()}
    library.apply(strange, MAPPING, tmp_path / "strange.safetensors")
    library.apply(tensors(), MAPPING, tmp_path / "plain.safetensors")
    first, second = (load_file(path) for path in sorted(tmp_path.iterdir()))
    assert all(np.array_equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ({"0.weight": [1.0]}, "0.weight is a list, not a tensor"),
        ({3: np.zeros(3)}, "the tensor name 3 is no text"),
        ({}, "the given tensors holds no tensors"),
        ({"\x1b[31m.weight": "x"}, r"'\\x1b\[31m.weight' is a str, not a tensor"),
    ],
)
def test_mappings_that_are_no_checkpoint(source, said):
    with pytest.raises(CheckpointError, match=said):
        library.inspect(source)


def test_errors_are_of_one_family(files):
    teacher = files / "teacher.safetensors"
    with pytest.raises(FileError):
        library.inspect(files / "missing")
    with pytest.raises(SpecError):
        library.plan(teacher, {"steps": []})
    for kind in (FileError, SpecError, CheckpointError):
        assert issubclass(kind, CkgrowError)


def test_failed_apply_is_a_document_not_an_error(files):
    values = tensors()
    values["0.weight"][0, 0] = np.nan
    done = library.apply(values, MAPPING, files / "student.safetensors")
    assert (done.status, done.verify.preserved) == ("failed", False)
    assert not (files / "student.safetensors").exists()


def test_announce_comes_before_the_file(files):
    student = files / "student.safetensors"
    told = []
    library.apply(
        files / "teacher.safetensors",
        files / "spec.yaml",
        student,
        announce=lambda plan: told.append((plan.schema, student.exists())),
    )
    assert told == [("ckgrow.plan/1", False)]


def test_watching_is_told_every_byte(files):
    class Watched:
        def __init__(self):
            self.begun, self.done = [], 0

        def begin(self, what, total):
            self.begun.append((what, total))

        def advance(self, count):
            self.done += count

    watched = Watched()
    library.apply(
        files / "teacher.safetensors",
        files / "spec.yaml",
        files / "s.safetensors",
        watching=watched,
    )
    size = sum(values.nbytes for values in load_file(files / "s.safetensors").values())
    assert ("growing", size) in watched.begun
    assert watched.done == size


def test_unchecked_student_says_so(files):
    done = library.apply(
        files / "teacher.safetensors", files / "spec.yaml", files / "s.safetensors", check=False
    )
    assert done.verify is None
    assert (
        "not verified"
        in ckgrow(
            "apply",
            files / "teacher.safetensors",
            written(files / "noisy.yaml", NOISY),
            "-o",
            files / "noisy.safetensors",
            "--no-verify",
        ).stdout
    )


def random_mlp(*layers):
    """Tensors of linear layers, each (name, outputs, inputs)."""
    draw = np.random.default_rng(0)
    made = {}
    for name, outputs, inputs in layers:
        made[f"{name}.weight"] = draw.standard_normal((outputs, inputs)).astype(np.float32)
        made[f"{name}.bias"] = draw.standard_normal(outputs).astype(np.float32)
    return made


def test_layers_may_be_called_like_the_graphs_own_values(tmp_path):
    teacher = random_mlp(("input", 9, 4), ("hidden", 7, 9), ("output", 2, 7))
    spec = {"steps": [{"widen": "input", "factor": 2}]}
    done = library.apply(teacher, spec, tmp_path / "student.safetensors")
    assert done.verify.preserved


def test_documents_name_tensors_as_the_file_does(tmp_path):
    plain = random_mlp(("0", 6, 4), ("2", 5, 6), ("4", 2, 5))
    teacher = {f"module.{name}": array for name, array in plain.items()}
    spec = {
        "teacher": {"options": {"activation": "relu"}},
        "steps": [{"deepen": "module.0"}, {"widen": "0", "factor": 2}],
    }
    student = tmp_path / "student.safetensors"
    plan = library.plan(teacher, spec)
    library.apply(teacher, spec, student)
    written = set(load_file(student))
    assert {row.name for row in plan.tensors} == written
    assert set(plan.new_tensors) == {"module.2.weight", "module.2.bias"}
    assert plan.renames["module.2.weight"] == "module.4.weight"
    found = library.inspect(student)
    assert found.new_tensors == plan.new_tensors
    assert "module.0.weight[0]" in found.groups[1].axes


def test_a_recorded_defect_counts_only_for_the_tensors_it_was_recorded_with(tmp_path):
    teacher = random_mlp(("0", 6, 4), ("2", 2, 6))
    student = tmp_path / "student.safetensors"
    library.apply(teacher, {"steps": [{"widen": "0", "factor": 2}]}, student)
    with safe_open(student, "np") as file:
        entry = json.loads(file.metadata()["ckgrow"])
    changed = load_file(student)
    changed["2.weight"] = changed["2.weight"] * np.float32(1.01)
    entry["defects"] = {"2": 1e-3}
    save_file(changed, student, {"ckgrow": json.dumps(entry)})
    assert not library.verify(teacher, student).preserved


def test_a_recorded_defect_is_believed_as_far_as_a_step_can_have_recorded_it(tmp_path):
    """A record that excuses a fault, hash and all, is not believed."""
    teacher, student = tmp_path / "teacher.safetensors", tmp_path / "student.safetensors"
    saved(teacher, tensors())
    library.apply(teacher, {"steps": [{"widen": "0", "factor": 2}]}, student)
    with safe_open(student, "np") as file:
        entry = json.loads(file.metadata()["ckgrow"])
    changed = load_file(student)
    changed["2.weight"][1, 1] *= np.float32(1.05)
    save_file(changed, student)
    with load(student, Wish()) as bare:
        entry["student"] = hash_checkpoint(bare, 1)
    entry["defects"] = {"0": 0.02, "2": 3.0}
    save_file(changed, student, {"ckgrow": json.dumps(entry)})
    assert not library.verify(teacher, student).preserved
    assert library.verify(teacher, student, proof=True).proof == "refuted"


def test_where_a_shortcut_pads_is_said_when_it_matters():
    draw = np.random.default_rng(0)

    def batch_norm(name, width):
        shapes = {"weight": 1.0, "bias": 0.0, "running_mean": 0.0, "running_var": 1.0}
        return {
            f"{name}.{part}": np.full(width, value, np.float32) for part, value in shapes.items()
        }

    teacher = {"conv1.weight": draw.standard_normal((4, 3, 3, 3)).astype(np.float32)}
    teacher |= batch_norm("bn1", 4)
    for stage, (inputs, width) in enumerate(((4, 4), (4, 8)), start=1):
        for number, shape in ((1, (width, inputs, 3, 3)), (2, (width, width, 3, 3))):
            path = f"layer{stage}.0"
            teacher[f"{path}.conv{number}.weight"] = draw.standard_normal(shape).astype(np.float32)
            teacher |= batch_norm(f"{path}.bn{number}", width)
    teacher |= random_mlp(("linear", 2, 8))
    stream = library.plan(teacher, {"steps": [{"widen": "layer1.*.conv2", "factor": 2}]})
    assert "shortcuts without parameters are taken" in " ".join(stream.steps[0].warnings)
    inner = library.plan(teacher, {"steps": [{"widen": "layer1.*.conv1", "factor": 2}]})
    assert inner.steps[0].warnings == ()
