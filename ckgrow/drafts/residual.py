"""A residual block behind a layer, in a network that may have none of its own.

Behind the layer's own BatchNorm and activation, where x stands, the block computes

    y = x + L_n(act(BN(... act(BN(L_1(x))) ...)))

with layers L of the kind of the layer it stands behind (kernel, convolution groups, bias), and
that layer's BatchNorm and activation between them. Behind the last one there is neither: so the
sum keeps x wherever the branch is zero, whatever the activation is. The block is one module,
``y = x + branch(x)``, whose ``branch`` is a numbered container: ``<path>.branch.0`` and so on.

Behind a depthwise convolution layers are ungrouped: pairs of channels of one group would take
twice the channels there, and would tie every channel of the stream to the others.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ckgrow.drafts.blocks import Block, rows_of
from ckgrow.drafts.copying import Copying, same_size
from ckgrow.drafts.draft import Draft
from ckgrow.drafts.places import Place
from ckgrow.errors import SpecError
from ckgrow.graph import Attribute, Node

BRANCH = "branch"
"""The name of the container of the branch; adapters take it for no chain."""


def residual_block(
    draft: Draft, place: Place, path: str, layers: int, multiple: int, where: str
) -> Block:
    """A block at ``path`` with ``layers`` layers behind ``place``.

    Hidden channels are as many as the place's, rounded up to a ``multiple`` in every convolution
    group. Raises SpecError where no layer like the place's can be made.
    """
    _check(draft, place, where)
    groups = _groups(draft, place.layer)
    run = multiple * groups
    hidden = -(-place.channels // run) * run
    making = BranchMaker.of(draft, place, f"{path}.{BRANCH}", groups)
    value, width = place.value, place.channels
    for number in range(layers):
        last = number == layers - 1
        made = place.channels if last else hidden
        value = making.layer(value, width, made)
        if not last:
            value = making.batch_norm(value, made)
            value = making.activation(value, made)
        width = made
    return making.added_to(place.value, place.value, path)


def _check(draft: Draft, place: Place, where: str) -> None:
    layer = place.layer
    weight = draft.recipes[layer.inputs[1]].spec
    if not weight.is_float:
        raise SpecError(
            f"{where}: {layer.name} is {weight.dtype}; no layer fits behind it; convert it to a "
            "floating-point dtype first"
        )
    if any(size % 2 == 0 for size in weight.shape[2:]):
        raise SpecError(
            f"{where}: behind {layer.name}: a kernel of {list(weight.shape[2:])} has no centre, "
            "and layers with it would change the size of the map, which a sum does not allow; "
            "deepen a layer with an odd kernel"
        )
    as_wide = weight.shape[rows_of(layer)] == place.channels
    if place.activation and not (as_wide and place.channelwise):
        raise SpecError(
            f"{where}: behind {layer.name} stands {place.activation[0].op}, which is no function "
            "of single channels and cannot stand in a new branch; deepen another layer"
        )


@dataclass
class BranchMaker:
    """The modules of a branch so far, in a numbered container at ``path``."""

    path: str
    groups: int
    copying: Copying
    modules: int = 0

    @staticmethod
    def of(draft: Draft, place: Place, path: str, groups: int) -> BranchMaker:
        """An empty branch of layers like the place's, in so many convolution groups."""
        return BranchMaker(path, groups, Copying(draft, place))

    def layer(self, value: str, width: int, made: int) -> str:
        """A layer from ``width`` to ``made`` channels that keeps the size of the map."""
        model = self.copying.place.layer
        kernel = self.copying.draft.recipes[model.inputs[1]].spec.shape[2:]
        shape = [width // self.groups, width // self.groups, *kernel]
        shape[rows_of(model)] = made
        return self.weighted(value, tuple(shape), same_size(model, kernel, self.groups))

    def weighted(
        self, value: str, shape: tuple[int, ...], attributes: Mapping[str, Attribute]
    ) -> str:
        """A layer of the place's kind with a weight of ``shape``."""
        return self.copying.layer(self._module(), value, shape, attributes)

    def batch_norm(self, value: str, width: int) -> str:
        """The place's BatchNorm, if it has one, with what travels with it unread."""
        model = self.copying.place.batch_norm
        if model is None:
            return value
        path = self._module()
        made = self.copying.follower(model, path, width)
        self.copying.spare(model, path)
        return made

    def activation(self, value: str, width: int) -> str:
        """The place's activation: the last of its nodes is the module, others stand inside."""
        place = self.copying.place
        if not place.activation:
            return value
        path = self._module()
        self.copying.values[(place.batch_norm or place.layer).output] = value
        for model in place.activation[:-1]:
            self.copying.follower(model, f"{path}/{model.op.lower()}", width)
        return self.copying.follower(place.activation[-1], path, width)

    def rectifier(self, value: str) -> str:
        """A ReLU, which the place does not have."""
        path = self._module()
        self.copying.nodes.append(Node("Relu", path, (value,), (path,)))
        return path

    def added_to(self, term: str, source: str, path: str) -> Block:
        """The block at ``path`` that adds the branch, which reads ``source``, to ``term``."""
        copying = self.copying
        name = f"{path}/add"
        total = Node("Add", name, (term, copying.nodes[-1].output), (name,))
        return Block(
            path=path,
            model=copying.place.layer.name,
            input=source,
            output=name,
            nodes=(*copying.nodes, total),
            models=copying.models,
            specs=copying.specs,
            last=copying.nodes[-1],
        )

    def _module(self) -> str:
        """The path of the next module of the branch."""
        self.modules += 1
        return f"{self.path}.{self.modules - 1}"


def _groups(draft: Draft, layer: Node) -> int:
    """The convolution groups of new layers: the model's, unless each holds a single channel."""
    groups: int = layer.get("group", 1)
    return groups if draft.recipes[layer.inputs[1]].spec.shape[1] > 1 else 1
