"""Valid checkpoints of every format as other libraries write them, to be damaged by the fuzz test.

The kinds are the formats of the registry, torch's old layout, and the record in a student.
"""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import ml_dtypes
import numpy as np
from commands import tensors
from safetensors.numpy import save

from ckgrow import apply


@dataclass(frozen=True)
class Sample:
    """A checkpoint: files by name, of which ``entry`` is the one that is opened."""

    entry: str
    files: Mapping[str, bytes]


def samples(kind: str) -> tuple[Sample, ...]:
    """Valid checkpoints of a kind, the first of them a network that plans know."""
    return KINDS[kind]()


def odd_tensors() -> dict[str, np.ndarray]:
    """Dtypes and shapes of all sorts, small."""
    draw = np.random.default_rng(3)
    return {
        "half": draw.normal(size=(3, 2)).astype("f2"),
        "double": draw.normal(size=(2, 1, 2, 1, 2)),
        "brain": draw.normal(size=(5,)).astype(ml_dtypes.bfloat16),
        "eighth": draw.normal(size=(2, 3)).astype(ml_dtypes.float8_e4m3fn),
        "count": np.array(7, "i8"),
        "flags": np.array([True, False, True]),
        "empty": np.zeros((0, 4), "f4"),
        "bytes": np.arange(6, dtype="u1").reshape(2, 3),
    }


def _record() -> tuple[Sample, ...]:
    """Students that their adapter makes a network of, and one whose record holds the graph."""
    return tuple(
        Sample("a.safetensors", {"a.safetensors": _grown(step)})
        for step in ({"widen": "0", "factor": 2}, {"branch": "0"})
    )


def _safetensors() -> tuple[Sample, ...]:
    odd = save(odd_tensors(), {"format": "pt"})
    return (
        Sample("a.safetensors", {"a.safetensors": save(tensors(), {"format": "pt"})}),
        Sample("a.safetensors", {"a.safetensors": odd}),
    )


def _sharded() -> tuple[Sample, ...]:
    values = tensors()
    halves = (list(values)[:2], list(values)[2:])
    names = ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors")
    files = {
        name: save({key: values[key] for key in half}, {"format": "pt"})
        for name, half in zip(names, halves, strict=True)
    }
    where = {key: name for name, half in zip(names, halves, strict=True) for key in half}
    size = sum(each.nbytes for each in values.values())
    index = json.dumps({"metadata": {"total_size": size}, "weight_map": where}, indent=2)
    entry = "model.safetensors.index.json"
    return (Sample(entry, {**files, entry: index.encode()}),)


def _torch(*, zipped: bool = True) -> tuple[Sample, ...]:
    import torch

    state = {name: torch.from_numpy(each) for name, each in tensors().items()}
    parameters = [torch.nn.Parameter(each.clone()) for each in state.values()]
    optimizer = torch.optim.SGD(parameters, lr=0.1, momentum=0.9)
    sum(each.sum() for each in parameters).backward()
    optimizer.step()
    container = {
        "epoch": 3,
        "state_dict": {f"module.{name}": each for name, each in state.items()},
        "state_dict_ema": {name: each.double() for name, each in state.items()},
        "optimizer": optimizer.state_dict(),
        "arch": "mlp",
    }
    odd = {
        "brain": torch.randn(5).bfloat16(),
        "view": torch.randn(4, 6)[1:3, ::2],
        "count": torch.tensor(7),
        "empty": torch.zeros(0, 4),
    }
    if zipped:  # older than fp8
        odd["eighth"] = torch.randn(2, 3).to(torch.float8_e4m3fn)
    return tuple(
        Sample("a.pt", {"a.pt": _torch_saved(each, zipped=zipped)})
        for each in (state, container, odd)
    )


def _torch_legacy() -> tuple[Sample, ...]:
    return _torch(zipped=False)


def _npz() -> tuple[Sample, ...]:
    odd = odd_tensors()
    raw = {
        name: each.view(f"u{each.itemsize}") if name in ("brain", "eighth") else each
        for name, each in odd.items()
    }
    side = json.dumps(
        {
            "schema": "ckgrow.side/1",
            "metadata": {"format": "pt"},
            "dtypes": {"brain": "bfloat16", "eighth": "float8_e4m3fn"},
        }
    )
    turned = {"fortran": np.asfortranarray(raw["half"]), "big": raw["double"].astype(">f8")}
    return (
        Sample("a.npz", {"a.npz": _npz_saved(tensors(), compressed=False)}),
        Sample("a.npz", {"a.npz": _npz_saved(tensors(), compressed=True)}),
        Sample(
            "a.npz",
            {
                "a.npz": _npz_saved({**raw, **turned}, compressed=False),
                "a.npz.ckgrow.json": side.encode(),
            },
        ),
    )


def _onnx() -> tuple[Sample, ...]:
    import onnx

    embedded = _onnx_model(raw=True)
    with TemporaryDirectory() as folder:
        onnx.save(
            _onnx_model(raw=True),
            f"{folder}/a.onnx",
            save_as_external_data=True,
            location="a.onnx.data",
            size_threshold=0,
        )
        external = {each.name: each.read_bytes() for each in Path(folder).iterdir()}
    return (
        Sample("a.onnx", {"a.onnx": embedded.SerializeToString()}),
        Sample("a.onnx", external),
        Sample("a.onnx", {"a.onnx": _onnx_model(raw=False).SerializeToString()}),
    )


KINDS = {
    "record": _record,
    "safetensors": _safetensors,
    "sharded": _sharded,
    "torch": _torch,
    "torch-legacy": _torch_legacy,
    "npz": _npz,
    "onnx": _onnx,
}


def _grown(step: Mapping[str, Any]) -> bytes:
    """A student, whose record is one more thing that can be damaged."""
    with TemporaryDirectory() as folder:
        place = Path(folder, "student.safetensors")
        apply(tensors(), {"steps": [step]}, place, check=False, workers=1)
        return place.read_bytes()


def _torch_saved(value: Any, *, zipped: bool) -> bytes:
    import torch

    stream = io.BytesIO()
    torch.save(value, stream, _use_new_zipfile_serialization=zipped)
    return stream.getvalue()


def _npz_saved(values: Mapping[str, np.ndarray], *, compressed: bool) -> bytes:
    stream = io.BytesIO()
    (np.savez_compressed if compressed else np.savez)(stream, **values)
    return stream.getvalue()


def _onnx_model(*, raw: bool) -> Any:
    """The network of ``tensors()`` with its weights, in bytes or in typed fields."""
    from onnx import TensorProto, helper, numpy_helper

    values = {**tensors(), "spare.brain": odd_tensors()["brain"]}
    if raw:
        stored = [numpy_helper.from_array(each, name) for name, each in values.items()]
    else:
        values["spare.half"] = odd_tensors()["half"]
        stored = [
            helper.make_tensor(
                name, helper.np_dtype_to_tensor_dtype(each.dtype), each.shape, each.ravel().tolist()
            )
            for name, each in values.items()
        ]
    nodes = [
        helper.make_node("Gemm", ["input", "0.weight", "0.bias"], ["h"], "fc1", transB=1),
        helper.make_node("Relu", ["h"], ["a"], "act"),
        helper.make_node("Gemm", ["a", "2.weight", "2.bias"], ["output"], "fc2", transB=1),
    ]
    graph = helper.make_graph(
        nodes,
        "mlp",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["N", 4])],
        [helper.make_tensor_value_info("output", TensorProto.FLOAT, ["N", 3])],
        stored,
    )
    model = helper.make_model(graph, producer_name="fuzz")
    helper.set_model_props(model, {"format": "onnx"})
    return model
