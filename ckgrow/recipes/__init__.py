"""How each student tensor is made: small expressions over the teacher's tensors.

A recipe knows its result's dtype and shape before anything is read, can say in words what it does,
and computes any rows of its result from rows of what it is made of; so a tensor of any size is
made in tiles. What needs the data itself (a layer's own standard deviation) is a
:class:`Statistic`, measured when execution starts.

Rows are indexes into the first axis; a scalar has the one row 0 and is computed with shape (1,).
"""

from ckgrow.recipes.base import (
    Kept,
    Measurement,
    Reading,
    Recipe,
    Statistic,
    Taken,
    history,
    ranges,
)
from ckgrow.recipes.calibrated import Calibrated
from ckgrow.recipes.divided import Divided
from ckgrow.recipes.factored import EXACT_DTYPES, Mixed, Mixing, Unmixed
from ckgrow.recipes.loud import Loud
from ckgrow.recipes.perturbed import Noised, Scaled
from ckgrow.recipes.placed import Placed
from ckgrow.recipes.simple import Drawn, Filled, Stored, UnitKernel
from ckgrow.recipes.splits import Disturbance, share_size
from ckgrow.recipes.undoing import DEFECTS, ROLES, Undoing, identity_statistics, undone

__all__ = [
    "DEFECTS",
    "EXACT_DTYPES",
    "ROLES",
    "Calibrated",
    "Disturbance",
    "Divided",
    "Drawn",
    "Filled",
    "Kept",
    "Loud",
    "Measurement",
    "Mixed",
    "Mixing",
    "Noised",
    "Placed",
    "Reading",
    "Recipe",
    "Scaled",
    "Statistic",
    "Stored",
    "Taken",
    "Undoing",
    "UnitKernel",
    "Unmixed",
    "history",
    "identity_statistics",
    "ranges",
    "share_size",
    "undone",
]
