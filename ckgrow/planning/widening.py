"""Widens groups: rewrites every tensor that follows a grown axis, whatever the method."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np

from ckgrow.axes import Axis, Dim
from ckgrow.coupling import Coupled, Use
from ckgrow.drafts.draft import Draft, Origin
from ckgrow.errors import CheckpointError, SpecError
from ckgrow.graph import Constant, Graph, Node
from ckgrow.groups import Group, Grouping
from ckgrow.growth.axis import Growing, GrownAxis, Part
from ckgrow.growth.placement import placed
from ckgrow.maps import ChannelMap
from ckgrow.methods.method import WidenMethod
from ckgrow.names import shown
from ckgrow.ops import Site, rule
from ckgrow.random import Draw, Stream, even_choice
from ckgrow.recipes import Recipe
from ckgrow.spec import WidenStep


def widen(
    draft: Draft, targets: Mapping[str, int], method: WidenMethod, draw: Draw, step: WidenStep
) -> Draft:
    """The draft with every group of ``targets`` grown to its new width.

    Raises CheckpointError for a tensor of a dtype in which nothing grows.
    """
    grouping = draft.grouping
    widened = Widened(grouping.coupled, _atom_maps(grouping, targets, method, draw, step))
    nodes = {node.name: node for node in draft.graph.nodes}
    recipes = dict(draft.recipes)
    constants = dict(draft.graph.constants)
    done: set[str] = set()
    for use in grouping.coupled.uses:
        if use.tensor in done or not any(dim and widened.touches(dim.axis) for dim in use.dims):
            continue
        done.add(use.tensor)  # a tensor that several nodes read is rewritten once
        made = _Rewriting(widened, method, draw, step, nodes[use.node])
        if use.tensor in constants:
            constants[use.tensor] = made.constant(constants[use.tensor], use)
        else:
            recipes[use.tensor] = made.rewritten(recipes[use.tensor], use)
    graph = _resized(replace(draft.graph, constants=constants), widened)
    origins = dict(draft.origins)
    for layer in grouping.layers.values():
        if widened.touches(layer.axis):
            origin = origins[layer.name]
            grown = widened.axis(layer.axis).map
            origins[layer.name] = Origin(origin.of, origin.map.then(grown), origin.certificate)
    return draft.with_changes(graph=graph, recipes=recipes, origins=origins)


@dataclass(frozen=True)
class Widened:
    """Axes before and after; what op rules and methods ask."""

    coupled: Coupled
    maps: Mapping[int, Part]

    def touches(self, axis: Axis) -> bool:
        """Whether any channel of the axis belongs to a grown group."""
        return any(segment.atom in self.maps for segment in axis)

    def axis(self, axis: Axis) -> GrownAxis:
        """The axis with a map for each of its segments."""
        return GrownAxis(tuple(self._part(segment.atom, segment.inner) for segment in axis))

    @property
    def by_groups(self) -> frozenset[str]:
        """Grouped convolutions that grow by whole groups."""
        return self.coupled.by_groups

    def value_axis(self, value: str, dim: int) -> Axis | None:
        """The axis of a dimension of a value."""
        axes = self.coupled.values.get(value, ())
        return axes[dim] if dim < len(axes) else None

    def length(self, axis: Axis) -> int:
        """The new length of an axis."""
        return sum(
            (len(self.maps[part.atom].map) if part.atom in self.maps else self._count(part.atom))
            * part.inner
            for part in axis
        )

    def head(self, axis: Axis, stop: int) -> int:
        """The new length of the first ``stop`` entries."""
        grown = position = 0
        for segment in axis:
            size = self._count(segment.atom) * segment.inner
            if position + size > stop:  # inside a segment, which such a cut keeps from growing
                return grown + stop - position
            grown += self.length((segment,))
            position += size
        return grown

    def runs(self, axis: Axis, count: int) -> tuple[GrownAxis, ...]:
        """The axis cut into ``count`` equal parts, each with its own maps."""
        run = self.coupled.length(axis) // count
        starts = [len(self._before(axis, number * run)) for number in range(count)]
        bounds = pairwise((*starts, len(axis)))  # a last segment may have had no channels
        return tuple(self.axis(axis[start:stop]) for start, stop in bounds)

    def _before(self, axis: Axis, stop: int) -> Axis:
        position = 0
        for number, segment in enumerate(axis):
            if position >= stop:
                return axis[:number]
            position += self._count(segment.atom) * segment.inner
        return axis

    def _count(self, atom: int) -> int:
        return self.coupled.counts[atom]

    def _part(self, atom: int, inner: int) -> Part:
        part = self.maps.get(atom)
        if part is None:
            return Part.unchanged(self._count(atom), inner)
        return replace(part, inner=inner)


def _atom_maps(
    grouping: Grouping,
    targets: Mapping[str, int],
    method: WidenMethod,
    draw: Draw,
    step: WidenStep,
) -> dict[int, Part]:
    maps: dict[int, Part] = {}
    for name, target in targets.items():
        group = grouping.groups[name]
        _check_width(group, target, method, step)
        for run, atom in enumerate(group.atoms):
            label = f"{name}/{run}"
            width = grouping.coupled.counts[atom]
            stream = draw.stream("map", label)
            grown = method.channel_map(width, group.in_run(target), stream, step)
            grown = placed(grown, step.placement or method.placement)
            models = _models(grown, draw.stream("model", label))
            maps[atom] = Part(label, 1, grown, models)
    return maps


def _check_width(group: Group, target: int, method: WidenMethod, step: WidenStep) -> None:
    """SpecError, with the nearest widths that work, where the method cannot make this one."""
    width, per_run = group.in_run(group.width), group.in_run(target)
    obstacle = method.obstacle(width, per_run)
    if not obstacle:
        return
    each = group.runs * group.unit
    near = [
        next((n * each for n in numbers if not method.obstacle(width, n)), None)
        for numbers in (range(per_run, width, -1), range(per_run, per_run + 2 * width + 2))
    ]
    nearest = " and ".join(str(number) for number in near if number is not None)
    parts = f" in {group.runs} equal parts" if group.runs > 1 else ""
    parts += f" in units of {group.unit}" if group.unit > 1 else ""
    raise SpecError(
        f"{step.where}: {method.name} {obstacle}; {group.name} has {group.width} channels{parts} "
        f"and cannot become {target}; the nearest that work are {nearest}"
    )


def _models(grown: ChannelMap, stream: Stream) -> np.ndarray:
    """For each student channel one of the teacher's: its own, or one chosen for what is new."""
    if not grown.width:
        return np.zeros(len(grown), np.int64)
    if not (grown.fresh_count or grown.has_zeros):
        return grown.sources
    every = grown.with_zeros_as_fresh()
    chosen = even_choice(grown.width, every.fresh_count, stream)
    units = every.fresh_units
    return np.where(units >= 0, chosen[units] if len(chosen) else 0, grown.sources)


@dataclass(frozen=True)
class _Rewriting:
    widened: Widened
    method: WidenMethod
    draw: Draw
    step: WidenStep
    node: Node

    def rewritten(self, recipe: Recipe, use: Use) -> Recipe:
        """Rows and per-channel entries first, then columns: a share is drawn per student row."""
        for wanted in (("rows", "channel"), ("columns",)):
            for dim, follows in enumerate(use.dims):
                if follows and follows.role in wanted and self.widened.touches(follows.axis):
                    recipe = self._along(recipe, dim, follows, use)
        return recipe

    def constant(self, constant: Constant, use: Use) -> Constant:
        """Like a tensor with one entry per channel; the coupling fixes what plays other roles."""
        array = constant.array()
        for dim, follows in enumerate(use.dims):
            if follows and self.widened.touches(follows.axis):
                axis = self.widened.axis(follows.axis)
                array = self.method.constant(array, axis, dim, self.node)
        return Constant.of(array, constant.dtype)

    def _along(self, recipe: Recipe, dim: int, follows: Dim, use: Use) -> Recipe:
        method, widened = self.method, self.widened
        at = Growing(use.tensor, dim, self.node, self.draw, self.step, self._rows(use))
        if not recipe.spec.is_float:
            raise CheckpointError(
                f"{shown(use.tensor)} is {recipe.spec.dtype}, in which nothing grows; leave its "
                "layers out of the spec, or convert it to float32, float16 or bfloat16"
            )
        if follows.role == "channel":
            axis = widened.axis(follows.axis)
            if rule(self.node.op).makes_channels and at.position == 2:
                return method.bias(recipe, axis, at)
            return method.channel(recipe, axis, at)
        if follows.role == "rows":
            return method.rows(recipe, widened.axis(follows.axis), at)
        return method.columns(recipe, widened.runs(follows.axis, follows.blocks), at)

    def _rows(self, use: Use) -> GrownAxis | None:
        """The axis of the rows of a weight, where they grow in this step too."""
        for follows in use.dims:
            if follows and follows.role == "rows" and self.widened.touches(follows.axis):
                return self.widened.axis(follows.axis)
        return None


def _resized(graph: Graph, widened: Widened) -> Graph:
    """Attributes and constants that hold sizes, as each op's rule says."""
    constants = dict(graph.constants)
    nodes: list[Node] = []
    for node in graph.nodes:
        site = Site.of(node, widened.coupled.shapes, graph.constants)
        resized, changed = rule(node.op).resize(site, widened)
        inputs = list(resized.inputs)
        for position, constant in changed.items():
            name = inputs[position] if position < len(inputs) and inputs[position] else ""
            if name and constants.get(name) == constant:
                continue
            inputs += [""] * (position + 1 - len(inputs))
            inputs[position] = (
                f"{node.name}/{position}" if not name or _shared(graph, name) else name
            )
            constants[inputs[position]] = constant
        nodes.append(replace(resized, inputs=tuple(inputs)))
    return replace(graph, nodes=tuple(nodes), constants=constants)


def _shared(graph: Graph, constant: str) -> bool:
    return sum(constant in node.inputs for node in graph.nodes) > 1
