r"""R2WiderR (Painter: Towards a More Complete Theory of Function Preserving Transforms, 4.1).

A layer of n units gets pairs of new units that are equal, and whatever reads them weighs the two
of a pair by opposite numbers:

    rows that make the units:    [U_teacher; U; U]        any U
    columns that read them:      [W_teacher, V, -V]       any V

so a pair contributes V h(U x) - V h(U x) = 0 whatever h is. Both U and V are full-scale and
random, and the two of a pair receive opposite gradients, so they part at once. New entries of
BatchNorm are equal in both of a pair. ``fill: copy`` starts U from copies of existing rows
(appendix F's hybrid with Net2Net), ``scale`` sets the size of V in deviations of the layer that
reads it, and gaussian ``noise`` disturbs the second U of each pair (approximate); zero-sum noise
adds to V what -V takes away.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ckgrow.graph import Graph
from ckgrow.groups import Group, Grouping
from ckgrow.growth.axis import Growing, GrownAxis
from ckgrow.growth.fresh import fresh_columns
from ckgrow.growth.noise import disturbed_rows, noise_of, noise_scale
from ckgrow.growth.prognosis import of_cancelling_pairs, of_zero_units
from ckgrow.maps import ChannelMap, fresh
from ckgrow.methods.method import Preserves, WidenMethod
from ckgrow.random import Stream
from ckgrow.recipes import Loud, Placed, Recipe

if TYPE_CHECKING:
    from ckgrow.spec import WidenStep


class R2Wider(WidenMethod):
    """Pairs of equal new units that cancel."""

    name = "r2wider"
    options = frozenset({"fill", "scale", "noise", "calibrate"})

    def preserves(self, step: WidenStep) -> Preserves:
        """Exact, unless gaussian noise parts the pairs."""
        noise = noise_of(step)
        return "approximate" if noise and noise.kind == "gaussian" else "exact"

    def warnings(
        self, step: WidenStep, graph: Graph, grouping: Grouping, group: Group
    ) -> list[str]:
        """Pairs that are zero, and weights that are too large to begin with."""
        if step.fill == "zeros":
            return of_zero_units(grouping, graph, group, "use fill: match-std")
        noise = noise_of(step)
        disturbance = noise_scale(noise) if noise and noise.kind == "zero-sum" else 0.0
        return of_cancelling_pairs(grouping, graph, group, step.scale, disturbance)

    def obstacle(self, width: int, target: int) -> str:
        """Only whole pairs can be added."""
        return "adds pairs, so an even number of channels" if (target - width) % 2 else ""

    def channel_map(self, width: int, target: int, stream: Stream, step: WidenStep) -> ChannelMap:
        """0 to n - 1, then fresh 0 to E - 1, then fresh 0 to E - 1 again."""
        half = fresh(np.arange((target - width) // 2))
        return ChannelMap(width, np.concatenate([np.arange(width), half, half]))

    def rows(self, source: Recipe, axis: GrownAxis, at: Growing) -> Recipe:
        """[U_teacher; U; U]."""
        made = super().rows(source, axis, at)
        noise = noise_of(at.step)
        if noise and noise.kind == "gaussian":
            second = (axis.map.fresh_units >= 0) & (axis.map.ranks > 0)
            made = Loud(disturbed_rows(made, source, at, second, noise), made)
        return made

    def columns(self, source: Recipe, runs: tuple[GrownAxis, ...], at: Growing) -> Recipe:
        """[W_teacher, V, -V]."""
        maps = tuple(run.map for run in runs)
        columns = fresh_columns(source, maps, at, at.step.scale)
        noise = noise_of(at.step)
        if columns is not None and noise and noise.kind == "zero-sum":
            every = np.ones(columns.spec.shape[at.dim], bool)
            columns = disturbed_rows(columns, source, at, every, noise)
        return Placed(source, at.dim, maps, columns, alternating=True)


METHODS = (R2Wider(),)
