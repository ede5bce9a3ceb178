"""What other libraries say a damaged file holds: name, dtype where it has one, shape, bytes."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

Said = tuple[str, tuple[int, ...], bytes]
"""Of one tensor: numpy's name of its dtype, "" where bytes of that width count, shape, bytes."""


def said(kind: str, path: Path, weights: str | None, wanted: list[str]) -> Mapping[str, Said]:
    """The tensors of the file at ``path`` (in the state dict ``weights`` of a container)."""
    if kind in ("safetensors", "record"):
        return dict(_safetensors(path.read_bytes()))
    if kind == "sharded":
        return _sharded(path)
    if kind == "npz":
        return dict(_npz(path, wanted))
    if kind == "onnx":
        return dict(_onnx(path))
    return dict(_torch(path, weights))


_SAFETENSORS = {
    **{"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16", "BOOL": "bool"},
    **{f"I{size}": f"int{size}" for size in (8, 16, 32, 64)},
    **{f"U{size}": f"uint{size}" for size in (8, 16, 32, 64)},
    **{"F8_E4M3": "float8_e4m3fn", "F8_E5M2": "float8_e5m2", "F8_E8M0": "float8_e8m0fnu"},
    "C64": "complex64",
}


def _safetensors(data: bytes) -> Iterator[tuple[str, Said]]:
    import safetensors

    for name, tensor in safetensors.deserialize(data):
        dtype = _SAFETENSORS.get(tensor["dtype"], tensor["dtype"])
        yield name, (dtype, tuple(tensor["shape"]), bytes(tensor["data"]))


def _sharded(path: Path) -> Mapping[str, Said]:
    where = json.loads(path.read_text(encoding="utf-8"))["weight_map"]
    shards = {
        name: dict(_safetensors((path.parent / name).read_bytes())) for name in set(where.values())
    }
    return {name: shards[shard][name] for name, shard in where.items()}


def _npz(path: Path, wanted: list[str]) -> Iterator[tuple[str, Said]]:
    """As numpy reads it; the bytes of those that the side file names a dtype for are counted."""
    with np.load(path, allow_pickle=False) as arrays:
        for name in wanted:
            array = np.asarray(arrays[name])
            native = array.astype(array.dtype.newbyteorder("="))
            yield name, ("", native.shape, native.tobytes())


def _onnx(path: Path) -> Iterator[tuple[str, Said]]:
    import onnx
    from onnx import numpy_helper

    for each in onnx.load(path).graph.initializer:
        try:
            array = numpy_helper.to_array(each)
        except (ValueError, TypeError, RuntimeError, KeyError):
            continue  # one that it cannot read; whoever reads it is not confirmed then
        yield each.name, (array.dtype.name, array.shape, array.tobytes())


def _torch(path: Path, weights: str | None) -> Iterator[tuple[str, Said]]:
    import torch

    loaded: Any = torch.load(path, weights_only=True, map_location="cpu")
    for name, tensor in (loaded if weights is None else loaded[weights]).items():
        if isinstance(tensor, torch.Tensor):
            data = tensor.detach().contiguous().reshape(-1).view(torch.uint8).numpy()
            dtype = str(tensor.dtype).removeprefix("torch.")
            yield name, (dtype, tuple(tensor.shape), data.tobytes())
