"""Fresh tensors: one vocabulary of initialisations for everything new."""

from __future__ import annotations

import math
from collections.abc import Iterable

from ckgrow.drafts.blocks import Block, rows_of
from ckgrow.drafts.draft import Draft
from ckgrow.graph import Node
from ckgrow.header import TensorSpec
from ckgrow.ops import rule
from ckgrow.random import Draw, Stream
from ckgrow.recipes import Drawn, Filled, Recipe, Statistic
from ckgrow.spec import Fill


def fresh_block(block: Block, draft: Draft, draw: Draw, fill: Fill) -> dict[str, Recipe]:
    """A recipe for every tensor of a new block, each by :func:`fresh_tensor`."""
    return {
        key: fresh_tensor(
            key,
            spec,
            draft.recipes[block.models[key]],
            block.models[key],
            block.nodes,
            draw,
            fill,
        )
        for key, spec in block.specs.items()
    }


def fresh_tensor(
    key: str,
    spec: TensorSpec,
    model: Recipe,
    model_key: str,
    nodes: Iterable[Node],
    draw: Draw,
    fill: Fill,
) -> Recipe:
    """A tensor for a new layer that is modelled on an old one.

    ``copy`` takes the model's values where shapes allow. Otherwise weights are drawn
    (:func:`modelled_weight`); BatchNorm starts with gamma at the mean of the model's, beta 0,
    mean 0 and var 1; biases and whatever no node reads are 0.
    """
    if fill == "copy" and model.spec == spec:
        return model
    for node in nodes:
        if key not in node.inputs:
            continue
        role = node.inputs.index(key)
        if rule(node.op).makes_channels and role == 1:
            stream = draw.stream("fresh", key)
            return modelled_weight(spec, stream, model, model_key, fill, rows_of(node))
        return fresh_entries(spec, node, role, model, model_key)
    return Filled(spec, 0.0)


def fresh_entries(spec: TensorSpec, node: Node, role: int, model: Recipe, model_key: str) -> Recipe:
    """What new entries of input ``role`` of a node start from, as the rule of its op says."""
    entry = rule(node.op).entries[role]
    return Filled(spec, Statistic("mean", model, model_key) if entry == "mean" else entry)


def modelled_weight(
    spec: TensorSpec,
    stream: Stream,
    model: Recipe,
    model_key: str,
    fill: Fill,
    rows: int,
    scale: float = 1.0,
) -> Recipe:
    """A weight of a layer of its own, drawn as :func:`fresh_weight` says, with its own fans.

    Where it sums over more inputs than its model, the model's deviation is made smaller by the
    root of that ratio, so that what the layer makes is as large as what its model makes.
    """
    if fill == "zeros":
        return Filled(spec, 0.0)
    if fill not in ("he", "xavier"):
        scale *= math.sqrt(_fans(model.spec.shape, rows)[0] / _fans(spec.shape, rows)[0])
    return Drawn(spec, stream, _deviation(model, model_key, fill, spec.shape, rows), scale)


def fresh_weight(
    spec: TensorSpec, stream: Stream, model: Recipe, model_key: str, fill: Fill, rows: int
) -> Recipe:
    """Weights beside those of ``model``, drawn with the model's own standard deviation
    (``match-std``, and for want of a copy; He's where that is 0), with He's sqrt(2 / fan_in) or
    Xavier's sqrt(2 / (fan_in + fan_out)); fans are the model's. ``rows`` is the dimension of the
    outputs.
    """
    if fill == "zeros":
        return Filled(spec, 0.0)
    return Drawn(spec, stream, deviation(model, model_key, fill, rows))


def deviation(model: Recipe, model_key: str, fill: Fill, rows: int = 0) -> float | Statistic:
    """The deviation of fresh weights beside the weight ``model``."""
    return _deviation(model, model_key, fill, model.spec.shape, rows)


def _deviation(
    model: Recipe, model_key: str, fill: Fill, shape: tuple[int, ...], rows: int
) -> float | Statistic:
    fan_in, fan_out = _fans(shape, rows)
    if fill == "he":
        return math.sqrt(2.0 / fan_in)
    if fill == "xavier":
        return math.sqrt(2.0 / (fan_in + fan_out))
    he = math.sqrt(2.0 / _fans(model.spec.shape, rows)[0])
    return Statistic("deviation", model, model_key, otherwise=he)


def _fans(shape: tuple[int, ...], rows: int) -> tuple[int, int]:
    """How many weights make an output, and how many read an input; 1 at least."""
    taps = math.prod(shape[2:])
    return max(shape[1 - rows] * taps, 1), max(shape[rows] * taps, 1)
