"""Shapes that files from elsewhere may claim."""

from __future__ import annotations

import math
from collections.abc import Sequence

from ckgrow.errors import CheckpointError
from ckgrow.names import shown

_MAX_RANK = 64  # numpy's
_MAX_BYTES = 2**63 - 1


def nbytes_of(name: str, shape: Sequence[int], itemsize: int, place: str) -> int:
    """The bytes of a tensor of this shape, whose sizes are whole numbers.

    Raises CheckpointError for a shape that no array can have, even where one of its sizes is 0.
    """
    if len(shape) > _MAX_RANK:
        raise CheckpointError(
            f"{place}: tensor {shown(name)} has {len(shape)} dimensions; at most {_MAX_RANK} work"
        )
    if min(shape, default=0) < 0:
        raise CheckpointError(
            f"{place}: a size in the shape of tensor {shown(name)} is negative; the file is "
            "damaged or forged"
        )
    nbytes = math.prod(shape) * itemsize
    if not nbytes and math.prod(filter(None, shape)) * itemsize > _MAX_BYTES:
        raise CheckpointError(
            f"{place}: the shape of tensor {shown(name)} is too large for any machine; the file is "
            "damaged or forged"
        )
    return nbytes
