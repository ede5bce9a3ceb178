"""GoogLeNet as torchvision names it, and smaller networks of the same blocks.

Going Deeper with Convolutions (Szegedy et al., 2014). With ``conv2`` and ``conv3`` in the stem the
layout is torchvision's, all nine blocks and perhaps the auxiliary heads. Without them it is a
small network: ``conv1`` at stride 1, any gapless run of blocks, a 2 x 2 max-pool wherever the
blocks' number goes up.
"""

from __future__ import annotations

import re

from ckgrow.header import Header

from ._layers import (
    AdaptiveAverage,
    Aside,
    Concatenation,
    Convolution,
    Dropout,
    Flatten,
    Layer,
    Linear,
    Normalization,
    Pool,
    Relu,
)

BLOCK = re.compile(r"inception([1-9])([a-z])\.")
FULL = ("3a", "3b", "4a", "4b", "4c", "4d", "4e", "5a", "5b")
HEADS = {"4a": "aux1", "4d": "aux2"}


def is_full(header: Header) -> bool:
    """Whether the stem is torchvision's."""
    return any(name.startswith(("conv2.", "conv3.")) for name in header)


def describe(header: Header, epsilon: float) -> tuple[Layer, ...]:
    """The layers, from the stem to ``logits``."""
    if is_full(header):
        return describe_full(header, epsilon)
    return _with_classifier(_small(header, epsilon))


def describe_full(header: Header, epsilon: float) -> tuple[Layer, ...]:
    """torchvision's layout, with the auxiliary heads where they have keys."""
    return _with_classifier(_full(header, epsilon))


def _with_classifier(trunk: tuple[Layer, ...]) -> tuple[Layer, ...]:
    return (
        *trunk,
        AdaptiveAverage("avgpool", 1),
        Flatten("avgpool/flatten"),
        Dropout("dropout"),
        Linear("fc", output="logits"),
    )


def unit(path: str, epsilon: float, *, stride: int = 1, padded: bool = True) -> tuple[Layer, ...]:
    """torchvision's BasicConv2d: convolution, BatchNorm, relu."""
    return (
        Convolution(f"{path}.conv", stride, padded),
        Normalization(f"{path}.bn", epsilon),
        Relu(f"{path}/relu"),
    )


def _full(header: Header, epsilon: float) -> tuple[Layer, ...]:
    layers: list[Layer] = [
        *unit("conv1", epsilon, stride=2),
        Pool("maxpool1", "MaxPool", 3, 2, ceil=True),
        *unit("conv2", epsilon),
        *unit("conv3", epsilon),
        Pool("maxpool2", "MaxPool", 3, 2, ceil=True),
    ]
    for block in FULL:
        layers.append(_block(block, epsilon))
        head = HEADS.get(block, "")
        if head and any(name.startswith(f"{head}.") for name in header):
            layers.append(Aside(_auxiliary(head, epsilon)))
        if block == "3b":
            layers.append(Pool("maxpool3", "MaxPool", 3, 2, ceil=True))
        elif block == "4e":
            layers.append(Pool("maxpool4", "MaxPool", 2, 2, ceil=True))
    return tuple(layers)


def _small(header: Header, epsilon: float) -> tuple[Layer, ...]:
    layers = list(unit("conv1", epsilon))
    blocks = _gapless(header)
    for before, block in zip([blocks[0], *blocks], blocks, strict=False):
        if before[0] != block[0]:
            layers.append(Pool(f"maxpool{before[0]}", "MaxPool", 2, 2))
        layers.append(_block(block, epsilon))
    return tuple(layers)


def _gapless(header: Header) -> list[str]:
    """Blocks such as 3a, 3b, 4a in order, with what a gap lacks: its keys are then missing."""
    found = {match[1] + match[2] for name in header if (match := BLOCK.match(name))} or {"3a"}
    first, last = int(min(found)[0]), int(max(found)[0])
    blocks: list[str] = []
    for number in range(first, last + 1):
        letters = [block[1] for block in found if block[0] == str(number)]
        end = max(letters, default="a")
        blocks += (f"{number}{chr(code)}" for code in range(ord("a"), ord(end) + 1))
    return blocks


def _block(block: str, epsilon: float) -> Layer:
    path = f"inception{block}"
    branches = (
        unit(f"{path}.branch1", epsilon),
        (*unit(f"{path}.branch2.0", epsilon), *unit(f"{path}.branch2.1", epsilon)),
        (*unit(f"{path}.branch3.0", epsilon), *unit(f"{path}.branch3.1", epsilon)),
        (
            Pool(f"{path}.branch4.0", "MaxPool", 3, 1, padding=1),
            *unit(f"{path}.branch4.1", epsilon),
        ),
    )
    return Concatenation(f"{path}/concat", branches)


def _auxiliary(path: str, epsilon: float) -> tuple[Layer, ...]:
    return (
        AdaptiveAverage(f"{path}/pool", 4),
        *unit(f"{path}.conv", epsilon),
        Flatten(f"{path}/flatten", positions=16),
        Linear(f"{path}.fc1"),
        Relu(f"{path}/relu"),
        Dropout(f"{path}.dropout"),
        Linear(f"{path}.fc2", output=path),
    )
