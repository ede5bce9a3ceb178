"""Writing ONNX models: the onnx package checks and reads them, ONNX Runtime runs them."""

from __future__ import annotations

import importlib
import os
import random
from pathlib import Path

import ml_dtypes
import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, shape_inference
from onnx_models import arrays_in, whole
from safetensors.torch import load_file, save_file
from shipped import TEACHERS, training
from student_oracles import images, outputs_of
from written_files import created, opened, write

from ckgrow.errors import CheckpointError, FileError
from ckgrow.header import Header, TensorSpec
from ckgrow.loading import Wish, load
from ckgrow.registry import formats

FORMAT = formats()["onnx"]
NAMES = ("mlp", "convnet", "resnet", "inception")
OPTIONS = {
    "convnet": {
        "input": [1, 8, 8],
        "pool": {"conv1": "max 2", "conv2": "max 2"},
        "activation": "relu",
    },
    "mlp": {},
    "resnet": {"input": [1, 8, 8]},
    "inception": {},
}
MODULES = {"mlp": "Mlp", "convnet": "Convnet", "resnet": "Resnet", "inception": "Inception"}
EVERY = {
    "float": np.array([[1.5, -0.0], [np.nan, np.inf]], "f4"),
    "double": np.array([1e300]),
    "half": np.array([[1.5], [6e-8]], np.float16),
    "brain": np.array([1.5, -3e38], ml_dtypes.bfloat16),
    "e4m3fn": np.array([1.5], ml_dtypes.float8_e4m3fn),
    "e4m3fnuz": np.array([1.5], ml_dtypes.float8_e4m3fnuz),
    "e5m2": np.array([1.5], ml_dtypes.float8_e5m2),
    "e5m2fnuz": np.array([1.5], ml_dtypes.float8_e5m2fnuz),
    "e8m0fnu": np.array([2.0], ml_dtypes.float8_e8m0fnu),
    "i8": np.array([-128], np.int8),
    "i16": np.array([-1], np.int16),
    "i32": np.array([-1], np.int32),
    "i64": np.array([-1], np.int64),
    "u8": np.array([255], np.uint8),
    "u16": np.array([65535], np.uint16),
    "u32": np.array([2**32 - 1], np.uint32),
    "u64": np.array([2**64 - 1], np.uint64),
    "truth": np.array([True, False]),
    "complex": np.array([1 + 2j], np.complex64),
    "scalar": np.float32(7),
    "count": np.int64(7),
    "empty": np.zeros((0, 3), "f4"),
    "rank 5": np.arange(32.0, dtype="f4").reshape((2,) * 5),
}


@pytest.fixture
def no_embedding(monkeypatch):
    """The size above which tensors go to a file beside the model, made small."""
    package = type(FORMAT).__module__.rpartition(".")[0]
    monkeypatch.setattr(importlib.import_module(f"{package}._onnx_writer"), "EMBEDDED", 16)


def session(path):
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # it warns of tensors that no node reads
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def run(path, batch=3):
    """Random inputs as the model asks for them, and what it makes of them."""
    made = session(path)
    (given,) = made.get_inputs()
    assert given.shape[0] == "N"
    x = images(batch, *given.shape[1:])
    (found,) = made.run(None, {given.name: x.numpy()})
    return x, torch.from_numpy(found)


def require_as_in_torch(path, name, state, batch=3):
    x, found = run(path, batch)
    (expected,) = outputs_of(getattr(training(), MODULES[name])().eval(), state, x, torch.float64)
    assert found.dtype == torch.float32
    assert found.shape == expected.shape
    assert (found - expected).abs().max() < 1e-5 * expected.abs().max()


def same_in_the_library(path, tensors):
    stored = arrays_in(path)
    assert list(stored) == list(tensors)
    for name, array in tensors.items():
        assert stored[name].shape == np.shape(array)
        assert stored[name].tobytes() == np.asarray(array).tobytes()


def test_every_dtype_in_the_library(tmp_path):
    write(FORMAT, tmp_path / "a.onnx", EVERY, {"note": "значение", "other": ""})
    onnx.checker.check_model(str(tmp_path / "a.onnx"), full_check=True)
    same_in_the_library(tmp_path / "a.onnx", EVERY)
    props = onnx.load(tmp_path / "a.onnx").metadata_props
    assert {each.key: each.value for each in props} == {"note": "значение", "other": ""}


def test_every_dtype_comes_back(tmp_path):
    write(FORMAT, tmp_path / "a.onnx", EVERY, {"note": "x"})
    reader = opened(FORMAT, tmp_path / "a.onnx")
    assert list(reader.header) == list(EVERY)
    assert reader.contents.metadata == {"note": "x"}
    assert reader.contents.dropped == ()
    for name, array in EVERY.items():
        assert whole(reader, name).dtype == array.dtype
        assert whole(reader, name).tobytes() == array.tobytes()


@pytest.mark.usefixtures("no_embedding")
def test_tensors_beside_the_model(tmp_path):
    large = {"x": np.ones(1, "f4"), "large": np.arange(600_000.0), "y": np.ones(5, np.int8)}
    before = len(os.listdir("/proc/self/fd"))
    write(FORMAT, tmp_path / "a.onnx", {**EVERY, **large})
    assert len(os.listdir("/proc/self/fd")) == before
    assert sorted(os.listdir(tmp_path)) == ["a.onnx", "a.onnx.data"]
    onnx.checker.check_model(str(tmp_path / "a.onnx"), full_check=True)
    same_in_the_library(tmp_path / "a.onnx", {**EVERY, **large})
    reader = opened(FORMAT, tmp_path / "a.onnx")
    assert reader.span("large").offset % 4096 == 0
    assert all(reader.span(name).offset % 64 == 0 for name in reader.header if name != "empty")
    assert reader.span("empty").path.name == "a.onnx"
    for name, array in {**EVERY, **large}.items():
        assert whole(reader, name).tobytes() == array.tobytes()


def test_nothing_at_all(tmp_path):
    write(FORMAT, tmp_path / "a.onnx", {})
    onnx.checker.check_model(str(tmp_path / "a.onnx"))
    assert len(opened(FORMAT, tmp_path / "a.onnx").header) == 0


@pytest.mark.parametrize("beside", [False, True])
def test_the_same_bytes_in_whatever_order(tmp_path, beside, request):
    if beside:
        request.getfixturevalue("no_embedding")
    specs = {name: TensorSpec(each.dtype.name, each.shape) for name, each in EVERY.items()}
    written = []
    for seed in range(3):
        path = tmp_path / str(seed) / "a.onnx"
        path.parent.mkdir()
        writer = created(FORMAT, path, Header(specs), {"a": "b"})
        rows = [
            (name, row, np.atleast_1d(array)[row : row + 1])
            for name, array in EVERY.items()
            for row in range(len(np.atleast_1d(array)))
        ]
        random.Random(seed).shuffle(rows)
        for each in rows:
            writer.write(*each)
        writer.finish({})
        written.append([each.read_bytes() for each in sorted(path.parent.iterdir())])
    assert written[0] == written[1] == written[2]
    assert len(written[0]) == 1 + beside


def test_placeholders_of_the_metadata(tmp_path):
    specs = Header({"a": TensorSpec("float32", (1,))})
    writer = created(FORMAT, tmp_path / "a.onnx", specs, {"k": "before 12345 after"})
    with pytest.raises(ValueError, match="not written"):
        writer.finish({})
    writer.write("a", 0, np.ones(1, "f4"))
    for wrong in ({"1234": "12345"}, {"67890": "12345"}, {"e": "f"}):
        with pytest.raises(ValueError, match="cannot be replaced"):
            writer.finish(wrong)
    writer.finish({"12345": "67890"})
    assert opened(FORMAT, tmp_path / "a.onnx").contents.metadata == {"k": "before 67890 after"}


def test_rows_that_do_not_fit(tmp_path):
    writer = created(FORMAT, tmp_path / "a.onnx", Header({"a": TensorSpec("float32", (2, 3))}))
    for start, rows in ((0, np.ones((2, 3))), (1, np.ones((2, 3), "f4")), (0, np.ones(6, "f4"))):
        with pytest.raises(ValueError, match="rows"):
            writer.write("a", start, rows)
    writer.abandon()
    writer.abandon()


@pytest.mark.parametrize(
    ("name", "dtype", "said"),
    [
        ("", "float32", "without a name"),
        ("\ud800", "float32", "no valid Unicode"),
        ("a", "int4", "cannot hold tensor a of dtype int4"),
    ],
)
def test_what_the_format_cannot_hold(tmp_path, name, dtype, said):
    header = Header({name: TensorSpec(dtype, (1,))})
    with pytest.raises(CheckpointError, match=said):
        created(FORMAT, tmp_path / "a.onnx", header)
    assert os.listdir(tmp_path) == []


def test_no_place_to_write_to(tmp_path):
    for path in (tmp_path / "nowhere" / "a.onnx", tmp_path):
        with pytest.raises(FileError, match="cannot be written"):
            created(FORMAT, path, Header({"a": TensorSpec("float32", (1,))}))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.float64])
def test_the_network_runs_as_in_torch(tmp_path, name, dtype):
    """In every dtype, for batches of any size, within what float32 rounds."""
    state = {
        key: each.to(dtype) if each.is_floating_point() else each
        for key, each in load_file(TEACHERS / f"{name}.safetensors").items()
    }
    path = networked(tmp_path, state, OPTIONS[name])
    model = onnx.load(path)
    onnx.checker.check_model(model, full_check=True)
    stored = {each.name: each.data_type for each in model.graph.initializer}
    assert set(stored) == set(state)
    inferred = shape_inference.infer_shapes(model, strict_mode=True)
    assert inferred.graph.output[0].type == model.graph.output[0].type
    for batch in (1, 5):
        require_as_in_torch(path, name, state, batch)


def networked(folder: Path, state, options, prefix=""):
    """The model that is written for a state dict."""
    source = folder / "state.safetensors"
    save_file({prefix + name: each.contiguous() for name, each in state.items()}, source)
    path = folder / "model.onnx"
    with load(source, Wish(options=options)) as loaded:
        tensors = {name: whole(loaded.reader, name) for name in loaded.reader.header}
        write(FORMAT, path, tensors, graph=loaded.network.graph, prefix=loaded.prefix)
    return path


def test_wrapped_keys_stay_as_they_are(tmp_path):
    state = load_file(TEACHERS / "mlp.safetensors")
    path = networked(tmp_path, state, {}, "module.")
    assert {each.name for each in onnx.load(path).graph.initializer} == {
        f"module.{name}" for name in state
    }
    require_as_in_torch(path, "mlp", state)


def test_tensors_that_are_called_like_values(tmp_path):
    """What no node reads is kept, under a name that the network wanted for itself."""
    state = load_file(TEACHERS / "mlp.safetensors")
    source = save_file(state, tmp_path / "a.safetensors") or tmp_path / "a.safetensors"
    with load(source, Wish()) as loaded:
        graph = loaded.network.graph
        values = [*graph.inputs, *graph.constants, *(node.output for node in graph.nodes)]
        tensors = {name: whole(loaded.reader, name) for name in state}
        tensors |= {name: np.arange(3) for name in values}
        write(FORMAT, tmp_path / "m.onnx", tensors, graph=graph)
    onnx.checker.check_model(str(tmp_path / "m.onnx"), full_check=True)
    same_in_the_library(tmp_path / "m.onnx", tensors)
    require_as_in_torch(tmp_path / "m.onnx", "mlp", state)


@pytest.mark.parametrize("name", ["\x1b[2J\n\0", "../../etc/passwd", "n" * 1_000_000, "é'\""])
def test_hostile_names(tmp_path, name):
    write(FORMAT, tmp_path / "a.onnx", {name: np.ones(3, "f4")})
    same_in_the_library(tmp_path / "a.onnx", {name: np.ones(3, "f4")})
    assert list(opened(FORMAT, tmp_path / "a.onnx").header) == [name]


def test_stored_dtypes_are_cast_and_not_changed(tmp_path):
    state = {
        name: each.to(torch.bfloat16)
        for name, each in load_file(TEACHERS / "mlp.safetensors").items()
    }
    model = onnx.load(networked(tmp_path, state, {}))
    assert {each.data_type for each in model.graph.initializer} == {TensorProto.BFLOAT16}
    assert sum(node.op_type == "Cast" for node in model.graph.node) == len(state)
