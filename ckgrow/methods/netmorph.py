r"""Network Morphism (Wei, Wang, Rui, Chen: Network Morphism, ICML 2016, sections 3 and 4).

Width. New units are inserted between two layers F1 and F2 with one side zero:

    zero: out      rows [U_teacher; U] with U random,   columns [W_teacher, 0]
    zero: in       rows [U_teacher; 0],                 columns [W_teacher, V] with V random

With ``out`` the columns learn first, and then the rows. With ``in`` a new unit is zero for every
input, which needs every function behind it to keep zero, and before a ReLU it stays zero: the
gradient of ReLU at 0 is 0, so the unit is dead.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ckgrow.errors import SpecError
from ckgrow.graph import Graph
from ckgrow.groups import Group, Grouping
from ckgrow.growth.axis import Growing, GrownAxis
from ckgrow.growth.fresh import fresh_columns
from ckgrow.maps import ZERO, ChannelMap
from ckgrow.methods.method import Preserves, WidenMethod
from ckgrow.ops import rule
from ckgrow.random import Stream
from ckgrow.recipes import Placed, Recipe

if TYPE_CHECKING:
    from ckgrow.spec import WidenStep


class NetMorphWider(WidenMethod):
    """New units with zero on one side."""

    name = "netmorph"
    options = frozenset({"fill", "zero"})

    def preserves(self, step: WidenStep) -> Preserves:
        """Zeros are exact."""
        return "exact"

    def rests_on(self, step: WidenStep) -> tuple[str, ...]:
        """Zero units rely on f(0) = 0."""
        return ("activation",) if step.zero == "in" else ()

    def warnings(
        self, step: WidenStep, graph: Graph, grouping: Grouping, group: Group
    ) -> list[str]:
        """Dead units; SpecError where zero does not stay zero."""
        if step.zero == "out":
            if step.fill != "zeros":
                return []
            return [
                f"{group.name}: with fill: zeros the new units are zero on both sides: they are "
                "dead and cannot learn; use fill: match-std"
            ]
        readers = [graph.node(name) for name in grouping.readers(graph, group)]
        for node in readers:
            if not rule(node.op).keeps_zero(node, graph.constants):
                raise SpecError(
                    f"{step.where}: netmorph with zero: in behind {group.name}: {node.name} is "
                    f"{node.op}, which makes something else of zero; use zero: out"
                )
        rectifiers = [node.name for node in readers if node.op in ("Relu", "Clip")]
        if not rectifiers:
            return []
        return [
            f"{group.name}: new units are zero before the {graph.node(rectifiers[0]).op} "
            f"{rectifiers[0]}, whose gradient there is zero: they are dead and cannot learn; "
            "use zero: out"
        ]

    def channel_map(self, width: int, target: int, stream: Stream, step: WidenStep) -> ChannelMap:
        """0 to n - 1, then a fresh unit each, or zeros."""
        if step.zero == "out":
            return ChannelMap.with_fresh(width, target - width)
        zeros = np.full(target - width, ZERO)
        return ChannelMap(width, np.concatenate([np.arange(width), zeros]))

    def columns(self, source: Recipe, runs: tuple[GrownAxis, ...], at: Growing) -> Recipe:
        """[W_teacher, 0], or [W_teacher, V] where the units are zero themselves."""
        maps = tuple(run.map for run in runs)
        if at.step.zero == "out":
            return Placed(source, at.dim, maps)
        maps = tuple(each.with_zeros_as_fresh() for each in maps)
        return Placed(source, at.dim, maps, fresh_columns(source, maps, at))


METHODS = (NetMorphWider(),)
