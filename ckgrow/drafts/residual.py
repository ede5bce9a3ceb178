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
from dataclasses import dataclass, field, replace

from ckgrow.drafts.blocks import Block, rows_of
from ckgrow.drafts.draft import Draft
from ckgrow.drafts.endings import PER_CHANNEL
from ckgrow.drafts.places import Place
from ckgrow.drafts.renaming import is_inside
from ckgrow.errors import SpecError
from ckgrow.graph import Attribute, Node
from ckgrow.header import TensorSpec
from ckgrow.ops import rule

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
    making = BranchMaker(draft, place, f"{path}.{BRANCH}", groups)
    value, width = place.value, place.channels
    for number in range(layers):
        last = number == layers - 1
        made = place.channels if last else hidden
        value = making.layer(value, width, made)
        if not last:
            value = making.batch_norm(value, made)
            value = making.activation(value, made)
        width = made
    name = f"{path}/add"
    total = Node("Add", name, (place.value, value), (name,))
    return Block(
        path=path,
        model=place.layer.name,
        input=place.value,
        output=name,
        nodes=(*making.nodes, total),
        models=making.models,
        specs=making.specs,
        last=making.nodes[-1],
    )


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
    for node in place.activation:
        known = rule(node.op).elementwise or node.op in (*PER_CHANNEL, "Mul")
        if not known or weight.shape[rows_of(layer)] != place.channels:
            raise SpecError(
                f"{where}: behind {layer.name} stands {node.op}, which is no function of single "
                "channels and cannot stand in a new branch; deepen another layer"
            )


@dataclass
class BranchMaker:
    """The nodes of a branch so far, and for each of its tensors the model and the shape."""

    draft: Draft
    place: Place
    path: str
    groups: int
    nodes: list[Node] = field(default_factory=list)
    models: dict[str, str] = field(default_factory=dict)
    specs: dict[str, TensorSpec] = field(default_factory=dict)
    modules: int = 0

    def layer(self, value: str, width: int, made: int) -> str:
        """A layer from ``width`` to ``made`` channels that keeps the size of the map."""
        model = self.place.layer
        shape = [width // self.groups] * 2 + list(self._shape(model.inputs[1])[2:])
        shape[rows_of(model)] = made
        return self.weighted(value, tuple(shape), same_size(model, tuple(shape[2:]), self.groups))

    def weighted(
        self, value: str, shape: tuple[int, ...], attributes: Mapping[str, Attribute]
    ) -> str:
        """A layer of the place's kind with a weight of ``shape``."""
        model, path = self.place.layer, self.module()
        inputs = [value, self.tensor(model, path, model.inputs[1], shape)]
        if model.input(2):
            inputs.append(self.tensor(model, path, model.inputs[2], (shape[rows_of(model)],)))
        return self.node(Node(model.op, path, tuple(inputs), (path,), attributes))

    def batch_norm(self, value: str, width: int) -> str:
        """The place's BatchNorm, if it has one, with what travels with it unread."""
        model = self.place.batch_norm
        if model is None:
            return value
        path = self.module()
        keys = [self.tensor(model, path, key, (width,)) for key in model.inputs[1:5]]
        read = set(self.draft.graph.parameters())
        for key, recipe in self.draft.recipes.items():
            if key not in read and is_inside(key, model.name):
                self.tensor(model, path, key, recipe.spec.shape)
        return self.node(replace(model, name=path, inputs=(value, *keys), outputs=(path,)))

    def activation(self, value: str, width: int) -> str:
        """The place's activation: the last of its nodes is the module, others stand inside."""
        models = self.place.activation
        if not models:
            return value
        path = self.module()
        before = (self.place.batch_norm or self.place.layer).output
        known: dict[str, str] = {before: value}
        for model in models:
            name = path if model is models[-1] else f"{path}/{model.op.lower()}"
            inputs = tuple(self._input(model, path, key, width, known) for key in model.inputs)
            known[model.output] = name
            self.node(replace(model, name=name, inputs=inputs, outputs=(name,)))
        return path

    def _input(self, model: Node, path: str, key: str, width: int, known: Mapping[str, str]) -> str:
        """What the copy of an activation's node reads: values of the branch, tensors of its own."""
        if key in known or key not in self.draft.recipes:
            return known.get(key, key)
        channels = self.place.channels
        shape = tuple(width if size == channels > 1 else size for size in self._shape(key))
        return self.tensor(model, path, key, shape)

    def module(self) -> str:
        """The path of the next module of the branch."""
        self.modules += 1
        return f"{self.path}.{self.modules - 1}"

    def node(self, node: Node) -> str:
        """Puts a node behind the others; the value it makes."""
        self.nodes.append(node)
        return node.output

    def tensor(self, model: Node, path: str, key: str, shape: tuple[int, ...]) -> str:
        """A tensor at ``path`` like ``key`` of ``model``, with the same last part of its name."""
        last = key[len(model.name) :] if is_inside(key, model.name) else ""
        name = path + (last or "." + key.rpartition(".")[2])
        self.models[name] = key
        self.specs[name] = TensorSpec(self.draft.recipes[key].spec.dtype, shape)
        return name

    def _shape(self, key: str) -> tuple[int, ...]:
        return self.draft.recipes[key].spec.shape


def _groups(draft: Draft, layer: Node) -> int:
    """The convolution groups of new layers: the model's, unless each holds a single channel."""
    groups: int = layer.get("group", 1)
    return groups if draft.recipes[layer.inputs[1]].spec.shape[1] > 1 else 1


def same_size(model: Node, kernel: tuple[int, ...], groups: int) -> dict[str, Attribute]:
    """Attributes of a layer like ``model`` with stride 1 and padding that keeps the map's size."""
    if model.op != "Conv":
        return {"transB": 1} if model.get("transB", 0) else {}
    sides, ones = tuple(size // 2 for size in kernel), (1,) * len(kernel)
    return {
        "strides": ones,
        "dilations": ones,
        "pads": (*sides, *sides),
        "group": groups,
        "kernel_shape": kernel,
    }
