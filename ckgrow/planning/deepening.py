"""Inserts layers behind layers and blocks into stages: names, splices, keeps track of origins."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from ckgrow.architecture import Stage
from ckgrow.drafts.blocks import model_block
from ckgrow.drafts.draft import Draft, Origin
from ckgrow.drafts.places import Place, place_behind
from ckgrow.drafts.renaming import (
    Shift,
    functional_name,
    is_grown_from,
    is_inside,
    new_paths,
    numbered,
    renamed,
    split_number,
)
from ckgrow.errors import SpecError
from ckgrow.graph import Graph, Node
from ckgrow.maps import ChannelMap
from ckgrow.methods.method import BlockMethod, LayerMethod, Preserves
from ckgrow.ops import rule
from ckgrow.random import Draw
from ckgrow.recipes import Filled, Recipe
from ckgrow.spec import DeepenStep


@dataclass(frozen=True)
class Deepened:
    """The draft after an insertion, what it preserves, and what the user should know.

    ``added`` are the new layers or blocks; ``shifts`` made room for them, in this order.
    """

    draft: Draft
    preserves: Preserves
    defect: float
    warnings: tuple[str, ...]
    added: tuple[str, ...]
    shifts: tuple[Shift, ...]

    def moved(self, name: str) -> str:
        """What a layer of the draft before is called now."""
        for shift in self.shifts:
            name = shift(name)
        return name


def deepen_layer(
    draft: Draft, layer: str, method: LayerMethod, draw: Draw, step: DeepenStep
) -> Deepened:
    """``step.layers`` more layers behind ``layer``, with BatchNorm and activation like its own."""
    added: list[str] = []
    shifts: list[Shift] = []
    warnings: list[str] = []
    preserves: Preserves = "exact"
    defect = 0.0
    for _ in range(step.layers or 1):
        last = added[-1] if added else _last_grown(draft, layer, step.where)
        place = place_behind(draft, last, step.where)
        names, made_room = _names_behind(draft, place)
        for shift in made_room:
            draft = renamed(draft, shift)
        place = place_behind(draft, place.layer.name, step.where)
        inserted = method.insert(place, names, draft, draw, step)
        recipes = {**draft.recipes, **inserted.recipes, **_spare_tensors(draft, place, names)}
        origin = draft.origins[place.layer.name]
        new = names[place.layer.name]
        same = Origin(origin.of, origin.map, origin.certificate or "identity")
        draft = draft.with_changes(
            graph=_spliced(draft.graph, place.value, inserted.nodes),
            recipes=recipes,
            origins={**draft.origins, new: same},
        )
        added.append(new)
        shifts.extend(made_room)
        warnings.extend(inserted.warnings)
        preserves = inserted.preserves
        defect += inserted.defect
    return Deepened(draft, preserves, defect, tuple(warnings), tuple(added), tuple(shifts))


def deepen_stage(
    draft: Draft, stage: Stage, method: BlockMethod, draw: Draw, step: DeepenStep
) -> Deepened:
    """New blocks in a stage, at its end or behind block ``step.after`` (counted from 1)."""
    count = len(stage.blocks)
    after = step.after if step.after is not None else count
    if not 1 <= after <= count:
        raise SpecError(
            f"{step.where}: {stage.name} has {count} blocks; 'after' must be 1 to {count}"
        )
    paths = list(stage.blocks)
    old = list(paths)
    added: list[str] = []
    shifts: list[Shift] = []
    warnings: list[str] = []
    preserves: Preserves = "exact"
    for behind in range(after - 1, after - 1 + (step.blocks or 1)):
        place = split_number(paths[behind])
        if place is None:
            raise SpecError(f"{step.where}: the blocks of {stage.name} are not numbered")
        container, number = place
        shift = Shift(container, number + 1, 1)
        draft = renamed(draft, shift)
        paths = [*paths[: behind + 1], *map(shift, paths[behind + 1 :])]
        old = [shift(path) for path in old]
        new = numbered(container, number + 1)
        block = model_block(draft, tuple(old), paths[behind], new, step.where)
        filled = method.fill(block, draft, draw, step)
        layers = [node for node in block.nodes if rule(node.op).makes_channels]
        draft = draft.with_changes(
            graph=_spliced(draft.graph, block.input, block.nodes),
            recipes={**draft.recipes, **filled.recipes},
            origins={
                **draft.origins,
                **{n.name: _fresh(block.specs[n.inputs[1]].shape[0]) for n in layers},
            },
        )
        paths.insert(behind + 1, new)
        added.append(new)
        shifts.append(shift)
        warnings.extend(filled.warnings)
        preserves = filled.preserves
    return Deepened(draft, preserves, 0.0, tuple(warnings), tuple(added), tuple(shifts))


def _last_grown(draft: Draft, layer: str, where: str) -> str:
    """``layer``, or the last of the layers that earlier steps inserted behind it.

    So that the numbers of inserted layers rise in the order in which they compute.
    """
    while True:
        value = place_behind(draft, layer, where).value
        readers = draft.graph.consumers().get(value, [])
        if len(readers) != 1 or not is_grown_from(readers[0].name, layer):
            return layer
        layer = readers[0].name


def _fresh(width: int) -> Origin:
    """The origin of a layer whose branch ends in zero: units that the teacher does not have."""
    return Origin("", ChannelMap(0, -2 - np.arange(width)), "zero")


def _names_behind(draft: Draft, place: Place) -> tuple[dict[str, str], tuple[Shift, ...]]:
    """Names of the new nodes by those they are modelled on, and the shifts that free them."""
    followers = [node for node in (place.batch_norm, *place.activation) if node is not None]
    models = [place.layer.name, *(node.name for node in followers if "/" not in node.name)]
    taken = {*draft.recipes, *(node.name for node in draft.graph.nodes)}
    names, shifts = new_paths(models, taken)
    for node in followers:
        if node.name not in names:
            names[node.name] = functional_name(node, names)
    return names, shifts


def _spare_tensors(draft: Draft, place: Place, names: Mapping[str, str]) -> dict[str, Recipe]:
    """Tensors that travel with a layer though no node reads them (counters of batches)."""
    read = set(draft.graph.parameters())
    made: dict[str, Recipe] = {}
    for model in (place.layer, place.batch_norm):
        if model is None:
            continue
        for key, recipe in draft.recipes.items():
            if key not in read and is_inside(key, model.name):
                made[names[model.name] + key[len(model.name) :]] = Filled(recipe.spec, 0)
    return made


def _spliced(graph: Graph, value: str, nodes: tuple[Node, ...]) -> Graph:
    """``nodes``, which read ``value``, stand between it and everything that read it."""
    last = nodes[-1]
    if value in graph.outputs:  # the interface keeps its name: the old value gets another
        inner = f"{value}/inner"
        while any(inner in node.outputs for node in graph.nodes):
            inner += "_"
        before = tuple(_making(node, value, inner) for node in graph.nodes)
        made = tuple(_reading(node, value, inner) for node in nodes)
        made = (*made[:-1], _making(made[-1], last.output, value))
        return replace(graph, nodes=_behind(before, inner, made)).check()
    after = tuple(_reading(node, value, last.output) for node in graph.nodes)
    return replace(graph, nodes=_behind(after, value, nodes)).check()


def _behind(nodes: tuple[Node, ...], value: str, new: tuple[Node, ...]) -> tuple[Node, ...]:
    position = next(index for index, node in enumerate(nodes) if value in node.outputs) + 1
    return (*nodes[:position], *new, *nodes[position:])


def _reading(node: Node, value: str, other: str) -> Node:
    return replace(node, inputs=tuple(other if name == value else name for name in node.inputs))


def _making(node: Node, value: str, other: str) -> Node:
    return replace(node, outputs=tuple(other if name == value else name for name in node.outputs))
