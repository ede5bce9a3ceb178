"""What the keys of a residual network say about its layout, and the layers that follow from it."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from ckgrow.header import Header

from ._layers import (
    AdaptiveAverage,
    Convolution,
    Flatten,
    Layer,
    Linear,
    Normalization,
    PadChannels,
    Pool,
    Relu,
    Residual,
    Subsample,
)

BLOCK = re.compile(r"layer([1-9]\d{0,5})\.(0|[1-9]\d{0,5})\.([^.]+)\.")
HEADS = ("fc", "linear")
SHORTCUTS = ("downsample", "shortcut")

Stem = Literal["imagenet", "cifar"]


@dataclass(frozen=True)
class Conventions:
    """What keys and shapes do not hold."""

    stem: Stem
    epsilon: float = 1e-5
    stride_in: str = "conv2"
    padding: str = "even"


@dataclass(frozen=True)
class Block:
    """A residual block: ``convolutions`` is 2 in a basic block, 3 in a bottleneck.

    ``shortcut`` is the name of the shortcut's module, "" where there is none.
    """

    path: str
    convolutions: int
    shortcut: str

    @property
    def last(self) -> str:
        """The convolution that makes the branch's output."""
        return f"{self.path}.conv{self.convolutions}"


@dataclass(frozen=True)
class Layout:
    """Stages of blocks in order, and the classifier's name ("" for a backbone without one)."""

    stages: tuple[tuple[Block, ...], ...]
    head: str

    def padded(self) -> tuple[Block, ...]:
        """The blocks that halve the map without parameters on the shortcut (option A)."""
        return tuple(stage[0] for stage in self.stages[1:] if not stage[0].shortcut)

    def has_bottlenecks(self) -> bool:
        """Whether any block is a bottleneck."""
        return any(block.convolutions == 3 for stage in self.stages for block in stage)


def layout(header: Header) -> Layout:
    """The layout that the keys tell: stages and blocks are counted as far as they are gapless.

    Where no block is found the first one stands for what is missing.
    """
    modules: dict[tuple[int, int], set[str]] = {}
    for name in header:
        found = BLOCK.match(name)
        if found:
            place = int(found[1]), int(found[2])
            modules.setdefault(place, set()).add(found[3])
    stages: list[tuple[Block, ...]] = []
    while (len(stages) + 1, 0) in modules:
        number, blocks = len(stages) + 1, list[Block]()
        while (number, len(blocks)) in modules:
            place = number, len(blocks)
            blocks.append(_block("layer{}.{}".format(*place), modules[place]))
        stages.append(tuple(blocks))
    heads = (head for head in HEADS if any(name.startswith(f"{head}.") for name in header))
    return Layout(tuple(stages) or ((_block("layer1.0", ()),),), next(heads, ""))


def usual_stem(header: Header) -> Stem:
    """The stem that goes with the first kernel: 7 x 7 is ImageNet's, 3 x 3 is CIFAR's."""
    first = header.get("conv1.weight")
    return "imagenet" if first is not None and first.shape[2:] >= (7, 7) else "cifar"


def describe(found: Layout, conventions: Conventions) -> tuple[Layer, ...]:
    """The layers of a layout. The first stage keeps the map's size, each later one halves it."""
    layers = list(_stem(conventions))
    for position, stage in enumerate(found.stages):
        for block in stage:
            halves = position > 0 and block is stage[0]
            layers += _residual(block, 2 if halves else 1, conventions)
    layers.append(AdaptiveAverage("avgpool", 1))
    if found.head:
        layers += (Flatten("avgpool/flatten"), Linear(found.head, output="logits"))
    else:
        layers.append(Flatten("avgpool/flatten", output="features"))
    return tuple(layers)


def _block(path: str, modules: Iterable[str]) -> Block:
    shortcut = next((name for name in SHORTCUTS if name in modules), "")
    return Block(path, 3 if "conv3" in modules else 2, shortcut)


def _stem(conventions: Conventions) -> tuple[Layer, ...]:
    large = conventions.stem == "imagenet"
    layers: tuple[Layer, ...] = (
        Convolution("conv1", stride=2 if large else 1),
        Normalization("bn1", conventions.epsilon),
        Relu("conv1/relu"),
    )
    return (*layers, Pool("maxpool", "MaxPool", 3, 2, padding=1)) if large else layers


def _residual(block: Block, stride: int, conventions: Conventions) -> tuple[Layer, ...]:
    path, last = block.path, block.convolutions
    bottleneck = last == 3
    strided = conventions.stride_in if bottleneck else "conv1"
    branch: list[Layer] = []
    for number in range(1, last + 1):
        name = f"conv{number}"
        grouped = bottleneck and number == 2
        branch += (
            Convolution(f"{path}.{name}", stride if name == strided else 1, grouped=grouped),
            Normalization(f"{path}.bn{number}", conventions.epsilon),
        )
        if number < last:
            branch.append(Relu(f"{path}/relu{number}"))
    shortcut = _shortcut(block, stride, conventions)
    return Residual(f"{path}/add", tuple(branch), shortcut), Relu(f"{path}/out")


def _shortcut(block: Block, stride: int, conventions: Conventions) -> tuple[Layer, ...]:
    path = f"{block.path}.{block.shortcut}"
    if block.shortcut:
        return (
            Convolution(f"{path}.0", stride),
            Normalization(f"{path}.1", conventions.epsilon),
        )
    if stride == 1:
        return ()
    return (
        Subsample(f"{block.path}/subsample", stride),
        PadChannels(
            f"{block.path}/pad", f"{block.last}.weight", at_end=conventions.padding == "end"
        ),
    )
