"""ONNX models made by the onnx package and by torch, and what the package reads in them."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper

from ckgrow.checkpoint import Reader


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
    tensor.data_type = helper.np_dtype_to_tensor_dtype(array.dtype)
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
    """Every initialiser as the onnx package reads it, external data included."""
    model = onnx.load(path)
    return {each.name: numpy_helper.to_array(each) for each in model.graph.initializer}
