"""Tensors in memory as a checkpoint: numpy arrays, or torch tensors without importing torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from ckgrow.checkpoint import Contents, File, Span
from ckgrow.errors import CheckpointError
from ckgrow.header import Header, TensorSpec, numpy_dtype
from ckgrow.names import shown


class MemoryReader:
    """A reader over a mapping of arrays."""

    def __init__(self, tensors: Mapping[str, Any]) -> None:
        self._arrays = {_name(name): _array(name, tensor) for name, tensor in tensors.items()}
        specs = {
            name: TensorSpec(array.dtype.name, array.shape) for name, array in self._arrays.items()
        }
        self.header = Header(specs)
        self.contents = Contents({}, ties=_ties(tensors))

    def read(self, name: str, start: int, stop: int) -> np.ndarray:
        """Rows of a tensor, which stay the caller's: they cannot be written to."""
        rows = np.atleast_1d(self._arrays[name])[start:stop]
        rows.flags.writeable = False
        return rows

    def span(self, name: str) -> Span | None:
        """In no file."""
        return None

    def files(self) -> tuple[File, ...]:
        """None."""
        return ()

    def unchanged(self) -> bool:
        """Nobody else writes to it while ckgrow runs."""
        return True

    def close(self) -> None:
        """Nothing to give back."""


def _ties(tensors: Mapping[str, Any]) -> tuple[tuple[str, ...], ...]:
    """Names of torch tensors that share one parameter."""
    names: dict[object, list[str]] = {}
    for name, tensor in tensors.items():
        if hasattr(tensor, "detach") and tensor.numel():
            layout = tuple(tensor.shape), tensor.stride(), tensor.dtype
            names.setdefault((tensor.data_ptr(), *layout), []).append(name)
    return tuple(tuple(each) for each in names.values() if len(each) > 1)


def _name(name: object) -> str:
    if not isinstance(name, str):
        raise CheckpointError(f"the tensor name {shown(repr(name))} is no text")
    return name


def _array(name: str, tensor: Any) -> np.ndarray:
    if isinstance(tensor, np.ndarray):
        return tensor.astype(tensor.dtype.newbyteorder("="), copy=False)
    if not hasattr(tensor, "detach"):
        raise CheckpointError(f"{shown(name)} is a {type(tensor).__name__}, not a tensor")
    plain = tensor.detach().cpu().contiguous()
    kind = str(plain.dtype).removeprefix("torch.")
    try:
        return plain.numpy()
    except TypeError:  # bfloat16 and fp8, which numpy reaches through their bits
        import torch

        bits = {1: torch.uint8, 2: torch.int16}[plain.element_size()]
        return plain.view(bits).numpy().view(numpy_dtype(kind))
