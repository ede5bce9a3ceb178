"""The ends of a network, its graph's inputs and outputs: which of them can have more channels.

An end grows at the end of its channel axis: the teacher's channels stay where they are, so that
whoever feeds the network, or reads its logits, finds the old ones under their old numbers.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from ckgrow.axes import Axis
from ckgrow.coupling import Use
from ckgrow.drafts.draft import Draft
from ckgrow.graph import Graph, Node
from ckgrow.groups import Group
from ckgrow.growth.axis import Growing, GrownAxis
from ckgrow.maps import ChannelMap
from ckgrow.methods.method import Preserves, WidenMethod
from ckgrow.ops import rule
from ckgrow.planning.widening import widen
from ckgrow.random import Draw, Stream
from ckgrow.recipes import Placed, Recipe
from ckgrow.spec import Fill, WidenStep


@dataclass(frozen=True)
class End:
    """A graph input or output with its channel axis, which is dimension ``dim``."""

    name: str
    dim: int
    axis: Axis
    width: int


class NewChannels(WidenMethod):
    """Channels behind the others that nothing reads at first.

    Rows of new channels are fresh, columns that read them are zero: [W, 0] [x; x_new] = W x. A
    rescaling by constants (``transform_input``) passes them as they are.
    """

    name = "new channels"

    def preserves(self, step: WidenStep) -> Preserves:
        """Zeros are exact, and new rows touch no old one."""
        return "exact"

    def channel_map(self, width: int, target: int, stream: Stream, step: WidenStep) -> ChannelMap:
        """0 to n - 1, then a fresh unit each."""
        return ChannelMap.with_fresh(width, target - width)

    def constant(self, array: np.ndarray, axis: GrownAxis, dim: int, node: Node) -> np.ndarray:
        """One for factors, zero for summands."""
        made = super().constant(array, axis, dim, node)
        neutral = rule(node.op).neutral
        if neutral is not None:
            np.moveaxis(made, dim, 0)[axis.map.fresh_units >= 0] = neutral
        return made

    def columns(self, source: Recipe, runs: tuple[GrownAxis, ...], at: Growing) -> Recipe:
        """[W, 0]."""
        return Placed(source, at.dim, tuple(run.map for run in runs))


def input_ends(draft: Draft) -> tuple[End, ...]:
    """The graph inputs that have channels; ``draft`` lets them grow."""
    return tuple(
        _end(draft, name, dim)
        for name in draft.graph.inputs
        for dim, axis in enumerate(_axes(draft, name))
        if axis and not _is_space(draft, axis)
    )


def output_ends(draft: Draft) -> tuple[tuple[End, ...], Mapping[str, str]]:
    """The graph outputs that are classifications, and of the others why they are none.

    A classification is made by layers, and no further layer reads it. ``draft`` lets them grow.
    """
    made = {part.atom for layer in draft.grouping.layers.values() for part in layer.axis}
    found: list[End] = []
    others: dict[str, str] = {}
    for name in draft.graph.outputs:
        axes = enumerate(_axes(draft, name))
        dims = [dim for dim, axis in axes if axis and {part.atom for part in axis} & made]
        if len(dims) != 1:
            others[name] = "no layer makes its channels"
            continue
        end = _end(draft, name, dims[0])
        readers = [use.node for use in _columns(draft, end.axis)]
        if readers:
            others[name] = f"{readers[0]} reads it, so that it is no end of the network"
        else:
            found.append(end)
    return tuple(found), others


def obstacle(draft: Draft, end: End) -> str:
    """Why an end cannot have more channels behind those that it has, "" when it can."""
    if not end.axis:
        return "it has no channels"
    group = group_of(draft, end)
    if group is None:
        return "no layer reads its channels"
    if group.reason is not None:
        return group.reason
    grouped = [
        use for use in _columns(draft, end.axis) if any(d and d.blocks > 1 for d in use.dims)
    ]
    if grouped or group.runs > 1:
        where = grouped[0].node if grouped else group.layers[0]
        return (
            f"{where} is a grouped convolution, and each of its groups would need new channels "
            "between the old ones"
        )
    if len(end.axis) > 1:
        return "its channels are put together or taken apart, so it is not known which part grows"
    if end.axis[0].inner > 1:
        return f"it holds each channel {end.axis[0].inner} times"
    return ""


def group_of(draft: Draft, end: End) -> Group | None:
    """The group of the end's channels; None where no tensor follows them."""
    grouping = draft.grouping
    name = grouping.group_of_atom.get(end.axis[0].atom)
    return None if name is None else grouping.groups[name]


def grown_ends(
    draft: Draft, targets: Mapping[End, int], fill: Fill, draw: Draw, where: str
) -> Draft:
    """The draft with every end of ``targets`` as wide as that; none has an obstacle."""
    widths = {
        group.name: target * group.unit
        for end, target in targets.items()
        if (group := group_of(draft, end)) is not None
    }
    names = [end.name for end in targets]
    step = WidenStep(widen=tuple(names), by=1, fill=fill).standing_at(where)
    grown = widen(draft, widths, NewChannels(), draw, step)
    maps = {
        end.name: ChannelMap.with_fresh(end.width, target - end.width)
        for end, target in targets.items()
    }
    before = draft.interface
    composed = {
        name: before[name].then(later) if name in before else later for name, later in maps.items()
    }
    return grown.with_changes(
        graph=_with_inputs(grown.graph, targets),
        interface={**before, **composed},
        open_ends=frozenset(),
    )


def _with_inputs(graph: Graph, targets: Mapping[End, int]) -> Graph:
    inputs = dict(graph.inputs)
    for end, target in targets.items():
        if end.name in inputs:
            shape = inputs[end.name]
            inputs[end.name] = (*shape[: end.dim], target, *shape[end.dim + 1 :])
    return replace(graph, inputs=inputs)


def _axes(draft: Draft, value: str) -> tuple[Axis | None, ...]:
    return draft.grouping.coupled.values[value]


def _end(draft: Draft, name: str, dim: int) -> End:
    axis = _axes(draft, name)[dim] or ()
    return End(name, dim, axis, draft.grouping.coupled.length(axis))


def _columns(draft: Draft, axis: Axis) -> list[Use]:
    """The weights that sum over channels of ``axis``."""
    atoms = {part.atom for part in axis}
    return [
        use
        for use in draft.grouping.coupled.uses
        if any(
            follows and follows.role == "columns" and atoms & {part.atom for part in follows.axis}
            for follows in use.dims
        )
    ]


def _is_space(draft: Draft, axis: Axis) -> bool:
    """Whether a rule asked for the axis of a dimension that holds no channels."""
    fixed = draft.grouping.coupled.fixed
    return all("holds no channels" in fixed.get(part.atom, "") for part in axis)
