"""A new branch of a concatenation, with no channels yet.

It stands behind all other branches, with weights of shape (0, in, ...). ``couple`` then finds its
channels among those that every reader of the concatenation follows, and any reader that cannot says
so as for other layers. So they grow from none to as many as wanted like those of any layer.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from ckgrow.drafts.blocks import rows_of
from ckgrow.drafts.concatenations import Junction, junction, model_of, reading, weight_shape
from ckgrow.drafts.draft import Draft, Origin
from ckgrow.drafts.places import Place
from ckgrow.drafts.renaming import free_name, is_inside, moved
from ckgrow.graph import Node
from ckgrow.header import TensorSpec
from ckgrow.maps import ChannelMap
from ckgrow.ops import rule
from ckgrow.recipes import Filled, Recipe


@dataclass(frozen=True)
class Appended:
    """A new branch of no channels.

    ``path`` is its module, ``layer`` its layer and ``nodes`` all of it; ``place`` is that of the
    layer it is modelled on. ``models`` has for each of its tensors the tensor it is modelled on,
    ``dims`` the dimension that follows its channels, None where none does.
    """

    draft: Draft
    path: str
    layer: Node
    nodes: tuple[Node, ...]
    place: Place
    models: dict[str, str]
    dims: dict[str, int | None]


def appended(draft: Draft, name: str, where: str) -> Appended:
    """The draft with a branch of no channels at the concatenation that ``name`` flows into."""
    found = junction(draft, name, where)
    place = model_of(draft, found, name, where)
    names, path = _names(draft, found, place)
    making = _Copying(draft, place, names)
    nodes = making.nodes(found.fork)
    graph = draft.graph
    concat = replace(found.concat, inputs=(*found.concat.inputs, nodes[-1].output))
    position = graph.nodes.index(found.concat)
    inserted = (*graph.nodes[:position], *nodes, concat, *graph.nodes[position + 1 :])
    layer = nodes[0]
    changed = draft.with_changes(
        graph=replace(graph, nodes=inserted).check(),
        recipes={**draft.recipes, **making.recipes},
        origins={**draft.origins, layer.name: Origin("", ChannelMap.identity(0))},
    )
    return Appended(changed, path, layer, nodes, place, making.models, making.dims)


def _names(draft: Draft, found: Junction, place: Place) -> tuple[dict[str, str], str]:
    """A new name for each node of a place, and the path of the new branch.

    The branch is a module beside the largest one that holds the model and nothing outside of its
    branch; what belongs to none is named beside itself.
    """
    graph = draft.graph
    taken = [*draft.recipes]
    for node in graph.nodes:
        taken += (node.name, *node.outputs)
    branch = next(each for each in found.branches if place.layer in each)
    ours = {node.name for node in branch}
    home = parent = place.layer.name
    while parent := parent.rpartition(".")[0]:
        if any(is_inside(node.name, parent) and node.name not in ours for node in graph.nodes):
            break
        home = parent
    path = free_name(home, taken)
    names: dict[str, str] = {}
    for node in filter(None, (place.layer, place.batch_norm, *place.activation)):
        if is_inside(node.name, home):
            names[node.name] = moved(node.name, home, path)
        elif "/" in node.name:
            names[node.name] = f"{path}/{node.op.lower()}"
        else:
            names[node.name] = free_name(node.name, taken)
    return names, path


@dataclass
class _Copying:
    """Copies of the nodes of a place, with tensors for no channels."""

    draft: Draft
    place: Place
    names: dict[str, str]
    recipes: dict[str, Recipe] = field(default_factory=dict)
    models: dict[str, str] = field(default_factory=dict)
    dims: dict[str, int | None] = field(default_factory=dict)
    values: dict[str, str] = field(default_factory=dict)

    def nodes(self, fork: str) -> tuple[Node, ...]:
        """The layer, its BatchNorm and its activation, from ``fork`` on."""
        made = [self._layer(self.place.layer, fork)]
        for model in (self.place.batch_norm, *self.place.activation):
            if model is not None:
                inputs = tuple(self._input(model, key) for key in model.inputs)
                made.append(self._named(model, replace(model, inputs=inputs)))
        self._spare_tensors()
        return tuple(made)

    def _layer(self, model: Node, fork: str) -> Node:
        channels = self.draft.shapes[fork][rule(model.op).channel_dim]
        assert isinstance(channels, int)
        shape = weight_shape(self.draft, model, channels)
        tensors = [self._tensor(model, model.inputs[1], shape, rows_of(model))]
        if bias := model.input(2):
            tensors.append(self._tensor(model, bias, (0,), 0))
        return self._named(model, reading(model, fork, *tensors))

    def _input(self, model: Node, key: str) -> str:
        """What the copy of a follower reads: a value of the branch, or a tensor of its own."""
        if key not in self.draft.recipes:
            return self.values.get(key, key)
        shape = self.draft.recipes[key].spec.shape
        weight = self.draft.recipes[self.place.layer.inputs[1]].spec.shape
        width = weight[rows_of(self.place.layer)]
        dim = shape.index(width) if width in shape else None
        if model.op != "BatchNormalization" and width == 1:
            dim = None  # one slope for all channels
        sizes = tuple(0 if number == dim else size for number, size in enumerate(shape))
        return self._tensor(model, key, sizes, dim)

    def _named(self, model: Node, made: Node) -> Node:
        name = self.names[model.name]
        self.values[model.output] = name
        return replace(made, name=name, outputs=(name,))

    def _tensor(self, model: Node, key: str, shape: tuple[int, ...], dim: int | None) -> str:
        inside = is_inside(key, model.name)
        last = key[len(model.name) :] if inside else "." + key.rpartition(".")[2]
        name = self.names[model.name] + last
        self.recipes[name] = Filled(TensorSpec(self.draft.recipes[key].spec.dtype, shape), 0.0)
        self.models[name] = key
        self.dims[name] = dim
        return name

    def _spare_tensors(self) -> None:
        """Tensors that travel with a layer though no node reads them (counters of batches)."""
        read = set(self.draft.graph.parameters())
        for model in filter(None, (self.place.layer, self.place.batch_norm)):
            for key, recipe in self.draft.recipes.items():
                if key not in read and is_inside(key, model.name):
                    name = self.names[model.name] + key[len(model.name) :]
                    self.recipes[name] = Filled(recipe.spec, 0.0)
