"""Inception v3 as torchvision builds it.

Rethinking the Inception Architecture for Computer Vision (Szegedy et al., 2015). Each kind of
block is a table: branches of convolutions by name, the branch that pools left out. ``name!`` is
one that halves the map (stride 2, no padding), ``name&`` a pair side by side, ``namea`` and
``nameb``.
"""

from __future__ import annotations

from collections.abc import Sequence

from ckgrow.header import Header

from ._inception_googlenet import unit
from ._layers import (
    AdaptiveAverage,
    Aside,
    Concatenation,
    Dropout,
    Flatten,
    Layer,
    Linear,
    Pool,
)

A = ("branch1x1", "branch5x5_1 branch5x5_2", "branch3x3dbl_1 branch3x3dbl_2 branch3x3dbl_3")
B = ("branch3x3!", "branch3x3dbl_1 branch3x3dbl_2 branch3x3dbl_3!")
C = (
    "branch1x1",
    "branch7x7_1 branch7x7_2 branch7x7_3",
    "branch7x7dbl_1 branch7x7dbl_2 branch7x7dbl_3 branch7x7dbl_4 branch7x7dbl_5",
)
D = (
    "branch3x3_1 branch3x3_2!",
    "branch7x7x3_1 branch7x7x3_2 branch7x7x3_3 branch7x7x3_4!",
)
E = ("branch1x1", "branch3x3_1 branch3x3_2&", "branch3x3dbl_1 branch3x3dbl_2 branch3x3dbl_3&")

BLOCKS = {
    "5b": A,
    "5c": A,
    "5d": A,
    "6a": B,
    "6b": C,
    "6c": C,
    "6d": C,
    "6e": C,
    "7a": D,
    "7b": E,
    "7c": E,
}
HEAD = "AuxLogits"


def describe(header: Header, epsilon: float) -> tuple[Layer, ...]:
    """The layers, from the stem to ``logits``, with the auxiliary head where it has keys."""
    layers: list[Layer] = [
        *unit("Conv2d_1a_3x3", epsilon, stride=2, padded=False),
        *unit("Conv2d_2a_3x3", epsilon, padded=False),
        *unit("Conv2d_2b_3x3", epsilon),
        Pool("maxpool1", "MaxPool", 3, 2),
        *unit("Conv2d_3b_1x1", epsilon),
        *unit("Conv2d_4a_3x3", epsilon, padded=False),
        Pool("maxpool2", "MaxPool", 3, 2),
    ]
    for block, table in BLOCKS.items():
        kind = _halving if table in (B, D) else _keeping
        layers.append(kind(f"Mixed_{block}", table, epsilon))
        if block == "6e" and any(name.startswith(f"{HEAD}.") for name in header):
            layers.append(Aside(_auxiliary(epsilon)))
    return (
        *layers,
        AdaptiveAverage("avgpool", 1),
        Dropout("dropout"),
        Flatten("avgpool/flatten"),
        Linear("fc", output="logits"),
    )


def _keeping(path: str, table: Sequence[str], epsilon: float) -> Layer:
    pooling = (
        Pool(f"{path}.branch_pool/pool", "AveragePool", 3, 1, padding=1),
        *unit(f"{path}.branch_pool", epsilon),
    )
    branches = (_branch(path, names, epsilon) for names in table)
    return Concatenation(f"{path}/concat", (*branches, pooling))


def _halving(path: str, table: Sequence[str], epsilon: float) -> Layer:
    branches = (_branch(path, names, epsilon) for names in table)
    pooling = (Pool(f"{path}/pool", "MaxPool", 3, 2),)
    return Concatenation(f"{path}/concat", (*branches, pooling))


def _branch(path: str, names: str, epsilon: float) -> tuple[Layer, ...]:
    layers: list[Layer] = []
    for name in names.split():
        module = f"{path}.{name.rstrip('!&')}"
        if name.endswith("&"):
            sides = (unit(f"{module}a", epsilon), unit(f"{module}b", epsilon))
            layers.append(Concatenation(f"{module}/concat", sides))
        elif name.endswith("!"):
            layers += unit(module, epsilon, stride=2, padded=False)
        else:
            layers += unit(module, epsilon)
    return tuple(layers)


def _auxiliary(epsilon: float) -> tuple[Layer, ...]:
    return (
        Pool(f"{HEAD}/pool", "AveragePool", 5, 3),
        *unit(f"{HEAD}.conv0", epsilon),
        *unit(f"{HEAD}.conv1", epsilon, padded=False),
        AdaptiveAverage(f"{HEAD}/average", 1),
        Flatten(f"{HEAD}/flatten"),
        Linear(f"{HEAD}.fc", output="aux"),
    )
