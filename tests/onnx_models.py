"""ONNX models made by the onnx package and by torch, and what the package reads in them."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import onnx
import torch
from onnx import TensorProto, helper

from ckgrow.checkpoint import Reader

DTYPES = {
    np.dtype(name): getattr(TensorProto, kind)
    for name, kind in {
        **{name: name.upper() for name in ("int8", "int16", "int32", "int64", "bool")},
        **{name: name.upper() for name in ("uint8", "uint16", "uint32", "uint64", "float16")},
        **{name: name.upper() for name in ("complex64", "complex128")},
        "float32": "FLOAT",
        "float64": "DOUBLE",
        ml_dtypes.bfloat16: "BFLOAT16",
        ml_dtypes.float8_e4m3fn: "FLOAT8E4M3FN",
        ml_dtypes.float8_e4m3fnuz: "FLOAT8E4M3FNUZ",
        ml_dtypes.float8_e5m2: "FLOAT8E5M2",
        ml_dtypes.float8_e5m2fnuz: "FLOAT8E5M2FNUZ",
    }.items()
}
DTYPES[np.dtype(ml_dtypes.float8_e8m0fnu)] = 24  # which older packages have no name for
"""ONNX's dtypes by numpy's; older packages do not know those of ml_dtypes."""


def raw(name: str, values: Any) -> TensorProto:
    """A tensor whose numbers are stored as bytes."""
    array = np.asarray(values)
    return TensorProto(
        name=name, dims=array.shape, data_type=DTYPES[array.dtype], raw_data=array.tobytes()
    )


def typed(name: str, array: np.ndarray) -> TensorProto:
    """A tensor whose numbers stand in the field of their type."""
    kind = DTYPES[array.dtype]
    if array.dtype.kind == "V" or array.dtype == np.float16:  # their bits
        bits = array.view(f"u{array.dtype.itemsize}").ravel().tolist()
        return TensorProto(name=name, dims=array.shape, data_type=kind, int32_data=bits)
    return helper.make_tensor(name, kind, array.shape, array.ravel().tolist())


def model_of(*initialisers: TensorProto, nodes: Any = (), **fields: Any) -> onnx.ModelProto:
    """A model with these initialisers and hardly anything else."""
    graph = helper.make_graph(list(nodes), "g", [], [], list(initialisers))
    return helper.make_model(graph, producer_name="test", ir_version=10, **fields)


def saved(path: Path, *initialisers: TensorProto, **fields: Any) -> Path:
    path.write_bytes(model_of(*initialisers, **fields).SerializeToString())
    return path


def external(name: str, array: np.ndarray, **stated: Any) -> TensorProto:
    """A tensor whose numbers stand in another file."""
    tensor = TensorProto(name=name, dims=array.shape, data_location=TensorProto.EXTERNAL)
    tensor.data_type = DTYPES[array.dtype]
    for key, value in stated.items():
        tensor.external_data.add(key=key, value=str(value))
    return tensor


def exported(path: Path, module: torch.nn.Module, example: torch.Tensor, **options: Any) -> Path:
    """As torch writes a module that is to be trained on: nothing folded into something else."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the exporter about itself
        torch.onnx.export(module.eval(), (example,), path, verbose=False, **options)
    return path


def whole(reader: Reader, name: str) -> np.ndarray:
    shape = reader.header[name].shape
    return reader.read(name, 0, shape[0] if shape else 1).reshape(shape)


def arrays_in(path: Path) -> dict[str, np.ndarray]:
    """Every initialiser as the onnx package finds it, external data included."""
    dtypes = {number: dtype for dtype, number in DTYPES.items()}
    return {
        each.name: np.frombuffer(each.raw_data, dtypes[each.data_type]).reshape(each.dims)
        for each in onnx.load(path).graph.initializer
    }
