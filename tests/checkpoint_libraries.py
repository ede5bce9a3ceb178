"""Checkpoints written and read by their own libraries, not by ckgrow: dtype, shape and bytes."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
import onnx
import safetensors
import torch
from safetensors.torch import save_file


class Plain(NamedTuple):
    """A tensor as nothing but what it is."""

    dtype: str
    shape: tuple[int, ...]
    data: bytes


Tensors = Mapping[str, Plain]

FLOATS8 = ("e4m3fn", "e5m2", "e8m0fnu", "e4m3fnuz", "e5m2fnuz")
EVERYWHERE = (
    *("float64", "float32", "float16", "bfloat16", *(f"float8_{each}" for each in FLOATS8)),
    *("int64", "int32", "int16", "int8", "uint64", "uint32", "uint16", "uint8", "bool"),
)
"""Dtypes that every format holds."""

RAW = {"bfloat16": "u2", **{f"float8_{each}": "u1" for each in FLOATS8}}


def as_torch(each: Plain) -> torch.Tensor:
    flat = torch.frombuffer(bytearray(each.data) or bytearray(1), dtype=torch.uint8)
    flat = flat[: len(each.data)].clone()
    return flat.view(getattr(torch, each.dtype)).reshape(each.shape)


def from_torch(tensor: torch.Tensor) -> Plain:
    name = str(tensor.dtype).removeprefix("torch.")
    data = tensor.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
    return Plain(name, tuple(tensor.shape), data)


def write_torch(path: Path, tensors: Tensors, metadata: Mapping[str, str]) -> None:
    torch.save({name: as_torch(each) for name, each in tensors.items()}, path)
    _write_side(path, metadata, {})


def read_torch(path: Path) -> dict[str, Plain]:
    return {name: from_torch(each) for name, each in torch.load(path, weights_only=True).items()}


def write_npz(path: Path, tensors: Tensors, metadata: Mapping[str, str]) -> None:
    arrays = {
        name: np.frombuffer(each.data, RAW.get(each.dtype, each.dtype)).reshape(each.shape)
        for name, each in tensors.items()
    }
    np.savez(path, **arrays)
    dtypes = {name: each.dtype for name, each in tensors.items() if each.dtype in RAW}
    _write_side(path, metadata, dtypes)


def read_npz(path: Path) -> dict[str, Plain]:
    side = path.with_name(path.name + ".ckgrow.json")
    dtypes = json.loads(side.read_text())["dtypes"] if side.exists() else {}
    with np.load(path, allow_pickle=False) as found:
        return {
            name: Plain(
                dtypes.get(name, found[name].dtype.name), found[name].shape, found[name].tobytes()
            )
            for name in found.files
        }


def _write_side(path: Path, metadata: Mapping[str, str], dtypes: Mapping[str, str]) -> None:
    if metadata or dtypes:
        text = {"schema": "ckgrow.side/1", "metadata": dict(metadata), "dtypes": dict(dtypes)}
        path.with_name(path.name + ".ckgrow.json").write_text(json.dumps(text))


def write_safetensors(path: Path, tensors: Tensors, metadata: Mapping[str, str]) -> None:
    save_file(
        {name: as_torch(each) for name, each in tensors.items()}, path, dict(metadata) or None
    )


def read_safetensors(path: Path) -> dict[str, Plain]:
    with safetensors.safe_open(path, "pt") as file:
        return {name: from_torch(file.get_tensor(name)) for name in file.keys()}  # noqa: SIM118


def write_sharded(path: Path, tensors: Tensors, metadata: Mapping[str, str]) -> None:
    stem, names = path.name.removesuffix(".safetensors.index.json"), list(tensors)
    weight_map = {}
    for number, part in enumerate((names[::2], names[1::2])):
        shard = f"{stem}-{number + 1:05}-of-00002.safetensors"
        write_safetensors(
            path.with_name(shard), {name: tensors[name] for name in part}, {"format": "pt"}
        )
        weight_map.update(dict.fromkeys(part, shard))
    index = {"metadata": dict(metadata), "weight_map": weight_map}
    path.write_text(json.dumps(index))


def read_sharded(path: Path) -> dict[str, Plain]:
    weight_map = json.loads(path.read_text())["weight_map"]
    shards = {name: read_safetensors(path.with_name(name)) for name in set(weight_map.values())}
    assert sum(map(len, shards.values())) == len(weight_map)
    return {name: shards[shard][name] for name, shard in weight_map.items()}


ONNX_NAMES = {
    **{"float64": "DOUBLE", "float32": "FLOAT"},
    **{f"float8_{each}": f"FLOAT8{each.removesuffix('fnu').upper()}" for each in FLOATS8},
    **{"float8_e4m3fnuz": "FLOAT8E4M3FNUZ", "float8_e5m2fnuz": "FLOAT8E5M2FNUZ"},
}


def _onnx_number(dtype: str) -> int:
    return onnx.TensorProto.DataType.Value(ONNX_NAMES.get(dtype, dtype.upper()))


def write_onnx(path: Path, tensors: Tensors, metadata: Mapping[str, str]) -> None:
    initialisers = [
        onnx.TensorProto(
            name=name, data_type=_onnx_number(each.dtype), dims=each.shape, raw_data=each.data
        )
        for name, each in tensors.items()
    ]
    graph = onnx.helper.make_graph([], "tensors", [], [], initialisers)
    model = onnx.helper.make_model(graph)
    onnx.helper.set_model_props(model, dict(metadata))
    onnx.save(model, path)


def read_onnx(path: Path) -> dict[str, Plain]:
    names = {_onnx_number(dtype): dtype for dtype in (*EVERYWHERE, "complex64", "complex128")}
    found: dict[str, Plain] = {}
    for each in onnx.load(path).graph.initializer:
        data = each.raw_data or onnx.numpy_helper.to_array(each).tobytes()
        found[each.name] = Plain(names[each.data_type], tuple(each.dims), data)
    return found


class Library(NamedTuple):
    """A format by its own library: the suffix of its files, and the dtypes it has besides."""

    suffix: str
    write: Callable[[Path, Tensors, Mapping[str, str]], None]
    read: Callable[[Path], dict[str, Plain]]
    more: tuple[str, ...] = ()


LIBRARIES = {
    "safetensors": Library(".safetensors", write_safetensors, read_safetensors, ("complex64",)),
    "sharded": Library(".safetensors.index.json", write_sharded, read_sharded, ("complex64",)),
    "torch": Library(".pt", write_torch, read_torch),
    "npz": Library(".npz", write_npz, read_npz, ("complex64", "complex128")),
    "onnx": Library(".onnx", write_onnx, read_onnx, ("complex64", "complex128")),
}
