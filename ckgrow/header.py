"""What is known of a checkpoint before a tensor is read: names, dtypes and shapes.

Dtypes are numpy's names, with those of ml_dtypes for what numpy lacks (``bfloat16``,
``float8_e4m3fn``, ...).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

from ckgrow.errors import CheckpointError

FLOAT_DTYPES = frozenset({"float64", "float32", "float16", "bfloat16"})
"""What ckgrow does arithmetic in, and what grows."""

FLOAT8_DTYPES = frozenset(
    {"float8_e4m3fn", "float8_e5m2", "float8_e8m0fnu", "float8_e4m3fnuz", "float8_e5m2fnuz"}
)
"""What networks compute with as well, and what stays as it is."""

NUMBER_DTYPES = FLOAT_DTYPES | FLOAT8_DTYPES
WRAPPERS = ("module.", "_orig_mod.")
"""What modules that wrap another (DistributedDataParallel, a compiled one) put before its keys."""


@cache
def numpy_dtype(name: str) -> np.dtype[Any]:
    """The numpy dtype called ``name``; ml_dtypes is imported only for what numpy lacks."""
    try:
        return np.dtype(name)
    except TypeError:
        import ml_dtypes

        scalar = getattr(ml_dtypes, name, None)
        if scalar is None:
            raise CheckpointError(f"dtype {name!r} is not supported") from None
        extended: np.dtype[Any] = np.dtype(scalar)
        return extended


def last_place(dtype: str) -> float:
    """A unit in the last place of 1.0 in a floating-point dtype."""
    one = np.ones((), numpy_dtype(dtype))
    bits = {1: np.int8, 2: np.int16, 4: np.int32, 8: np.int64}[one.itemsize]
    following = (one.view(bits) + 1).astype(bits).view(one.dtype)
    return float(following) - 1.0


@dataclass(frozen=True)
class TensorSpec:
    """The dtype and shape of one tensor."""

    dtype: str
    shape: tuple[int, ...]

    @property
    def size(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)

    @property
    def itemsize(self) -> int:
        """Bytes of one element."""
        return numpy_dtype(self.dtype).itemsize

    @property
    def nbytes(self) -> int:
        """Bytes of the whole tensor."""
        return self.size * self.itemsize

    @property
    def is_float(self) -> bool:
        """Whether ckgrow can do arithmetic on it."""
        return self.dtype in FLOAT_DTYPES

    @property
    def is_number(self) -> bool:
        """Whether networks compute with it."""
        return self.dtype in NUMBER_DTYPES

    def resized(self, axis: int, count: int) -> TensorSpec:
        """The same with ``count`` entries along one axis."""
        return TensorSpec(self.dtype, (*self.shape[:axis], count, *self.shape[axis + 1 :]))


class Header(Mapping[str, TensorSpec]):
    """Tensor specs by name, in the order of the file. Immutable."""

    def __init__(self, specs: Mapping[str, TensorSpec]) -> None:
        self._specs = dict(specs)

    def __getitem__(self, name: str) -> TensorSpec:
        return self._specs[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._specs)

    def __len__(self) -> int:
        return len(self._specs)

    def __repr__(self) -> str:
        return f"Header({len(self._specs)} tensors)"

    def shape(self, name: str) -> tuple[int, ...]:
        """The shape of ``name``; KeyError when there is no such tensor."""
        return self._specs[name].shape


def common_prefix(names: Mapping[str, object]) -> str:
    """The wrapper prefixes that all keys share (``module.``, ``_orig_mod.``), "" if none."""
    prefix = ""
    while names:
        longer = [
            prefix + each
            for each in WRAPPERS
            if all(name.startswith(prefix + each) for name in names)
        ]
        if not longer:
            break
        prefix = longer[0]
    return prefix
