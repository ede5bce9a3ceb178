"""What a row of a tensor is, the same for every format."""

from __future__ import annotations

from ckgrow.header import TensorSpec


def rows_shape(name: str, spec: TensorSpec, start: int, stop: int) -> tuple[int, ...]:
    """The shape of rows ``start`` to ``stop``; a scalar is one row of one element.

    Raises ValueError when the tensor does not have these rows.
    """
    count, *rest = spec.shape or (1,)
    if not 0 <= start <= stop <= count:
        raise ValueError(f"rows {start} to {stop} of {name!r}, which has {count}")
    return (stop - start, *rest)
