"""Residual networks in torchvision's key names, and those of CIFAR.

Deep Residual Learning for Image Recognition (He et al., 2015), Aggregated Residual
Transformations (Xie et al., 2016), Wide Residual Networks (Zagoruyko and Komodakis, 2016, as
torchvision builds them). Keys: ``conv1 bn1 layerN.M.convK layerN.M.bnK``, a shortcut called
``downsample`` or ``shortcut``, a classifier called ``fc`` or ``linear``. Widths, groups, the kind
of each block, the numbers of stages and blocks are read off the checkpoint.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from ckgrow.architecture import Assumption, Explanation, Network, Option, Source, Stage
from ckgrow.graph import Graph
from ckgrow.header import Header

from . import _resnet_stock
from ._emitting import emit
from ._explaining import explanation
from ._options import Options
from ._resnet_layout import Conventions, Layout, describe, layout, usual_stem

IN_BLOCK = re.compile(r"(layer\d+)\.(\d+)[./]")
IMAGE_SIDE = {"imagenet": 224, "cifar": 32}


class Resnet:
    """The adapter for residual networks."""

    name = "resnet"
    summary = "residual networks: torchvision's and timm's ResNet, Wide ResNet, ResNeXt; CIFAR's"
    options = (
        Option("input", None, "[channels, height, width]; default 224 x 224, CIFAR 32 x 32"),
        Option(
            "stem",
            None,
            "imagenet: stride 2 and a max-pool (a 7 x 7 kernel's default); cifar: neither",
            ("imagenet", "cifar"),
        ),
        Option("epsilon", 1e-5, "epsilon of BatchNorm"),
        Option(
            "stride_in",
            "conv2",
            "the convolution of a bottleneck that halves the map",
            ("conv1", "conv2"),
        ),
        Option(
            "padding",
            "even",
            "where a shortcut without parameters puts its zero channels: even on both sides, end",
            ("even", "end"),
        ),
    )
    targets = _resnet_stock.TARGETS

    def explain(self, header: Header) -> Explanation:
        """Which keys have a place in a residual network."""
        return explanation(header, describe(layout(header), Conventions(usual_stem(header))))

    def build(self, header: Header, options: Mapping[str, Any]) -> Network:
        """The graph, with output ``logits`` (``features`` where there is no classifier)."""
        stated = Options(self.options, options)
        found = layout(header)
        conventions = Conventions(
            stem=stated.value("stem") or usual_stem(header),
            epsilon=stated.positive("epsilon"),
            stride_in=stated.value("stride_in"),
            padding=stated.value("padding"),
        )
        first = header.shape("conv1.weight")
        size = stated.image("input", first[1], IMAGE_SIDE[conventions.stem])
        graph = emit(header, describe(found, conventions), size, options)
        used = set(graph.parameters())
        return Network(
            graph,
            _assumptions(stated, found, conventions, first[2:], size),
            tuple(name for name in header if name not in used),
            dict(options),
        )

    def stages(self, graph: Graph) -> tuple[Stage, ...]:
        """``layer1``, ``layer2``, ... with their blocks."""
        blocks: dict[str, set[int]] = {}
        for node in graph.nodes:
            found = IN_BLOCK.match(node.name)
            if found:
                blocks.setdefault(found[1], set()).add(int(found[2]))
        return tuple(
            Stage(name, tuple(f"{name}.{number}" for number in sorted(numbers)))
            for name, numbers in sorted(blocks.items(), key=lambda stage: int(stage[0][5:]))
        )

    def stock(self, header: Header) -> str | None:
        """torchvision's constructor, or the stock CIFAR class with its widths."""
        return _resnet_stock.stock(header, layout(header))


def _assumptions(
    stated: Options,
    found: Layout,
    conventions: Conventions,
    kernel: tuple[int, ...],
    size: tuple[int, ...],
) -> tuple[Assumption, ...]:
    published: Source = "architecture" if kernel in ((7, 7), (3, 3)) else "default"
    stem = {
        "imagenet": "imagenet (stride 2, then a 3 x 3 max-pool of stride 2)",
        "cifar": "cifar (stride 1, no pooling)",
    }
    strided = f"{conventions.stride_in} of bottlenecks" if found.has_bottlenecks() else "conv1"
    facts = [
        Assumption("input", " x ".join(map(str, size)), stated.source("input")),
        Assumption("stem", stem[conventions.stem], stated.source("stem", published)),
        Assumption(
            "strides",
            f"2 in {strided} of the first block of each stage but the first, 1 elsewhere",
            stated.source("stride_in"),
        ),
        Assumption("activation", "relu", "architecture"),
        Assumption("epsilon", f"{conventions.epsilon:g}", stated.source("epsilon")),
    ]
    if found.padded():
        where = "on both sides evenly" if conventions.padding == "even" else "at the end"
        facts.append(
            Assumption(
                "shortcuts without parameters",
                f"every second pixel, zero channels {where}",
                stated.source("padding"),
            )
        )
    return tuple(facts)


ADAPTER = Resnet()
