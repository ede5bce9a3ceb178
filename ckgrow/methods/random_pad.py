r"""Random padding: the baseline that papers on growth compare with. It does not keep the function.

    rows that make the units:    [U_teacher; U]     columns that read them:    [W_teacher, V]

with U and V random. The teacher's weights are all there, but new units disturb what they computed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ckgrow.growth.axis import Growing, GrownAxis
from ckgrow.growth.fresh import fresh_columns
from ckgrow.maps import ChannelMap
from ckgrow.methods.method import Preserves, WidenMethod
from ckgrow.random import Stream
from ckgrow.recipes import Placed, Recipe

if TYPE_CHECKING:
    from ckgrow.spec import WidenStep


class RandomPad(WidenMethod):
    """Random new units that are read at random."""

    name = "random-pad"
    options = frozenset({"fill"})

    def preserves(self, step: WidenStep) -> Preserves:
        """It does not."""
        return "no"

    def channel_map(self, width: int, target: int, stream: Stream, step: WidenStep) -> ChannelMap:
        """0 to n - 1, then a fresh unit each."""
        return ChannelMap.with_fresh(width, target - width)

    def columns(self, source: Recipe, runs: tuple[GrownAxis, ...], at: Growing) -> Recipe:
        """[W_teacher, V]."""
        maps = tuple(run.map for run in runs)
        return Placed(source, at.dim, maps, fresh_columns(source, maps, at), random=True)


METHODS = (RandomPad(),)
