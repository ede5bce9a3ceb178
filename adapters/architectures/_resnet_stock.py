"""Published residual networks by name, and which of them loads a checkpoint as it is."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

from ckgrow.architecture import Target, Targeting
from ckgrow.graph import Graph
from ckgrow.header import Header

from ._explaining import COUNTER
from ._resnet_layout import Layout, usual_stem
from ._stock_header import (
    COLOURS,
    Shapes,
    class_count,
    header_like,
    input_size,
    norm_shapes,
    with_classes,
)


@dataclass(frozen=True)
class Constructor:
    """One of torchvision's or timm's constructors: its arguments to ``ResNet``."""

    convolutions: int
    depths: tuple[int, ...]
    groups: int = 1
    width_per_group: int = 64

    def shapes(self, classes: int, channels: int = 3) -> Shapes:
        """Every tensor of the model; counters of BatchNorm aside. No classes, no classifier."""
        expansion = 4 if self.convolutions == 3 else 1
        made = dict(_unit("conv1", "bn1", (64, channels, 7, 7)))
        arriving = 64
        for stage, depth in enumerate(self.depths):
            planes = 64 << stage
            leaving = planes * expansion
            for number in range(depth):
                path = f"layer{stage + 1}.{number}"
                if number == 0 and (stage > 0 or arriving != leaving):
                    shortcut = f"{path}.downsample"
                    made |= _unit(f"{shortcut}.0", f"{shortcut}.1", (leaving, arriving, 1, 1))
                for index, weight in enumerate(self._branch(arriving, planes), start=1):
                    made |= _unit(f"{path}.conv{index}", f"{path}.bn{index}", weight)
                arriving = leaving
        return made | ({"fc.weight": (classes, arriving), "fc.bias": (classes,)} if classes else {})

    def _branch(self, arriving: int, planes: int) -> Iterator[tuple[int, ...]]:
        if self.convolutions == 2:
            yield from ((planes, arriving, 3, 3), (planes, planes, 3, 3))
        else:
            inner = planes * self.width_per_group // 64 * self.groups
            yield inner, arriving, 1, 1
            yield inner, inner // self.groups, 3, 3
            yield planes * 4, inner, 1, 1


TORCHVISION = {
    "resnet18": Constructor(2, (2, 2, 2, 2)),
    "resnet34": Constructor(2, (3, 4, 6, 3)),
    "resnet50": Constructor(3, (3, 4, 6, 3)),
    "resnet101": Constructor(3, (3, 4, 23, 3)),
    "resnet152": Constructor(3, (3, 8, 36, 3)),
    "wide_resnet50_2": Constructor(3, (3, 4, 6, 3), width_per_group=128),
    "wide_resnet101_2": Constructor(3, (3, 4, 23, 3), width_per_group=128),
    "resnext50_32x4d": Constructor(3, (3, 4, 6, 3), groups=32, width_per_group=4),
    "resnext101_32x8d": Constructor(3, (3, 4, 23, 3), groups=32, width_per_group=8),
    "resnext101_64x4d": Constructor(3, (3, 4, 23, 3), groups=64, width_per_group=4),
}

TIMM = TORCHVISION | {
    "resnet26": Constructor(3, (2, 2, 2, 2)),
    "resnet200": Constructor(3, (3, 24, 36, 3)),
    "resnext101_32x4d": Constructor(3, (3, 4, 23, 3), groups=32, width_per_group=4),
    "resnext101_32x16d": Constructor(3, (3, 4, 23, 3), groups=32, width_per_group=16),
    "resnext101_32x32d": Constructor(3, (3, 4, 23, 3), groups=32, width_per_group=32),
}
"""Those of timm's ResNets that compute as torchvision's do, under the same keys."""


def _targeting(constructor: Constructor, headless: int) -> Targeting:
    """``headless`` is the number of classes for a checkpoint without a classifier."""

    def target(graph: Graph, header: Header) -> Target:
        size = input_size(graph)
        classes = class_count(graph, header)
        shapes = constructor.shapes(headless if classes is None else classes, size[0])
        return Target(header_like(header, shapes), {"input": size})

    return target


TARGETS = {
    **{
        f"torchvision/{name}": _targeting(each, headless=1000) for name, each in TORCHVISION.items()
    },
    **{f"timm/{name}": _targeting(each, headless=0) for name, each in TIMM.items()},
}


def stock(header: Header, found: Layout) -> str | None:
    """The stock class or constructor, as a phrase; None when there is none."""
    shapes = {name: spec.shape for name, spec in header.items() if not name.endswith(f".{COUNTER}")}
    depths = tuple(len(stage) for stage in found.stages)
    if "fc.weight" in shapes:
        classes = shapes["fc.weight"][0]
        for name, constructor in TORCHVISION.items():
            if constructor.depths == depths and constructor.shapes(classes) == shapes:
                return f"torchvision's {name}{with_classes(classes)}"
    # the CIFAR classes, and the two stages of the R2R paper's, are built at any widths
    by_width = usual_stem(header) == "cifar" or len(found.stages) == 2
    return _of_any_width(shapes, found) if by_width else None


def _of_any_width(shapes: Shapes, found: Layout) -> str | None:
    """A class of basic blocks whose every stage has one width, inside its blocks as well.

    Shortcuts between stages are projections, or pad planes // 4 channels on either side.
    """
    if found.has_bottlenecks():
        return None
    widths = [shapes[f"{stage[0].last}.weight"][0] for stage in found.stages]
    plain = all(
        shapes[f"{block.path}.conv{number}.weight"][::2] == (width, 3)
        for stage, width in zip(found.stages, widths, strict=True)
        for block in stage
        for number in (1, 2)
    )
    projected = [bool(stage[0].shortcut) for stage in found.stages[1:]]
    padded = not any(projected) and len(found.padded()) == len(projected)
    even = all(after - before == 2 * (after // 4) for before, after in pairwise(widths))
    if not plain or not (all(projected) or (padded and even)):
        return None
    listed = ", ".join(map(str, widths))
    depths = ", ".join(str(len(stage)) for stage in found.stages)
    kind = "CIFAR ResNet" if len(found.stages) != 2 else "ResNet"
    channels = shapes["conv1.weight"][1]
    reading = "" if channels == COLOURS else f", reading {channels} channels"
    return f"the stock {kind} class at widths {listed} with {depths} blocks{reading}"


def _unit(convolution: str, norm: str, weight: tuple[int, ...]) -> Shapes:
    return {f"{convolution}.weight": weight, **norm_shapes(norm, weight[0])}
