r"""Network Morphism (Wei, Wang, Rui, Chen: Network Morphism, ICML 2016, sections 3 and 4).

Width. New units are inserted between two layers F1 and F2 with one side zero:

    zero: out      rows [U_teacher; U] with U random,   columns [W_teacher, 0]
    zero: in       rows [U_teacher; 0],                 columns [W_teacher, V] with V random

With ``out`` the columns learn first, and then the rows. With ``in`` a new unit is zero for every
input, which needs every function behind it to keep zero, and before a ReLU it stays zero: the
gradient of ReLU at 0 is 0, so the unit is dead.

Depth. A linear layer W becomes two, W = M W', right behind each other in front of its BatchNorm and
activation, so that any activation will do:

    y = W x + b    =    M (W' x + b'),      W' = M^-1 W,   b' = M^-1 b

M is dense and well conditioned (``ckgrow.recipes.factored``): a 1 x 1 convolution with the layer's
own groups, or a square linear layer. Between the two there is nothing, or a P-activation (section
4.3): a PReLU whose slope is 1, the identity that can learn to be a ReLU. The teacher's weights are
not found in the student then, but in the product.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from ckgrow.drafts.blocks import rows_of
from ckgrow.drafts.copying import copied_key, same_size
from ckgrow.drafts.draft import Draft, Origin
from ckgrow.drafts.places import Place, bare_place
from ckgrow.errors import SpecError
from ckgrow.graph import Graph, Node
from ckgrow.groups import Group, Grouping
from ckgrow.growth.axis import Growing, GrownAxis
from ckgrow.growth.fresh import fresh_columns
from ckgrow.growth.prognosis import of_zero_units
from ckgrow.header import TensorSpec
from ckgrow.maps import ZERO, ChannelMap, fresh
from ckgrow.methods.method import Insertion, LayerMethod, Preserves, WidenMethod
from ckgrow.ops import rule
from ckgrow.random import Draw, Stream
from ckgrow.recipes import (
    EXACT_DTYPES,
    Filled,
    Loud,
    Mixed,
    Mixing,
    Placed,
    Recipe,
    UnitKernel,
    Unmixed,
)

if TYPE_CHECKING:
    from ckgrow.spec import DeepenStep, WidenStep

P_ACTIVATION = "prelu"


class NetMorphWider(WidenMethod):
    """New units with zero on one side."""

    name = "netmorph"
    options = frozenset({"fill", "zero", "calibrate"})

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
            if not (
                rule(node.op).keeps_zero(node, graph.constants)
                or _gates(node, group, graph, grouping)
            ):
                raise SpecError(
                    f"{step.where}: netmorph with zero: in behind {group.name}: {node.name} is "
                    f"{node.op}, which makes something else of zero; use zero: out"
                )
        return of_zero_units(grouping, graph, group, "use zero: out")

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

    def kernels(self, source: Recipe, axis: GrownAxis, at: Growing) -> Recipe:
        """Random ones for new units, which are zero already where those are read."""
        parts = (replace(part, map=part.map.with_zeros_as_fresh()) for part in axis.parts)
        return self.rows(source, GrownAxis(tuple(parts)), at)


def _gates(node: Node, group: Group, graph: Graph, grouping: Grouping) -> bool:
    """Whether what a node makes of zero only multiplies the zero itself, as in x sigmoid(x)."""
    readers = graph.consumers().get(node.output, [])
    return bool(readers) and all(
        reader.op == "Mul"
        and any(name in node.inputs and grouping.holds(name, group) for name in reader.inputs)
        for reader in readers
    )


class NetMorphDeeper(LayerMethod):
    """One linear layer factored into two dense ones."""

    name = "netmorph"
    options = frozenset({"activation"})

    def place(self, draft: Draft, layer: str, where: str) -> Place:
        """Right behind the layer, in front of its BatchNorm and activation."""
        return bare_place(draft, layer, where)

    def modules(self, step: DeepenStep) -> tuple[str, ...]:
        """The P-activation."""
        return (P_ACTIVATION,) if step.activation == "p-activation" else ()

    def insert(
        self, place: Place, names: Mapping[str, str], draft: Draft, draw: Draw, step: DeepenStep
    ) -> Insertion:
        """A P-activation if asked for, and M; the layer itself becomes W'."""
        layer = place.layer
        groups = layer.get("group", 1)
        _check_factors(draft, place, groups, step.where)
        weight = draft.recipes[layer.inputs[1]]
        new = names[layer.name]
        mixing = Mixing.of(weight.spec, rows_of(layer), groups, draw.stream("factor", new))
        recipes: dict[str, Recipe] = {
            layer.inputs[1]: Unmixed(weight, rows_of(layer), mixing),
        }
        nodes: list[Node] = []
        value = place.value
        if step.activation == "p-activation":
            slope = f"{names[P_ACTIVATION]}.weight"
            recipes[slope] = Filled(TensorSpec(weight.spec.dtype, (1,)), 1.0)
            nodes.append(Node("PRelu", names[P_ACTIVATION], (value, slope), (names[P_ACTIVATION],)))
            value = nodes[-1].output
        spatial = (1,) * (len(weight.spec.shape) - 2)
        shape = (place.channels, mixing.width, *spatial)
        keys = [copied_key(key, layer.name, new) for key in layer.inputs[1:] if key]
        recipes[keys[0]] = Mixed(TensorSpec(weight.spec.dtype, shape), mixing)
        if layer.input(2):
            bias = draft.recipes[layer.inputs[2]]
            recipes[layer.inputs[2]] = Unmixed(bias, len(bias.spec.shape) - 1, mixing)
            recipes[keys[1]] = Filled(TensorSpec(bias.spec.dtype, (place.channels,)), 0.0)
        nodes.append(Node(layer.op, new, (value, *keys), (new,), same_size(layer, spatial, groups)))
        dtypes = {weight.spec.dtype} | {
            draft.recipes[key].spec.dtype for key in layer.inputs[2:3] if key
        }
        exact = dtypes <= EXACT_DTYPES
        if not exact:
            neutral: dict[str, Recipe] = {keys[0]: UnitKernel(recipes[keys[0]].spec)}
            neutral |= {key: draft.recipes[key] for key in layer.inputs[1:3] if key}
            recipes |= {key: Loud(recipes[key], each) for key, each in neutral.items()}
        units = ChannelMap(0, fresh(np.arange(place.channels)))
        return Insertion(
            tuple(nodes),
            recipes,
            "rounded" if exact else "approximate",
            {new: max(map(mixing.defect, dtypes))} if exact else {},
            _depth_warnings(layer, new, step),
            certificate="product",
            origins={layer.name: Origin("", units, "factor")},
        )


def _check_factors(draft: Draft, place: Place, groups: int, where: str) -> None:
    """SpecError for a layer that has no two dense factors."""
    layer = place.layer
    what = f"{where}: netmorph behind {layer.name}"
    weight = draft.recipes[layer.inputs[1]].spec
    if groups > 1 and (weight.shape[1] == 1 or place.channels == groups):
        raise SpecError(
            f"{what}: its {groups} groups make every channel from a single one or by itself, and "
            "the dense factor would have to mix channels of different groups; deepen the "
            "pointwise convolution beside it, or use r2deeper"
        )
    for key in layer.inputs[1:3]:
        if not key:
            continue
        if not draft.recipes[key].spec.is_float:
            raise SpecError(
                f"{what}: {key} is {draft.recipes[key].spec.dtype}, which cannot be divided by a "
                "dense factor; convert it to a floating-point dtype, or use r2deeper"
            )
        readers = [node.name for node in draft.graph.nodes if key in node.inputs]
        if len(readers) > 1:
            raise SpecError(
                f"{what}: {key} is read by {' and '.join(readers)}; a factor can be taken out of "
                "a weight that one layer reads alone; use r2deeper"
            )
    if layer.input(2) and draft.recipes[layer.inputs[2]].spec.size != place.channels:
        raise SpecError(
            f"{what}: it has one bias for all outputs, which no dense factor makes; use r2deeper"
        )


def _depth_warnings(layer: Node, new: str, step: DeepenStep) -> tuple[str, ...]:
    """What the user should know."""
    kept = (
        f"{layer.name}: its weights are factored; the teacher's own are not kept in the student, "
        f"only their product with {new}"
    )
    if step.activation == "p-activation":
        return (kept,)
    linear = (
        f"{new}: two linear layers without an activation between them compute no more than one; "
        "activation: p-activation lets one grow there"
    )
    return (kept, linear)


METHODS = (NetMorphWider(), NetMorphDeeper())
