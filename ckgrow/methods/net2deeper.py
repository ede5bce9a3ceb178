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

import numpy as np

from ckgrow.drafts.blocks import rows_of
from ckgrow.drafts.copying import Copying, same_size
from ckgrow.drafts.draft import Draft
from ckgrow.drafts.places import Place
from ckgrow.errors import SpecError
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
        kernel = _kernel(place, draft, step)
        model, outputs = place.layer, place.channels * place.pieces
        shape = [place.channels // model.get("group", 1)] * 2 + list(kernel)
        shape[rows_of(model)] = outputs
        copying = Copying(draft, place)
        attributes = same_size(model, kernel, model.get("group", 1))
        layer = copying.layer(names[model.name], place.value, tuple(shape), attributes)
        for follower in filter(None, (place.batch_norm, *place.activation)):
            copying.follower(follower, names[follower.name], outputs)
        weight, *bias = copying.nodes[0].inputs[1:]
        recipes = {weight: _identity(copying.specs[weight], place)}
        recipes |= {key: Filled(copying.specs[key], 0.0) for key in bias}
        preserves: Preserves = "exact"
        defects: dict[str, float] = {}
        warnings: tuple[str, ...] = ()
        if place.batch_norm is not None:
            keys = copying.nodes[1].inputs[1:5]
            spec, epsilon = copying.specs[keys[0]], place.batch_norm.get("epsilon", EPSILON)
            recipes |= {
                key: Undoing(spec, role, epsilon) for key, role in zip(keys, ROLES, strict=True)
            }
            preserves, defects[copying.nodes[1].name] = _promise(spec.dtype, epsilon, step)
            warnings += (_about_training(layer, step),)
        if place.pieces > 1:
            warnings += (_about_pieces(layer),)
        return Insertion(tuple(copying.nodes), recipes, preserves, defects, warnings)


def _kernel(place: Place, draft: Draft, step: DeepenStep) -> tuple[int, ...]:
    """The sizes of the place's kernel; SpecError where it can be no identity."""
    model = place.layer
    weight = draft.recipes[model.inputs[1]].spec
    if not weight.is_float:
        raise SpecError(
            f"{step.where}: {model.name} is {weight.dtype}; no layer fits behind it; convert it to "
            "a floating-point dtype first"
        )
    kernel = weight.shape[2:]
    if any(size % 2 == 0 for size in kernel):
        raise SpecError(
            f"{step.where}: net2deeper behind {model.name}: a kernel of {list(kernel)} has no "
            "centre; the identity needs odd sizes"
        )
    return kernel


def _identity(spec: TensorSpec, place: Place) -> Recipe:
    """The identity, with each of its rows once for every piece of a maxout."""
    if place.pieces == 1:
        return UnitKernel(spec)
    rows = rows_of(place.layer)
    shape = list(spec.shape)
    shape[rows] = place.channels
    pieces = np.arange(place.channels * place.pieces) // place.pieces
    unit = UnitKernel(TensorSpec(spec.dtype, tuple(shape)))
    return Placed(unit, rows, (ChannelMap(place.channels, pieces),))


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


METHODS = (Net2Deeper(),)
