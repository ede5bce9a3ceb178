"""GoogLeNet and Inception v3 in torchvision's key names, and small networks of GoogLeNet's blocks.

The auxiliary heads hang on values that widen, so they are outputs of the graph (``aux1`` and
``aux2`` of GoogLeNet, ``aux`` of Inception v3) wherever the checkpoint has their keys. Widths and
kernels are read off the checkpoint; strides and pooling are torchvision's.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from ckgrow.architecture import (
    Assumption,
    Explanation,
    Network,
    Option,
    Stage,
    Target,
    Targeting,
)
from ckgrow.errors import SpecError
from ckgrow.graph import Graph
from ckgrow.header import Header

from . import _inception_googlenet as googlenet
from . import _inception_v3 as inception_v3
from ._emitting import emit
from ._explaining import explanation
from ._inception_stock import GOOGLENET, INCEPTION_V3, Widths
from ._layers import Aside, Convolution, Layer, Linear, Rescale
from ._options import Options
from ._stock_header import class_count, header_like, input_size, with_classes

EPSILON = 1e-3

# torchvision's `transform_input`: from ImageNet's mean and deviation to 0.5 and 0.5
MEANS = (0.485, 0.456, 0.406)
DEVIATIONS = (0.229, 0.224, 0.225)
TRANSFORM = Rescale(
    "transform_input",
    scale=tuple(deviation / 0.5 for deviation in DEVIATIONS),
    shift=tuple((mean - 0.5) / 0.5 for mean in MEANS),
)


def _targeting(widths: Widths, describe: Callable[[Header, float], tuple[Layer, ...]]) -> Targeting:
    """With auxiliary heads where the checkpoint has them."""

    def target(graph: Graph, header: Header) -> Target:
        size = input_size(graph)
        layers = describe(header, EPSILON)
        shapes = widths.shapes(layers, size[0], class_count(graph, header) or 1000)
        rescaled = any(node.name == TRANSFORM.path for node in graph.nodes)
        options = {"input": size, "transform_input": rescaled}
        return Target(header_like(header, shapes), options)

    return target


TARGETS = {
    "torchvision/googlenet": _targeting(GOOGLENET, googlenet.describe_full),
    "torchvision/inception_v3": _targeting(INCEPTION_V3, inception_v3.describe),
}


class Inception:
    """The adapter for networks of Inception blocks."""

    name = "inception"
    summary = "torchvision's GoogLeNet and Inception v3, and small networks of GoogLeNet's blocks"
    options = (
        Option(
            "input",
            None,
            "[channels, height, width]; default 224 x 224, Inception v3 299 x 299, small 8 x 8",
        ),
        Option(
            "transform_input",
            False,
            "true for torchvision's pretrained weights, which rescale their input",
        ),
        Option("epsilon", EPSILON, "epsilon of BatchNorm"),
    )
    targets = TARGETS

    def explain(self, header: Header) -> Explanation:
        """Which keys have a place in a network of Inception blocks."""
        return explanation(header, _layout(header, EPSILON).layers)

    def build(self, header: Header, options: Mapping[str, Any]) -> Network:
        """The graph, with outputs ``logits`` and those of the auxiliary heads."""
        stated = Options(self.options, options)
        epsilon = stated.positive("epsilon")
        transform = stated.flag("transform_input")
        layout = _layout(header, epsilon)
        first = next(layer for layer in layout.layers if isinstance(layer, Convolution))
        channels = header.shape(f"{first.path}.weight")[1]
        size = stated.image("input", channels, layout.side)
        if transform and channels != len(MEANS):
            raise SpecError(
                f"option 'transform_input' rescales red, green and blue, but the first layer "
                f"reads {channels} channels"
            )
        layers = (TRANSFORM, *layout.layers) if transform else layout.layers
        graph = emit(header, layers, size, options)
        used = set(graph.parameters())
        facts = (
            Assumption("input", " x ".join(map(str, size)), stated.source("input")),
            Assumption("transform_input", str(transform).lower(), stated.source("transform_input")),
            Assumption("strides and pooling", layout.text, "architecture"),
            Assumption("activation", "relu", "architecture"),
            Assumption("epsilon", f"{epsilon:g}", stated.source("epsilon")),
        )
        return Network(
            graph,
            facts,
            tuple(name for name in header if name not in used),
            dict(options),
        )

    def stages(self, graph: Graph) -> tuple[Stage, ...]:
        """None: nothing here is a sum, so no block can be inserted without effect."""
        return ()

    def stock(self, header: Header) -> str | None:
        """torchvision's constructor, where every width and kernel is its own."""
        layout = _layout(header, EPSILON)
        heads = sum(isinstance(layer, Aside) for layer in layout.layers)
        if layout.stock is None or not layout.stock.matches(header, layout.layers):
            return None
        last = layout.layers[-1]
        assert isinstance(last, Linear)
        classes = header.shape(f"{last.path}.weight")[0]
        return f"{layout.text}{with_classes(classes, f'aux_logits={bool(heads)}')}"


@dataclass(frozen=True)
class _Layout:
    """The layers of a header, the usual side of the input, and whose layout it is."""

    layers: tuple[Layer, ...]
    side: int
    text: str
    stock: Widths | None = None


def _layout(header: Header, epsilon: float) -> _Layout:
    if any(name.startswith(("Mixed_", "Conv2d_")) for name in header):
        layers = inception_v3.describe(header, epsilon)
        return _Layout(layers, 299, "torchvision's inception_v3", INCEPTION_V3)
    layers = googlenet.describe(header, epsilon)
    if googlenet.is_full(header):
        return _Layout(layers, 224, "torchvision's googlenet", GOOGLENET)
    return _Layout(layers, 8, "stride 1, a 2 x 2 max-pool wherever the blocks' number goes up")


ADAPTER = Inception()
