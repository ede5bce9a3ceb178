"""A new branch of a concatenation, with no channels yet.

It stands behind all other branches, with weights of shape (0, in, ...). ``couple`` then finds its
channels among those that every reader of the concatenation follows, and any reader that cannot says
so as for other layers. So they grow from none to as many as wanted like those of any layer.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from ckgrow.drafts.concatenations import Junction, junction, model_of, reading, weight_shape
from ckgrow.drafts.copying import Copying
from ckgrow.drafts.draft import Draft, Origin
from ckgrow.drafts.places import Place
from ckgrow.drafts.renaming import is_inside, moved
from ckgrow.graph import Node
from ckgrow.header import TensorSpec
from ckgrow.maps import ChannelMap
from ckgrow.naming import free_name
from ckgrow.ops import rule
from ckgrow.recipes import Filled


@dataclass(frozen=True)
class Appended:
    """A new branch of no channels.

    ``path`` is its module, ``layer`` its layer and ``nodes`` all of it; ``place`` is that of the
    layer it is modelled on. ``models`` has for each of its tensors the tensor it is modelled on,
    ``specs`` its dtype and its shape, 0 where it follows the branch's channels.
    """

    draft: Draft
    path: str
    layer: Node
    nodes: tuple[Node, ...]
    place: Place
    models: Mapping[str, str]
    specs: Mapping[str, TensorSpec]

    def channel_dim(self, key: str) -> int | None:
        """The dimension of a tensor that follows the branch's channels, None where none does."""
        shape = self.specs[key].shape
        return shape.index(0) if 0 in shape else None


def appended(draft: Draft, name: str, where: str) -> Appended:
    """The draft with a branch of no channels at the concatenation that ``name`` flows into."""
    found = junction(draft, name, where)
    place = model_of(draft, found, name, where)
    names, path = _names(draft, found, place)
    copying = _copied(draft, place, names, found.fork)
    nodes = tuple(copying.nodes)
    graph = draft.graph
    concat = replace(found.concat, inputs=(*found.concat.inputs, nodes[-1].output))
    position = graph.nodes.index(found.concat)
    inserted = (*graph.nodes[:position], *nodes, concat, *graph.nodes[position + 1 :])
    layer = nodes[0]
    empty = {key: Filled(spec, 0.0) for key, spec in copying.specs.items()}
    changed = draft.with_changes(
        graph=replace(graph, nodes=inserted).check(),
        recipes={**draft.recipes, **empty},
        origins={**draft.origins, layer.name: Origin("", ChannelMap.identity(0))},
    )
    return Appended(changed, path, layer, nodes, place, copying.models, copying.specs)


def _names(draft: Draft, found: Junction, place: Place) -> tuple[dict[str, str], str]:
    """A new name for each node of a place, and the path of the new branch.

    The branch is a module beside the largest one that holds the model and nothing outside of its
    branch; what belongs to none is named beside itself.
    """
    graph = draft.graph
    branch = next(each for each in found.branches if place.layer in each)
    ours = {node.name for node in branch}
    home = parent = place.layer.name
    while parent := parent.rpartition(".")[0]:
        if any(is_inside(node.name, parent) and node.name not in ours for node in graph.nodes):
            break
        home = parent
    path = free_name(home, draft.taken)
    names: dict[str, str] = {}
    for node in filter(None, (place.layer, place.batch_norm, *place.activation)):
        if is_inside(node.name, home):
            names[node.name] = moved(node.name, home, path)
        elif "/" in node.name:
            names[node.name] = f"{path}/{node.op.lower()}"
        else:
            names[node.name] = free_name(node.name, draft.taken)
    return names, path


def _copied(draft: Draft, place: Place, names: dict[str, str], fork: str) -> Copying:
    """The layer of a place, its BatchNorm and its activation, from ``fork`` on."""
    copying = Copying(draft, place)
    layer = place.layer
    channels = draft.shapes[fork][rule(layer.op).channel_dim]
    assert isinstance(channels, int)
    path = names[layer.name]
    attributes = reading(layer, fork).attributes
    copying.layer(path, fork, weight_shape(draft, layer, channels), attributes)
    copying.spare(layer, path)
    for model in filter(None, (place.batch_norm, *place.activation)):
        copying.follower(model, names[model.name], 0)
    if place.batch_norm is not None:
        copying.spare(place.batch_norm, names[place.batch_norm.name])
    return copying
