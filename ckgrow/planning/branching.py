r"""Parallel paths and new branches that have no effect yet.

Subnet morphism (Wei, Wang, Rui, Chen: Network Morphism, ICML 2016, section 3.5 and figure 4) adds
a sequential subnet beside a part of a network. Added to what the part makes, the subnet must be
zero:

    v' = L(x) + M(act(K(x)))       netmorph    M = 0, any K
                                   r2deeper    K = [U; U], M = [V, -V], any U and V

The latter is R2R's zero initialisation, which its appendix F compares with Network Morphism.
Appended to a concatenation, the subnet is new channels, which the readers must ignore:

    W' [y; K(x)] = W y             netmorph    W' = [W, 0]
                                   r2wider     K = [U; U], W' = [W, V, -V]
"""

from __future__ import annotations

from ckgrow.drafts.appending import Appended, appended
from ckgrow.drafts.blocks import Block, rows_of
from ckgrow.drafts.draft import Draft
from ckgrow.drafts.filling import fresh_tensor, modelled_weight
from ckgrow.errors import SpecError
from ckgrow.header import TensorSpec
from ckgrow.maps import ChannelMap
from ckgrow.methods.method import BlockMethod, WidenMethod
from ckgrow.planning.extension import Extended, with_block
from ckgrow.planning.widening import widen
from ckgrow.random import Draw
from ckgrow.recipes import Placed, Recipe
from ckgrow.spec import BranchStep, DeepenStep, Fill, WidenStep


def add_path(
    draft: Draft, path: Block, method: BlockMethod, draw: Draw, step: BranchStep
) -> Extended:
    """The draft with a path added to the value that the first term of its sum is."""
    like = DeepenStep(deepen=(path.model,), fill=step.fill).standing_at(step.where)
    filled = method.fill(path, draft, draw, like)
    changed = with_block(draft, path, filled, path.nodes[-1].inputs[0])
    return Extended(changed, filled.preserves, filled.warnings, (path.path,))


def append_branch(
    draft: Draft, name: str, method: WidenMethod, draw: Draw, step: BranchStep
) -> Extended:
    """The draft with one more branch at the concatenation that ``name`` flows into.

    Raises SpecError where what reads the concatenation cannot take more channels.
    """
    new = appended(draft, name, step.where)
    grouping = new.draft.grouping
    (group_name,) = grouping.layers[new.layer.name].groups
    group = grouping.groups[group_name]
    if not group.growable:
        raise SpecError(
            f"{step.where}: no branch can be appended beside {name}: what reads it cannot take "
            f"more channels ({group.reason})"
        )
    width = (
        step.width or draft.recipes[new.place.layer.inputs[1]].spec.shape[rows_of(new.place.layer)]
    )
    # what the new layer itself starts from is drawn below, like its model
    fill: Fill = "zeros" if step.fill == "zeros" else "match-std"
    like = WidenStep(widen=(new.layer.name,), to=width, fill=fill).standing_at(step.where)
    warnings = method.warnings(like, new.draft.graph, grouping, group)
    grown = widen(new.draft, {group_name: width}, method, draw, like)
    recipes = {**grown.recipes, **_own_tensors(grown, new, draw, step)}
    changed = grown.with_changes(recipes=recipes)
    return Extended(changed, method.preserves(like), tuple(warnings), (new.path,))


def _own_tensors(grown: Draft, new: Appended, draw: Draw, step: BranchStep) -> dict[str, Recipe]:
    """The tensors of a new branch: drawn once for each new unit, like those of the model."""
    units = grown.origins[new.layer.name].map
    weight = new.layer.inputs[1]
    model = grown.recipes[new.models[weight]].spec.shape
    columns = 1 - rows_of(new.layer)
    copies = step.fill == "copy" and model[columns] == grown.recipes[weight].spec.shape[columns]
    made: dict[str, Recipe] = {}
    for key, source_key in new.models.items():
        source, dim = grown.recipes[source_key], new.channel_dim(key)
        shape = list(source.spec.shape if dim is None else grown.recipes[key].spec.shape)
        if dim is None:
            spec = TensorSpec(source.spec.dtype, tuple(shape))
            made[key] = fresh_tensor(key, spec, source, source_key, new.nodes, draw, "match-std")
            continue
        shape[dim] = units.fresh_count
        spec = TensorSpec(source.spec.dtype, tuple(shape))
        width = source.spec.shape[dim]
        if copies:
            made[key] = Placed(source, dim, (ChannelMap(width, units.fresh_units % width),))
        elif key == weight:
            stream = draw.stream("fresh", key)
            drawn = modelled_weight(spec, stream, source, source_key, step.fill, dim)
            drawn_once = ChannelMap(units.fresh_count, units.fresh_units)
            in_place = Placed(drawn, dim, (drawn_once,))
            made[key] = drawn if drawn_once.is_identity else in_place
        else:
            shape[dim] = len(units)
            whole = TensorSpec(source.spec.dtype, tuple(shape))
            made[key] = fresh_tensor(key, whole, source, source_key, new.nodes, draw, "match-std")
    return made
