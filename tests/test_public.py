"""The Python functions: paths or tensors in, the documents of the command line out."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
import torch
from commands import NOISY, WIDEN, ckgrow, document, saved, tensors, written
from safetensors.numpy import load_file

import ckgrow as library
from ckgrow.errors import CheckpointError, CkgrowError, FileError, SpecError
from ckgrow.reports.documents import to_json

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
    (files / "student.safetensors").unlink()
    assert grown == document("apply", teacher, spec, "-o", "student.safetensors")
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
