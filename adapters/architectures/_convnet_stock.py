"""VGG and AlexNet by their names in torchvision: the tensors of each, as a target to grow into."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

from ckgrow.architecture import Target
from ckgrow.graph import Graph
from ckgrow.header import Header

from ._convnet_torchvision import ALEXNET, HIDDEN, VGG
from ._stock_header import Shapes, class_count, header_like, input_size, norm_shapes


@dataclass(frozen=True)
class Stock:
    """One of torchvision's constructors.

    ``layout`` has the channels of each convolution and a dash for a max-pool; ``kernels`` the
    first sides, the last of which all later convolutions share; ``linears`` the places of the
    classifier's layers; ``positions`` is the size of the map that the first of them reads.
    """

    layout: str
    kernels: tuple[int, ...]
    linears: tuple[int, int, int]
    positions: int
    normalised: bool = False

    def target(self, graph: Graph, header: Header) -> Target:
        """For the channels and classes of a network."""
        size = input_size(graph)
        shapes = self.shapes(size[0], class_count(graph, header) or 1000)
        return Target(header_like(header, shapes), {"input": size})

    def shapes(self, channels: int, classes: int) -> Shapes:
        """Every tensor of the model; counters of BatchNorm aside."""
        made: Shapes = {}
        place = 0
        sides = [*self.kernels]
        for text in self.layout.split():
            if text == "-":
                place += 1
                continue
            width = int(text)
            side = sides.pop(0) if len(sides) > 1 else sides[0]
            made |= _layer(f"features.{place}", (width, channels, side, side))
            if self.normalised:
                place += 1
                made |= norm_shapes(f"features.{place}", width)
            place += 2  # the activation has a place of its own
            channels = width
        rows = pairwise((channels * self.positions, HIDDEN, HIDDEN, classes))
        for place, (inputs, outputs) in zip(self.linears, rows, strict=True):
            made |= _layer(f"classifier.{place}", (outputs, inputs))
        return made


def _layer(path: str, weight: tuple[int, ...]) -> Shapes:
    return {f"{path}.weight": weight, f"{path}.bias": weight[:1]}


STOCK = {
    "alexnet": Stock(ALEXNET, (11, 5, 3), (1, 4, 6), 36),
    **{name: Stock(layout, (3,), (0, 3, 6), 49) for name, layout in VGG.items()},
    **{
        f"{name}_bn": Stock(layout, (3,), (0, 3, 6), 49, normalised=True)
        for name, layout in VGG.items()
    },
}
TARGETS = {f"torchvision/{name}": stock.target for name, stock in STOCK.items()}
