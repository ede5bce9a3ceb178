"""What a row of a tensor is, the same for every format."""

from __future__ import annotations

import math

import numpy as np

from ckgrow.header import TensorSpec, numpy_dtype


def rows_shape(name: str, spec: TensorSpec, start: int, stop: int) -> tuple[int, ...]:
    """The shape of rows ``start`` to ``stop``; a scalar is one row of one element.

    Raises ValueError when the tensor does not have these rows.
    """
    count, *rest = spec.shape or (1,)
    if not 0 <= start <= stop <= count:
        raise ValueError(f"rows {start} to {stop} of {name!r}, which has {count}")
    return (stop - start, *rest)


def packed(name: str, spec: TensorSpec, start: int, rows: np.ndarray) -> tuple[int, memoryview]:
    """Where ``rows`` from row ``start`` on begin among the tensor's bytes, and their bytes.

    Raises ValueError when they do not fit the tensor.
    """
    stop = start + (len(rows) if rows.ndim else 1)
    shape = rows_shape(name, spec, start, stop)
    if rows.dtype != numpy_dtype(spec.dtype) or rows.shape not in (shape, spec.shape):
        raise ValueError(
            f"rows of {rows.dtype} {rows.shape} for {name!r} of {spec.dtype} {spec.shape}"
        )
    data = np.ascontiguousarray(rows).reshape(-1).view(np.uint8)
    return start * math.prod(spec.shape[1:]) * spec.itemsize, data.data
