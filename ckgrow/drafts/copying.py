"""Copies of the nodes of a place, with tensors of their own.

New layers of every kind (behind a layer, in a residual block, beside a layer, as a branch of a
concatenation) are modelled on one that is there: its op, its BatchNorm and its activation once
more. A copied tensor's name has the same last part as its model's (``weight``).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from ckgrow.drafts.blocks import rows_of
from ckgrow.drafts.draft import Draft
from ckgrow.drafts.places import Place
from ckgrow.drafts.renaming import is_inside
from ckgrow.graph import Attribute, Node
from ckgrow.header import TensorSpec


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


def copied_key(key: str, model: str, path: str) -> str:
    """What the copy at ``path`` calls the tensor ``key`` of the layer ``model``."""
    inside = is_inside(key, model) and key != model
    return path + (key[len(model) :] if inside else "." + key.rpartition(".")[2])


def spare_tensors(draft: Draft, model: str, path: str) -> dict[str, str]:
    """Tensors that a copy at ``path`` has though no node reads them, and their models."""
    return {copied_key(key, model, path): key for key in draft.spare if is_inside(key, model)}


@dataclass
class Copying:
    """The copies so far, in the order in which they compute.

    ``models`` has for each tensor the one it is modelled on, ``specs`` its dtype and shape;
    ``values`` the value that stands for each of the model's.
    """

    draft: Draft
    place: Place
    nodes: list[Node] = field(default_factory=list)
    models: dict[str, str] = field(default_factory=dict)
    specs: dict[str, TensorSpec] = field(default_factory=dict)
    values: dict[str, str] = field(default_factory=dict)

    def layer(
        self, path: str, value: str, shape: tuple[int, ...], attributes: Mapping[str, Attribute]
    ) -> str:
        """The place's layer at ``path``, which reads ``value`` with a weight of ``shape``."""
        model = self.place.layer
        inputs = [value, self._tensor(model, path, model.inputs[1], shape)]
        if model.input(2):
            inputs.append(self._tensor(model, path, model.inputs[2], (shape[rows_of(model)],)))
        made = replace(model, inputs=tuple(inputs), attributes=attributes)
        return self._put(model, path, made)

    def follower(self, model: Node, path: str, width: int) -> str:
        """A node behind the place's layer once more, for ``width`` channels."""
        inputs = tuple(self._input(model, path, name, width) for name in model.inputs)
        return self._put(model, path, replace(model, inputs=inputs))

    def spare(self, model: Node, path: str) -> None:
        """What travels with a layer or a BatchNorm though no node reads it."""
        for name, key in spare_tensors(self.draft, model.name, path).items():
            self.models[name] = key
            self.specs[name] = self.draft.recipes[key].spec

    def _input(self, model: Node, path: str, name: str, width: int) -> str:
        """A value of the copies, a tensor of their own, or what both copy and model read."""
        if name in self.values or name not in self.draft.recipes:
            return self.values.get(name, name)
        layer = self.place.layer
        outputs = self.draft.recipes[layer.inputs[1]].spec.shape[rows_of(layer)]
        one_for_all = outputs == 1 and model.op != "BatchNormalization"  # a slope
        shape = self.draft.recipes[name].spec.shape
        sizes = (width if size == outputs and not one_for_all else size for size in shape)
        return self._tensor(model, path, name, tuple(sizes))

    def _tensor(self, model: Node, path: str, key: str, shape: tuple[int, ...]) -> str:
        name = copied_key(key, model.name, path)
        self.models[name] = key
        self.specs[name] = TensorSpec(self.draft.recipes[key].spec.dtype, shape)
        return name

    def _put(self, model: Node, path: str, made: Node) -> str:
        self.nodes.append(replace(made, name=path, outputs=(path,)))
        self.values[model.output] = path
        return path
