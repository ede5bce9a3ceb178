r"""Diagonal HyperCloning (Samragh et al.: Scaling Smart, 2024).

As ``symmetric``, but each copy of a layer's units reads its own copy of the units before: with m
copies of the rows and k of the columns, copy r of the rows reads copy r mod k of the columns. For
m = k = 2 a weight becomes

    [W  0]
    [0  W]

plus noise that sums to zero over the copies of each column. A layer that reads copies without
making any has no diagonal: ``fallback: symmetric`` divides its weights evenly, ``random`` lets each
row read one copy of each unit, drawn for each.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ckgrow.graph import Graph
from ckgrow.groups import Group, Grouping
from ckgrow.growth.axis import Growing
from ckgrow.methods.symmetric import Symmetric

if TYPE_CHECKING:
    from ckgrow.spec import WidenStep


class Diagonal(Symmetric):
    """Whole repetitions of a layer, each reading its own copy of the layer before."""

    name = "diagonal"
    options = frozenset({"noise", "fallback"})

    def warnings(
        self, step: WidenStep, graph: Graph, grouping: Grouping, group: Group
    ) -> list[str]:
        """Copies that nothing tells apart: neither noise nor readers that choose among them."""
        if step.fallback == "random":
            return []
        return super().warnings(step, graph, grouping, group)

    def split(self, at: Growing) -> str:
        """Along the diagonal, where there is one."""
        if at.rows is not None:
            return "diagonal"
        return "uniform" if at.step.fallback == "symmetric" else "select"


METHODS = (Diagonal(),)
