r"""Symmetric HyperCloning (Samragh et al.: Scaling Smart, 2024).

A layer becomes k times as wide by repeating its units as a whole, and whatever reads them divides
its weights evenly; a weight that grows along both axes is, for k = 2,

    [W/2  W/2]
    [W/2  W/2]

Copies receive equal gradients and would stay equal for ever, so noise is added that sums to zero
over the copies of each column: ``scale`` deviations of the layer's own weights, or ``snr_db``. It
is snapped to the last place of each weight, so that it cancels exactly (``ckgrow.shares``).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ckgrow.graph import Graph
from ckgrow.groups import Group, Grouping
from ckgrow.growth.axis import Growing, GrownAxis
from ckgrow.growth.noise import lasts, noise_of, zero_sum_noise
from ckgrow.growth.prognosis import parted_by_dropout
from ckgrow.maps import ChannelMap
from ckgrow.methods.method import Preserves, WidenMethod
from ckgrow.random import Stream
from ckgrow.recipes import Divided, Recipe
from ckgrow.spec import Noise

if TYPE_CHECKING:
    from ckgrow.spec import WidenStep


class Symmetric(WidenMethod):
    """Whole repetitions of a layer, weights divided evenly."""

    name = "symmetric"
    options = frozenset({"noise"})

    def preserves(self, step: WidenStep) -> Preserves:
        """Noise cancels exactly."""
        return "exact"

    def warnings(
        self, step: WidenStep, graph: Graph, grouping: Grouping, group: Group
    ) -> list[str]:
        """Copies that nothing tells apart."""
        if lasts(_noise(step)) or parted_by_dropout(grouping, graph, group):
            return []
        return [
            f"{group.name}: without noise that lasts the copies receive equal gradients and stay "
            "locked together; leave noise at its default"
        ]

    def obstacle(self, width: int, target: int) -> str:
        """Only whole repetitions."""
        return "repeats a layer as a whole" if target % width else ""

    def channel_map(self, width: int, target: int, stream: Stream, step: WidenStep) -> ChannelMap:
        """0 to n - 1 again and again."""
        return ChannelMap(width, np.tile(np.arange(width), target // width))

    def columns(self, source: Recipe, runs: tuple[GrownAxis, ...], at: Growing) -> Recipe:
        """Shares of every weight for the copies it reads, and noise."""
        split = self.split(at)
        return Divided(
            source,
            at.dim,
            tuple(run.map for run in runs),
            split,
            (),
            at.stream("shares"),
            zero_sum_noise(_noise(at.step), source, split, runs[0].map, at),
            copy_of_row=at.rows.map.ranks if split == "diagonal" and at.rows else None,
        )

    def split(self, at: Growing) -> str:
        """How weights are divided: evenly."""
        return "uniform"


def _noise(step: WidenStep) -> Noise | None:
    return noise_of(step, Noise(), ("zero-sum",))


METHODS = (Symmetric(),)
