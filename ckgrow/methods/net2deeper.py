"""Net2DeeperNet (Chen, Goodfellow, Shlens: Net2Net, ICLR 2016, section 2.4).

Behind a layer h = act(W x) a new layer act(U h) is inserted with U the identity:

    h' = act(I h) = act(act(W x)) = act(W x) = h

which needs an idempotent activation: act(act(x)) = act(x), as ReLU's. For a convolution U is the
kernel that is one at its centre and zero elsewhere. Maxout is not idempotent, but its k pieces may
all be the identity: U has every row of the identity k times (the paper's replicated columns), and

    h'_i = max(h_i, ..., h_i) = h_i

A BatchNorm in the new layer must undo itself
in eval mode; its statistics are free there, so they are chosen such that

    gamma / sqrt(var + eps) = 1,   beta = mean

holds as nearly as the stored format allows (``ckgrow.recipes.undoing``). In train mode, where batch
statistics take over, such a BatchNorm normalises and the function changes, unless mean and var are
those of the activations: ``calibrate`` measures them (``ckgrow.drafts.calibrating``), and without
it they are 0 and near 1.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from ckgrow.drafts.blocks import rows_of
from ckgrow.drafts.draft import Draft
from ckgrow.drafts.places import Place
from ckgrow.drafts.renaming import copied_key
from ckgrow.errors import SpecError
from ckgrow.graph import Node
from ckgrow.header import TensorSpec
from ckgrow.maps import ChannelMap
from ckgrow.methods.method import Insertion, LayerMethod, Preserves
from ckgrow.ops.batch_normalization import EPSILON
from ckgrow.random import Draw
from ckgrow.recipes import (
    DEFECTS,
    ROLES,
    Filled,
    Placed,
    Recipe,
    Undoing,
    UnitKernel,
    identity_statistics,
)
from ckgrow.spec import DeepenStep


class Net2Deeper(LayerMethod):
    """An identity layer with the same BatchNorm and activation."""

    name = "net2deeper"
    options = frozenset({"calibrate"})
    rests_on = ("activation",)

    def insert(
        self, place: Place, names: Mapping[str, str], draft: Draft, draw: Draw, step: DeepenStep
    ) -> Insertion:
        """The layer, its BatchNorm and its activation once more."""
        if not place.repeatable:
            raise SpecError(
                f"{step.where}: net2deeper behind {place.layer.name}: {place.activation_name} is "
                "not idempotent, so applying it twice changes the function; "
                "use netmorph with a p-activation, or r2deeper"
            )
        recipes = self._layer_tensors(place, names, draft, step)
        layer = _layer(place, names, recipes)
        nodes = [layer]
        preserves: Preserves = "exact"
        defect = 0.0
        warnings: tuple[str, ...] = ()
        if place.batch_norm is not None:
            model = place.batch_norm
            outputs = place.channels * place.pieces
            spec = TensorSpec(draft.recipes[model.inputs[1]].spec.dtype, (outputs,))
            epsilon = model.get("epsilon", EPSILON)
            keys = [copied_key(key, model.name, names) for key in model.inputs[1:5]]
            recipes |= {
                key: Undoing(spec, role, epsilon) for key, role in zip(keys, ROLES, strict=True)
            }
            nodes.append(_copied(model, names, (nodes[-1].output, *keys)))
            preserves, defect = _promise(spec.dtype, epsilon, step)
            warnings += (_about_training(layer.name, step),)
        for model in place.activation:
            nodes.append(_copied(model, names, (nodes[-1].output, *model.inputs[1:])))
        if place.pieces > 1:
            warnings += (_about_pieces(layer.name),)
        return Insertion(tuple(nodes), recipes, preserves, defect, warnings)

    def _layer_tensors(
        self, place: Place, names: Mapping[str, str], draft: Draft, step: DeepenStep
    ) -> dict[str, Recipe]:
        model = place.layer
        weight = draft.recipes[model.inputs[1]].spec
        if not weight.is_float:
            raise SpecError(
                f"{step.where}: {model.name} is {weight.dtype}; no layer fits behind it"
            )
        kernel = weight.shape[2:]
        if any(size % 2 == 0 for size in kernel):
            raise SpecError(
                f"{step.where}: net2deeper behind {model.name}: a kernel of {list(kernel)} has no "
                "centre; the identity needs odd sizes"
            )
        columns = place.channels // model.get("group", 1)
        unit: Recipe = UnitKernel(TensorSpec(weight.dtype, (place.channels, columns, *kernel)))
        outputs = place.channels * place.pieces
        if place.pieces > 1:
            replicated = ChannelMap(place.channels, np.arange(outputs) // place.pieces)
            unit = Placed(unit, rows_of(model), (replicated,))
        recipes = {copied_key(model.inputs[1], model.name, names): unit}
        if model.input(2):
            spec = TensorSpec(draft.recipes[model.inputs[2]].spec.dtype, (outputs,))
            recipes[copied_key(model.inputs[2], model.name, names)] = Filled(spec, 0.0)
        return recipes


def _promise(dtype: str, epsilon: float, step: DeepenStep) -> tuple[Preserves, float]:
    """What is kept with such a BatchNorm, and what its stored values are off by."""
    if step.calibrate is None:
        return "eval", identity_statistics(dtype, epsilon)[2]
    return ("eval", DEFECTS[dtype]) if dtype in DEFECTS else ("approximate", 0.0)


def _about_training(layer: str, step: DeepenStep) -> str:
    if step.calibrate is None:
        return (
            f"{layer}: its BatchNorm is the identity in eval mode only; in train mode batch "
            "statistics take over, unless it is given those of your data (calibrate: inputs.npz)"
        )
    return (
        f"{layer}: its BatchNorm is the identity in eval mode, and in train mode in expectation, "
        f"on inputs like those in {step.calibrate}"
    )


def _about_pieces(layer: str) -> str:
    return (
        f"{layer}: the pieces of each maxout unit are equal at first; a maximum that passes its "
        "gradient to one of them (torch.max) lets them part, one that shares it (torch.amax) "
        "keeps them locked together"
    )


def _layer(place: Place, names: Mapping[str, str], recipes: Mapping[str, Recipe]) -> Node:
    """The model's node from the place's channels to themselves, stride 1, same size."""
    model = place.layer
    keys = tuple(recipes)
    made = _copied(model, names, (place.value, *keys))
    if model.op != "Conv":
        # both layouts of a square identity are the same matrix
        return replace(
            made, attributes={k: v for k, v in model.attributes.items() if k == "transB"}
        )
    kernel = next(iter(recipes.values())).spec.shape[2:]
    sides = tuple(size // 2 for size in kernel)
    ones = (1,) * len(kernel)
    changed = {"strides": ones, "dilations": ones, "pads": (*sides, *sides)}
    if "kernel_shape" in model.attributes:
        changed["kernel_shape"] = tuple(kernel)
    return made.with_attributes(**changed)


def _copied(model: Node, names: Mapping[str, str], inputs: tuple[str, ...]) -> Node:
    name = names[model.name]
    return replace(model, name=name, inputs=inputs, outputs=(name,))


METHODS = (Net2Deeper(),)
