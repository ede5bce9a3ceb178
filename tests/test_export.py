"""``ckgrow export``, and ONNX models through the other commands: as other programs see them."""

from __future__ import annotations

import importlib
import os
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from commands import WIDEN, ckgrow, document, listing, process, python, tensors, written
from commands import saved as saved_safetensors
from onnx_models import arrays_in, exported, model_of, raw
from safetensors.numpy import load_file, save_file
from safetensors.torch import save_file as save_torch
from shipped import SPECS, TEACHERS, training
from student_oracles import images, outputs_of

import ckgrow as package
from ckgrow.publishing import PartFile
from ckgrow.registry import formats

RESNET = ("--option", "input=[1,8,8]")

RUN = """
import sys
import numpy, onnxruntime
options = onnxruntime.SessionOptions()
options.log_severity_level = 3
session = onnxruntime.InferenceSession(sys.argv[1], options, providers=["CPUExecutionProvider"])
(given,) = session.get_inputs()
(found,) = session.run(None, {given.name: numpy.load(sys.argv[2])})
numpy.save(sys.argv[3], found)
"""


def run_elsewhere(model: Path, x: torch.Tensor, folder: Path) -> torch.Tensor:
    """ONNX Runtime's outputs, in a process with another working directory."""
    np.save(folder / "x.npy", x.numpy())
    done = python(RUN, model, folder / "x.npy", folder / "y.npy", cwd="/")
    assert done.returncode == 0, done.stderr
    return torch.from_numpy(np.load(folder / "y.npy"))


def close(found, expected):
    return bool((found - expected).abs().max() < 1e-5 * expected.abs().max())


def as_resnet(path, x):
    """What torch makes of the tensors in a safetensors file of the shipped ResNet's kind."""
    state = {name: torch.from_numpy(each) for name, each in load_file(path).items()}
    return outputs_of(training().Resnet().eval(), state, x)[0]


@pytest.fixture
def teacher(tmp_path):
    folder = tmp_path / "home"
    folder.mkdir()
    path = folder / "teacher.safetensors"
    path.write_bytes((TEACHERS / "resnet.safetensors").read_bytes())
    return path


@pytest.fixture
def mlp(tmp_path):
    return saved_safetensors(tmp_path / "mlp.safetensors", tensors())


def test_the_model_points_into_the_very_file(teacher, tmp_path):
    before = listing(teacher.parent)
    made = document("export", teacher, "-o", teacher.with_name("t.onnx"), *RESNET)
    assert {**before, "t.onnx": None}.keys() == listing(teacher.parent).keys()
    assert teacher.read_bytes() == before["teacher.safetensors"]
    assert made["files"] == ["teacher.safetensors"]
    assert made["inputs"] == {"input": ["N", 1, 8, 8]}
    assert made["outputs"] == {"logits": ["N", 10]}
    model = onnx.load(teacher.with_name("t.onnx"), load_external_data=False)
    assert not any(each.raw_data for each in model.graph.initializer)
    onnx.checker.check_model(str(teacher.with_name("t.onnx")), full_check=True)
    stored, expected = arrays_in(teacher.with_name("t.onnx")), load_file(teacher)
    assert stored.keys() == expected.keys()
    assert all(stored[name].tobytes() == expected[name].tobytes() for name in expected)
    x = images(3, 1, 8, 8)
    assert close(run_elsewhere(teacher.with_name("t.onnx"), x, tmp_path), as_resnet(teacher, x))


def test_embedded_weights_need_no_file_beside_them(teacher, tmp_path):
    made = document("export", teacher, "-o", tmp_path / "t.onnx", "--embed", *RESNET)
    assert made["files"] == []
    assert made["bytes"] == sum(each.nbytes for each in load_file(teacher).values())
    x = images(3, 1, 8, 8)
    expected = as_resnet(teacher, x)
    teacher.unlink()
    onnx.checker.check_model(str(tmp_path / "t.onnx"), full_check=True)
    assert close(run_elsewhere(tmp_path / "t.onnx", x, tmp_path), expected)


def test_students_keep_their_record(teacher):
    """The model is the same student, for verify and inspect as well."""
    student = teacher.with_name("student.safetensors")
    applied = document("apply", teacher, SPECS / "widen_resnet.yaml", "-o", student)
    for extra in ((), ("--embed",)):
        model = teacher.with_name(f"m{len(extra)}.onnx")
        ckgrow("export", student, "-o", model, *extra)
        known, found = document("inspect", student), document("inspect", model)
        assert {**found, "checkpoint": ""} == {**known, "checkpoint": ""}
        verdict = document("verify", teacher, model, "--quick")
        assert verdict["preserved"]
        assert verdict["hashes"] == applied["hashes"]


def test_stored_bfloat16_is_pointed_to(teacher, tmp_path):
    state = {
        name: torch.from_numpy(each).to(torch.bfloat16)
        if each.dtype == np.float32
        else torch.from_numpy(each)
        for name, each in load_file(teacher).items()
    }
    half = teacher.with_name("half.safetensors")
    save_torch(state, half)
    ckgrow("export", half, "-o", teacher.with_name("half.onnx"), *RESNET)
    assert teacher.with_name("half.onnx").stat().st_size < 40_000
    x = images(3, 1, 8, 8)
    (expected,) = outputs_of(training().Resnet().eval(), state, x)
    assert close(run_elsewhere(teacher.with_name("half.onnx"), x, tmp_path), expected)


@pytest.mark.parametrize("name", ["t.npz", "t.onnx"])
def test_weights_in_other_formats(mlp, name):
    """Wherever the bytes of a tensor stand as they are."""
    source, model = mlp.with_name(name), mlp.with_name("m.onnx")
    assert ckgrow("convert", mlp, source).exit_code == 0
    mlp.unlink()
    assert document("export", source, "-o", model)["files"] == [name]
    for tensor, array in arrays_in(model).items():
        assert array.tobytes() == tensors()[tensor].tobytes()


def test_weights_in_parts(mlp):
    source, model = mlp.with_name("t.safetensors.index.json"), mlp.with_name("m.onnx")
    assert ckgrow("convert", mlp, source, "--shard-size", "100").exit_code == 0
    mlp.unlink()
    shards = sorted(each.name for each in mlp.parent.glob("t-*.safetensors"))
    assert len(shards) > 1
    assert document("export", source, "-o", model)["files"] == shards
    for tensor, array in arrays_in(model).items():
        assert array.tobytes() == tensors()[tensor].tobytes()


def test_weights_that_are_compressed(mlp):
    source, model = mlp.with_name("t.npz"), mlp.with_name("m.onnx")
    np.savez_compressed(source, **tensors())
    said = refused(source, "-o", model, code=4)
    assert "as it is in memory" in said
    assert "--embed" in said
    assert document("export", source, "-o", model, "--embed")["files"] == []
    for tensor, array in arrays_in(model).items():
        assert array.tobytes() == tensors()[tensor].tobytes()


def test_weights_in_a_folder_below(mlp):
    below = mlp.parent / "below" / "w.safetensors"
    below.parent.mkdir()
    mlp.rename(below)
    model = mlp.with_name("m.onnx")
    assert document("export", below, "-o", model)["files"] == ["below/w.safetensors"]
    assert arrays_in(model).keys() == tensors().keys()
    onnx.checker.check_model(str(model), full_check=True)


def refused(*arguments, code):
    done = ckgrow("export", *arguments)
    assert done.exit_code == code, done.output
    assert done.stderr.count("\n") == 1
    return done.stderr


def test_weights_that_would_not_be_beside_the_model(mlp, tmp_path):
    (tmp_path / "other").mkdir()
    before = listing(tmp_path / "other")
    said = refused(mlp, "-o", tmp_path / "other" / "m.onnx", code=4)
    assert "not in its folder" in said
    assert "--embed" in said
    assert listing(tmp_path / "other") == before


def test_weights_that_are_a_link(mlp, tmp_path):
    link = tmp_path / "link.safetensors"
    link.symlink_to(mlp.name)
    said = refused(link, "-o", tmp_path / "m.onnx", code=4)
    assert "symbolic link" in said
    assert "--embed" in said
    assert ckgrow("export", link, "-o", tmp_path / "m.onnx", "--embed").exit_code == 0
    link.unlink()
    link.hardlink_to(mlp)
    said = refused(link, "-o", tmp_path / "n.onnx", code=4)
    assert "hard link" in said
    assert "--embed" in said


def test_a_folder_that_is_a_link(mlp, tmp_path):
    (tmp_path / "alias").symlink_to(".")
    model = tmp_path / "m.onnx"
    made = document("export", tmp_path / "alias" / mlp.name, "-o", model)
    assert made["files"] == [mlp.name]


@pytest.mark.parametrize("name", ["m.safetensors", "m.npz"])
def test_formats_that_hold_no_network(mlp, tmp_path, name):
    said = refused(mlp, "-o", tmp_path / name, code=2)
    assert "writes .onnx" in said


def test_networks_that_nobody_knows(tmp_path):
    source = saved_safetensors(tmp_path / "a.safetensors", {"what": np.ones((2, 2), "f4")})
    before = listing(tmp_path)
    refused(source, "-o", tmp_path / "m.onnx", code=3)
    refused(source, "-o", tmp_path / "m.onnx", "--embed", code=3)
    assert listing(tmp_path) == before


def test_an_existing_file_stays_unless_forced(mlp, tmp_path):
    model = written(tmp_path / "m.onnx", "mine")
    assert "--force" in refused(mlp, "-o", model, code=4)
    assert "--force" in refused(mlp, "-o", model, "--embed", code=4)
    assert model.read_text() == "mine"
    assert ckgrow("export", mlp, "-o", model, "--force").exit_code == 0
    assert arrays_in(model).keys() == tensors().keys()
    assert "is the teacher itself" in refused(model, "-o", model, "--force", code=4)


def test_numbers_beside_a_model_go_with_it(mlp, tmp_path, monkeypatch):
    """Those of an earlier model of ckgrow's, and nothing of others."""
    model, data = tmp_path / "m.onnx", tmp_path / "m.onnx.data"
    with monkeypatch.context() as small:
        writing = f"{type(formats()['onnx']).__module__.rpartition('.')[0]}._onnx_writer"
        small.setattr(importlib.import_module(writing), "EMBEDDED", 16)
        assert document("export", mlp, "-o", model, "--embed")["files"] == ["m.onnx.data"]
        assert arrays_in(model).keys() == tensors().keys()
        assert "exists; add --force" in refused(mlp, "-o", model, "--embed", code=4)
        assert document("export", mlp, "-o", model, "--embed", "--force")["files"] == [data.name]
        assert arrays_in(model).keys() == tensors().keys()
    assert ckgrow("export", mlp, "-o", model, "--force").exit_code == 0
    assert not data.exists()
    onnx.save_model(
        model_of(raw("theirs", np.ones(3))),
        model,
        save_as_external_data=True,
        location=data.name,
        size_threshold=0,
    )
    assert ckgrow("export", mlp, "-o", model, "--embed", "--force").exit_code == 0
    assert data.read_bytes() == np.ones(3).tobytes()
    assert sorted(os.listdir(tmp_path)) == ["m.onnx", "m.onnx.data", "mlp.safetensors"]


def test_a_model_that_moved_away_from_its_weights(mlp, tmp_path):
    model = tmp_path / "m.onnx"
    ckgrow("export", mlp, "-o", model)
    mlp.rename(tmp_path / "other.safetensors")
    done = ckgrow("inspect", model)
    assert done.exit_code == 3
    assert "needs the file mlp.safetensors" in done.stderr


def test_what_is_printed(mlp, tmp_path):
    done = process("export", mlp, "-o", "m.onnx", cwd=tmp_path)
    assert done.returncode == 0
    assert done.stderr == ""
    assert done.stdout == (
        "wrote m.onnx (mlp): 4 tensors\n"
        "its weights are in mlp.safetensors; keep both together\n"
        "input: input, N x 4\n"
        "output: logits, N x 3\n"
    )


def test_from_python(mlp, tmp_path):
    made = package.export(mlp, tmp_path / "m.onnx", options={"activation": "tanh"})
    assert made.architecture == "mlp"
    ops = [node.op_type for node in onnx.load(tmp_path / "m.onnx").graph.node]
    assert "Tanh" in ops


MEASURE = """
import sys
import onnxruntime
def private():
    status = open("/proc/self/status").read().split("RssAnon:")[1]
    return int(status.split()[0]) * 1024
options = onnxruntime.SessionOptions()
options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
options.add_session_config_entry("session.disable_prepacking", "1")
before = private()
session = onnxruntime.InferenceSession(sys.argv[1], options, providers=["CPUExecutionProvider"])
print(private() - before)
"""


def test_onnx_runtime_maps_the_weights(tmp_path):
    """A session takes no memory of its own for them, unless it rearranges them for speed."""
    wide = {
        "0.weight": (4096, 2048),
        "0.bias": (4096,),
        "2.weight": (2048, 4096),
        "2.bias": (2048,),
    }
    source = tmp_path / "wide.safetensors"
    save_file({name: np.ones(shape, "f4") for name, shape in wide.items()}, source)
    ckgrow("export", source, "-o", tmp_path / "wide.onnx")
    done = python(MEASURE, tmp_path / "wide.onnx")
    assert done.returncode == 0, done.stderr
    assert source.stat().st_size > 64_000_000
    assert int(done.stdout) < 16_000_000


class Network(torch.nn.Sequential):
    def __init__(self):
        super().__init__(torch.nn.Linear(4, 6), torch.nn.ReLU(), torch.nn.Linear(6, 3))


@pytest.mark.parametrize("dynamo", [True, False])
def test_models_of_torch_grow(tmp_path, dynamo):
    """From a model to a model, to safetensors, and back, verified and run all the way."""
    module = Network()
    teacher = exported(
        tmp_path / "t.onnx",
        module,
        torch.randn(2, 4),
        dynamo=dynamo,
        **({"optimize": False} if dynamo else {}),
    )
    spec = written(tmp_path / "spec.yaml", WIDEN)
    applied = document("apply", teacher, spec, "-o", tmp_path / "s.onnx")
    assert applied["verify"]["preserved"]
    again = document("apply", teacher, spec, "-o", tmp_path / "s.onnx")
    assert again["status"] == "up to date"
    plain = document("apply", teacher, spec, "-o", tmp_path / "s.safetensors")
    assert plain["hashes"] == applied["hashes"]
    assert document("verify", teacher, tmp_path / "s.onnx")["preserved"]
    assert document("verify", teacher, tmp_path / "s.safetensors", "--proof")["proof"] == "proven"
    back = document("convert", tmp_path / "s.safetensors", tmp_path / "back.onnx")
    assert back["hash"] == applied["hashes"]["student"]
    assert (tmp_path / "back.onnx").read_bytes() == (tmp_path / "s.onnx").read_bytes()
    x = torch.randn(5, 4)
    expected = module.double()(x.double()).detach()
    assert close(run_elsewhere(tmp_path / "s.onnx", x, tmp_path), expected)
    assert not [name for name in os.listdir(tmp_path) if "part" in name]


def test_looking_at_a_model_imports_no_onnx(mlp, tmp_path):
    ckgrow("export", mlp, "-o", tmp_path / "m.onnx")
    code = (
        "import sys\nfrom ckgrow.cli.main import app\n"
        "try: app(sys.argv[1:])\nexcept SystemExit as end: assert not end.code\n"
        "print({'onnx', 'torch', 'onnxruntime'} & set(sys.modules))"
    )
    done = python(code, "inspect", tmp_path / "m.onnx")
    assert done.stdout.splitlines()[-1] == "set()"


@pytest.mark.parametrize("options", [(), ("--embed",)])
def test_what_is_published_is_told_whatever_becomes_of_it(mlp, tmp_path, monkeypatch, options):
    """Nobody looks at the files again, which another program may have taken by then."""
    monkeypatch.setattr("ckgrow.adapters.formats._onnx_writer.EMBEDDED", 0)
    publish = PartFile.publish

    def published(part):
        publish(part)
        (tmp_path / "m.onnx").unlink()

    monkeypatch.setattr(PartFile, "publish", published)
    told = document("export", mlp, "-o", tmp_path / "m.onnx", *options)
    assert told["files"] == ["m.onnx.data" if options else mlp.name]
