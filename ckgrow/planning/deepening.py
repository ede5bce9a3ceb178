"""Inserts layers behind layers and blocks into stages: names, splices, keeps track of origins."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from ckgrow.architecture import Stage
from ckgrow.drafts.blocks import model_block
from ckgrow.drafts.copying import spare_tensors
from ckgrow.drafts.draft import Draft, Origin
from ckgrow.drafts.places import Place, place_behind
from ckgrow.drafts.renaming import (
    Shift,
    functional_name,
    is_grown_from,
    new_paths,
    numbered,
    renamed,
    split_number,
)
from ckgrow.drafts.residual import residual_block
from ckgrow.drafts.splicing import inserted
from ckgrow.errors import SpecError
from ckgrow.methods.method import BlockMethod, Filling, Insertion, LayerMethod, weakest
from ckgrow.naming import free_name
from ckgrow.planning.extension import Extended, new_units, with_block
from ckgrow.random import Draw
from ckgrow.recipes import Filled, Recipe
from ckgrow.spec import DeepenStep


def deepen_layer(
    draft: Draft, layer: str, method: LayerMethod, draw: Draw, step: DeepenStep
) -> Extended:
    """``step.layers`` more layers behind ``layer``, with BatchNorm and activation like its own."""
    added: list[str] = []
    shifts: list[Shift] = []
    made: list[Insertion] = []
    for number in range(step.layers or 1):
        last = added[-1] if added else _last_grown(draft, layer, step.where)
        place = method.place(draft, last, step.where)
        names, made_room = _names_behind(draft, place, method.modules(step))
        for shift in made_room:
            draft = renamed(draft, shift)
        if made_room:
            place = method.place(draft, place.layer.name, step.where)
        insertion = method.insert(place, names, draft, draw.part(number), step)
        new = names[place.layer.name]
        draft = inserted(
            draft,
            place.value,
            insertion.nodes,
            {**insertion.recipes, **_spare_tensors(draft, place, names)},
            {new: _origin(draft, place, insertion), **insertion.origins},
            insertion.defects,
        )
        added.append(new)
        shifts.extend(made_room)
        made.append(insertion)
    return Extended(
        draft,
        weakest(each.preserves for each in made),
        tuple(text for each in made for text in each.warnings),
        tuple(added),
        tuple(shifts),
        sum(sum(each.defects.values()) for each in made),
    )


def deepen_layer_by_block(
    draft: Draft, layer: str, method: BlockMethod, draw: Draw, step: DeepenStep
) -> Extended:
    """One residual block of ``step.layers`` layers (2 if not given) behind ``layer``."""
    layers = step.layers or max(2, method.least_layers)
    if layers < method.least_layers:
        raise SpecError(
            f"{step.where}: {method.name} inserts a residual block of {method.least_layers} "
            f"layers at least, the last two of which cancel; say 'layers: {method.least_layers}' "
            "or more, or use net2deeper for a single layer"
        )
    place = _behind_blocks(draft, place_behind(draft, layer, step.where))
    path, shifts = _path_behind(draft, place)
    for shift in shifts:
        draft = renamed(draft, shift)
    place = _behind_blocks(draft, place_behind(draft, place.layer.name, step.where))
    block = residual_block(draft, place, path, layers, method.multiple, step.where)
    filled = method.fill(block, draft, draw, step)
    warnings = filled.warnings
    if not place.activation:
        warnings += (
            f"{path}: no activation stands behind {place.layer.name}, so none stands between the "
            "new layers: the block can learn no more than one linear layer",
        )
    draft = with_block(draft, block, filled, place.value)
    return Extended(draft, filled.preserves, warnings, (path,), shifts)


def deepen_stage(
    draft: Draft, stage: Stage, method: BlockMethod, draw: Draw, step: DeepenStep
) -> Extended:
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
    made: list[Filling] = []
    for number in range(step.blocks or 1):
        behind = after - 1 + number
        place = split_number(paths[behind])
        if place is None:
            raise SpecError(f"{step.where}: the blocks of {stage.name} are not numbered")
        container, position = place
        shift = Shift(container, position + 1, 1)
        draft = renamed(draft, shift)
        paths = [*paths[: behind + 1], *map(shift, paths[behind + 1 :])]
        old = [shift(path) for path in old]
        new = numbered(container, position + 1)
        block = model_block(draft, tuple(old), paths[behind], new, step.where)
        made.append(method.fill(block, draft, draw.part(number), step))
        draft = with_block(draft, block, made[-1], block.input)
        paths.insert(behind + 1, new)
        added.append(new)
        shifts.append(shift)
    preserves = weakest(each.preserves for each in made)
    warnings = tuple(text for each in made for text in each.warnings)
    return Extended(draft, preserves, warnings, tuple(added), tuple(shifts))


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


def _behind_blocks(draft: Draft, place: Place) -> Place:
    """The place behind the residual blocks that stand beside its layer already."""
    sums = (node for node in draft.graph.nodes if node.op == "Add" and node.name.endswith("/add"))
    for node in sums:  # in the order in which they compute
        path = node.name.removesuffix("/add")
        if node.inputs[0] == place.value and is_grown_from(path, place.layer.name):
            place = replace(place, value=node.output)
    return place


def _path_behind(draft: Draft, place: Place) -> tuple[str, tuple[Shift, ...]]:
    """The path of a block behind ``place``, and the shifts that free it.

    The block is the next module where all that stands before it are modules of one numbered
    container. Elsewhere code of the network's own may stand between, and it is named beside
    the layer.
    """
    before = [place.layer, place.batch_norm, *place.activation[-1:]]
    places = [split_number(node.name) for node in before if node is not None]
    numbers = [found[1] for found in places if found is not None]
    containers = {found[0] if found is not None else None for found in places}
    (container, *others) = containers
    if container is None or others:
        return free_name(place.layer.name, draft.taken), ()
    number = max(numbers) + 1
    return numbered(container, number), (Shift(container, number, 1),)


def _origin(draft: Draft, place: Place, inserted: Insertion) -> Origin:
    """That of the layer before an identity; units of its own for anything else."""
    if not inserted.certificate:
        return Origin("", new_units(place.channels * place.pieces))
    origin = draft.origins[place.layer.name]
    passing = inserted.certificate == "identity" and origin.certificate != "zero"
    certificate = "identity" if passing else origin.certificate or inserted.certificate
    return Origin(origin.of, origin.map, certificate)


def _names_behind(
    draft: Draft, place: Place, modules: tuple[str, ...]
) -> tuple[dict[str, str], tuple[Shift, ...]]:
    """Names of the new nodes by those they are modelled on, and the shifts that free them.

    ``modules`` have no model, and are named by what they are.
    """
    followers = [node for node in (place.batch_norm, *place.activation) if node is not None]
    models = [place.layer.name, *(node.name for node in followers if "/" not in node.name)]
    names, shifts = new_paths(models, draft.taken, modules)
    for node in followers:
        if node.name not in names:
            names[node.name] = functional_name(node, names)
    return names, shifts


def _spare_tensors(draft: Draft, place: Place, names: Mapping[str, str]) -> dict[str, Recipe]:
    """Counters of batches and the like, which the new layer and its BatchNorm have as well."""
    models = filter(None, (place.layer, place.batch_norm))
    spare = (spare_tensors(draft, model.name, names[model.name]) for model in models)
    return {new: Filled(draft.recipes[key].spec, 0) for each in spare for new, key in each.items()}
