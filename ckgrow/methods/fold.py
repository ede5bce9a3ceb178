r"""Widening one volume of a residual stream (R2R: Painter, 2024, section 4.2 and appendix C.2).

A stream's volumes are summed, so they are widened together, unless the shortcut can do with two
volumes of unequal width. R2R widens the volume x alone, by pairs as :mod:`ckgrow.methods.r2wider`
does, and lets the shortcut that leaves it fold it back (equation 17):

    the volume                   [x; xL; xR]      with xL = xR
    layers that read it          [W, V, -V]       any V
    the shortcut that leaves it  x + xL - xR  =  [I, J, -J] [x; xL; xR]

where J adds the pairs to the first channels of x (again from the first one where there are more
pairs than channels). The shortcut that enters the volume's sum has nothing for the new channels:
[I; 0; 0]. Both are a 1x1 convolution on the shortcut, ``<block>.fold_grown1``, which is the
identity before the volume grows (``ckgrow.drafts.shortcuts``). The paper's are fixed; these are
parameters like others, and stay fixed for whoever excludes them from training.

In terms of the shortcut's present weight S the new columns are those of the channels that the
pairs are added to, S J and -S J. So folding a volume again, or a volume whose shortcut has been
trained, computes S(x + xL - xR) as well, and so does a shortcut that pads and subsamples (option
A). A down-sampling shortcut with a convolution of its own reads the volume like any layer.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np

from ckgrow.drafts.shortcuts import freed, is_fold, volumes_of
from ckgrow.growth.axis import Growing, GrownAxis
from ckgrow.maps import ChannelMap
from ckgrow.methods.method import Prepared
from ckgrow.methods.r2wider import R2Wider
from ckgrow.recipes import Placed, Recipe

if TYPE_CHECKING:
    from ckgrow.drafts.draft import Draft
    from ckgrow.spec import WidenStep

OFF_STREAM = "it is on no residual connection, so there is nothing to fold: r2wider widens it as is"


class Fold(R2Wider):
    """Pairs in one volume of a stream; the shortcut folds them back."""

    name = "fold"

    def prepare(self, draft: Draft, layers: Iterable[str], step: WidenStep) -> Prepared:
        """A layer on every identity shortcut of the volumes that grow."""
        volumes = volumes_of(draft, layers)
        barred = {layer: OFF_STREAM for layer, each in volumes.items() if not each.on_stream}
        return Prepared(freed(draft, volumes, step.where), barred)

    def rows(self, source: Recipe, axis: GrownAxis, at: Growing) -> Recipe:
        """[U_teacher; U; U]; [S; 0; 0] on the shortcut that enters the volume's sum."""
        if is_fold(at.node.name):
            return Placed(source, at.dim, (axis.map,))
        return super().rows(source, axis, at)

    def columns(self, source: Recipe, runs: tuple[GrownAxis, ...], at: Growing) -> Recipe:
        """[W_teacher, V, -V]; [S, S J, -S J] on a shortcut that leaves the volume."""
        if not is_fold(at.node.name):
            return super().columns(source, runs, at)
        (axis,) = runs
        added = Placed(source, at.dim, (ChannelMap(axis.map.width, _folded_onto(axis)),))
        return Placed(source, at.dim, (axis.map,), added, alternating=True)


def _folded_onto(axis: GrownAxis) -> np.ndarray:
    """For each pair of an axis the channel that it is added to: the first, the second, ..."""
    found: list[np.ndarray] = [np.empty(0, np.int64)]
    before = 0
    for part in axis.parts:
        width, pairs = part.map.width * part.inner, part.map.fresh_count * part.inner
        found.append(before + np.arange(pairs) % max(width, 1))
        before += width
    return np.concatenate(found)


METHODS = (Fold(),)
