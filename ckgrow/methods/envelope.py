r"""Envelope expansion: the teacher's matrix in the centre of a larger one.

Known from studies of weight expansion on CIFAR-10. New units stand on both sides of the teacher's:

    rows that make the units:    [E1; U_teacher; E2]      E1, E2 noise
    columns that read them:      [0, W_teacher, 0]

so a weight that grows along both axes is the teacher's block with noise above and below it and
zeros to its left and right. The noise is gaussian, ``scale`` deviations of the layer's own weights.
``noise: none`` is the plain envelope, zeros all around: new units receive no gradient and are dead.
``noise: {both: true}`` puts noise into the columns as well, which changes the function.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ckgrow.graph import Graph
from ckgrow.groups import Group, Grouping
from ckgrow.growth.axis import Growing, GrownAxis
from ckgrow.growth.noise import disturbed_rows, noise_of
from ckgrow.maps import ChannelMap
from ckgrow.methods.method import Preserves, WidenMethod
from ckgrow.random import Stream
from ckgrow.recipes import Loud, Placed, Recipe
from ckgrow.spec import Noise

if TYPE_CHECKING:
    from ckgrow.spec import WidenStep


class Envelope(WidenMethod):
    """Noise around the teacher's rows, zeros around its columns."""

    name = "envelope"
    options = frozenset({"noise", "calibrate"})
    placement = "center"

    def preserves(self, step: WidenStep) -> Preserves:
        """Exact, unless the columns are noisy too."""
        noise = _noise(step)
        return "approximate" if noise and noise.both else "exact"

    def warnings(
        self, step: WidenStep, graph: Graph, grouping: Grouping, group: Group
    ) -> list[str]:
        """Dead units."""
        if _noise(step) is not None:
            return []
        return [
            f"{group.name}: without noise the new units are zero on both sides: they are dead and "
            "cannot learn; leave noise at its default"
        ]

    def channel_map(self, width: int, target: int, stream: Stream, step: WidenStep) -> ChannelMap:
        """The teacher's channels and a fresh unit for every other."""
        return ChannelMap.with_fresh(width, target - width)

    def rows(self, source: Recipe, axis: GrownAxis, at: Growing) -> Recipe:
        """[E1; U_teacher; E2]."""
        surrounded = Placed(source, at.dim, (axis.map,))
        noise = _noise(at.step)
        new = axis.map.fresh_units >= 0
        if noise is None or not new.any():
            return surrounded
        return disturbed_rows(surrounded, source, at, new, noise)

    def columns(self, source: Recipe, runs: tuple[GrownAxis, ...], at: Growing) -> Recipe:
        """[0, W_teacher, 0], or noise instead of the zeros."""
        surrounded = Placed(source, at.dim, tuple(run.map for run in runs))
        noise = _noise(at.step)
        new = runs[0].map.fresh_units >= 0  # alike in all runs, which grow equally
        if noise is None or not noise.both or not new.any():
            return surrounded
        return Loud(disturbed_rows(surrounded, source, at, new, noise), surrounded)


def _noise(step: WidenStep) -> Noise | None:
    return noise_of(step, Noise(), ("gaussian",), both_sides=True)


METHODS = (Envelope(),)
