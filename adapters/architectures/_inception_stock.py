"""torchvision's own widths and kernels of GoogLeNet and Inception v3, in the order of the layers.

A unit is written ``width`` or ``width/kernel``: ``64`` is a 1 x 1 convolution with 64 channels,
``96/3`` a 3 x 3 one, ``128/1x7`` a rectangular one.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from ckgrow.header import Header

from ._layers import Aside, Concatenation, Convolution, Flatten, Layer, Linear, Normalization
from ._stock_header import COLOURS, Shapes, norm_shapes

Unit = tuple[int, tuple[int, ...]]


@dataclass(frozen=True)
class Widths:
    """One network: the units of its trunk and of an auxiliary head.

    ``heads`` is how many heads there are if any, ``hidden`` the width of a head's own hidden
    linear layer.
    """

    trunk: tuple[str, ...]
    head: str
    heads: int
    hidden: int = 0

    def matches(self, header: Header, layers: Sequence[Layer]) -> bool:
        """Whether the stock class, with a number of classes of its own, loads ``header``.

        As in torchvision, the input has three channels, linear layers have biases and convolutions
        have none.
        """
        heads = [layer.layers for layer in layers if isinstance(layer, Aside)]
        groups = (layers, *heads)
        linears = [layer for group in groups for layer in group if isinstance(layer, Linear)]
        hidden = [_rows(header, layer.path) for layer in linears if not layer.output]
        classes = {_rows(header, layer.path) for layer in linears if layer.output}
        biased = [layer.path for group in groups for layer in _convolutions(group)]
        stem = next(_convolutions(layers)).path
        return (
            header.shape(f"{stem}.weight")[1] == COLOURS
            and len(heads) in (0, self.heads)
            and _units(header, layers) == _parsed(" ".join(self.trunk))
            and all(_units(header, group) == _parsed(self.head) for group in heads)
            and all(width == self.hidden for width in hidden)
            and len(classes) == 1
            and all(f"{layer.path}.bias" in header for layer in linears)
            and not any(f"{path}.bias" in header for path in biased)
        )

    def shapes(self, layers: Sequence[Layer], channels: int, classes: int) -> Shapes:
        """Every tensor of the stock class, whose layout ``layers`` are; counters aside."""
        sizing = _Sizing(self, classes)
        sizing.walk(layers, iter(_parsed(" ".join(self.trunk))), channels)
        return sizing.shapes


class _Sizing:
    """One walk that takes a unit for every convolution; ``shapes`` are those met so far."""

    def __init__(self, widths: Widths, classes: int) -> None:
        self.shapes: Shapes = {}
        self._widths = widths
        self._classes = classes

    def walk(self, layers: Sequence[Layer], units: Iterator[Unit], channels: int) -> int:
        """The channels behind the last layer."""
        for layer in layers:
            channels = self._behind(layer, units, channels)
        return channels

    def _behind(self, layer: Layer, units: Iterator[Unit], channels: int) -> int:
        match layer:
            case Convolution():
                width, kernel = next(units)
                self.shapes[f"{layer.path}.weight"] = (width, channels, *kernel)
                return width
            case Normalization():
                self.shapes |= norm_shapes(layer.path, channels)
            case Concatenation():
                return sum(self.walk(branch, units, channels) for branch in layer.branches)
            case Aside():
                self.walk(layer.layers, iter(_parsed(self._widths.head)), channels)
            case Flatten():
                return channels * layer.positions
            case Linear():
                rows = self._classes if layer.output else self._widths.hidden
                self.shapes |= {f"{layer.path}.weight": (rows, channels)}
                self.shapes |= {f"{layer.path}.bias": (rows,)}
                return rows
            case _:  # pools, activations: nothing with a shape
                pass
        return channels


GOOGLENET = Widths(
    trunk=(
        "64/7 64 192/3",
        "64 96 128/3 16 32/3 32",  # inception3a
        "128 128 192/3 32 96/3 64",
        "192 96 208/3 16 48/3 64",  # inception4a
        "160 112 224/3 24 64/3 64",
        "128 128 256/3 24 64/3 64",
        "112 144 288/3 32 64/3 64",
        "256 160 320/3 32 128/3 128",
        "256 160 320/3 32 128/3 128",  # inception5a
        "384 192 384/3 48 128/3 128",
    ),
    head="128",
    heads=2,
    hidden=1024,
)

_A = "64 48 64/5 64 96/3 96/3"
_C = "192 {0} {0}/1x7 192/7x1 {0} {0}/7x1 {0}/1x7 {0}/7x1 192/1x7 192"
_E = "320 384 384/1x3 384/3x1 448 384/3 384/1x3 384/3x1 192"
INCEPTION_V3 = Widths(
    trunk=(
        "32/3 32/3 64/3 80 192/3",
        f"{_A} 32",  # Mixed_5b
        f"{_A} 64",
        f"{_A} 64",
        "384/3 64 96/3 96/3",  # Mixed_6a
        _C.format(128),
        _C.format(160),
        _C.format(160),
        _C.format(192),
        "192 320/3 192 192/1x7 192/7x1 192/3",  # Mixed_7a
        _E,
        _E,
    ),
    head="128 768/5",
    heads=1,
)


def _rows(header: Header, path: str) -> int:
    return header.shape(f"{path}.weight")[0]


def _convolutions(layers: Sequence[Layer]) -> Iterator[Convolution]:
    """The convolutions in order, those of asides left out."""
    for layer in layers:
        if isinstance(layer, Convolution):
            yield layer
        elif isinstance(layer, Concatenation):
            for branch in layer.branches:
                yield from _convolutions(branch)


def _units(header: Header, layers: Sequence[Layer]) -> list[Unit]:
    shapes = (header.shape(f"{layer.path}.weight") for layer in _convolutions(layers))
    return [(shape[0], shape[2:]) for shape in shapes]


def _parsed(table: str) -> list[Unit]:
    units: list[Unit] = []
    for text in table.split():
        width, _, kernel = text.partition("/")
        sides = [int(side) for side in (kernel or "1").split("x")]
        units.append((int(width), (sides[0], sides[-1])))
    return units
