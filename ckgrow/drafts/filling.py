"""Fresh tensors: one vocabulary of initialisations for everything new."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Literal

from ckgrow.graph import Node
from ckgrow.header import TensorSpec
from ckgrow.random import Draw
from ckgrow.recipes import Drawn, Filled, Recipe, Statistic

Fill = Literal["match-std", "he", "xavier", "zeros", "copy"]


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

    ``copy`` takes the model's values where shapes allow. Otherwise weights are drawn: with the
    model's own standard deviation (``match-std``; He's where that is 0), with He's
    sqrt(2 / fan_in) or Xavier's sqrt(2 / (fan_in + fan_out)); BatchNorm starts with gamma at the
    mean of the model's, beta 0, mean 0 and var 1; biases and whatever no node reads are 0.
    """
    if fill == "copy" and model.spec == spec:
        return model
    for node in nodes:
        if key not in node.inputs:
            continue
        role = node.inputs.index(key)
        if node.op == "BatchNormalization":
            gamma = Statistic("mean", model, model_key)
            return Filled(spec, (gamma, 0.0, 0.0, 1.0)[role - 1])
        if role == 1 and len(spec.shape) >= 2 and fill != "zeros":
            return Drawn(spec, draw.stream("fresh", key), _deviation(spec, model, model_key, fill))
    return Filled(spec, 0.0)


def _deviation(spec: TensorSpec, model: Recipe, model_key: str, fill: Fill) -> float | Statistic:
    taps = math.prod(spec.shape[2:])
    fan_in, fan_out = spec.shape[1] * taps, spec.shape[0] * taps
    he = math.sqrt(2.0 / max(fan_in, 1))
    if fill == "he":
        return he
    if fill == "xavier":
        return math.sqrt(2.0 / max(fan_in + fan_out, 1))
    return Statistic("deviation", model, model_key, otherwise=he)
