"""Makes the graph of a described network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import assert_never

from ckgrow.building import Builder
from ckgrow.errors import CheckpointError, GraphError, SpecError
from ckgrow.graph import BATCH, Graph
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
    PadChannels,
    Pool,
    Relu,
    Rescale,
    Residual,
    Subsample,
)

INPUT = "input"


def emit(
    header: Header, layers: Sequence[Layer], size: tuple[int, ...], options: Mapping[str, object]
) -> Graph:
    """The graph for an input of ``size`` (channels, height, width).

    Its outputs are what the last layer makes, then the results of the asides in order.
    Raises CheckpointError when shapes do not fit, SpecError when a stated input is to blame.
    """
    emission = _Emission(header, Builder(header, {INPUT: (BATCH, *size)}))
    try:
        last = emission.sequence(layers, INPUT)
    except GraphError as failure:
        if INPUT in options:
            raise SpecError(f"option 'input' {list(size)}: {failure}") from failure
        raise
    return emission.builder.graph(last, *emission.asides)


class _Emission:
    """One walk; every value is the name that the builder gave it."""

    def __init__(self, header: Header, builder: Builder) -> None:
        self.builder = builder
        self.asides: list[str] = []
        self._header = header

    def sequence(self, layers: Sequence[Layer], x: str) -> str:
        """The value behind the last layer."""
        for layer in layers:
            x = self._layer(layer, x)
        return x

    def _layer(self, layer: Layer, x: str) -> str:
        builder = self.builder
        match layer:
            case Convolution():
                kernel = self._header.shape(f"{layer.path}.weight")[2:]
                padding = tuple(side // 2 for side in kernel) if layer.padded else 0
                return builder.conv(layer.path, x, stride=layer.stride, padding=padding)
            case Normalization():
                return builder.batch_norm(layer.path, x, epsilon=layer.epsilon)
            case Relu():
                return builder.node("Relu", layer.path, [x])
            case Dropout():
                return builder.node("Dropout", layer.path, [x])
            case Pool():
                return self._pool(layer, x)
            case AdaptiveAverage():
                return builder.adaptive_average_pool(layer.path, x, (layer.size, layer.size))
            case Flatten():
                return builder.node("Flatten", layer.path, [x], output=layer.output, axis=1)
            case Linear():
                return builder.linear(layer.path, x, output=layer.output)
            case Rescale():
                return self._rescale(layer, x)
            case Subsample():
                return self._subsample(layer, x)
            case PadChannels():
                return self._pad_channels(layer, x)
            case Concatenation():
                parts = [self.sequence(branch, x) for branch in layer.branches]
                return builder.node("Concat", layer.path, parts, axis=1)
            case Residual():
                branch, shortcut = self.sequence(layer.branch, x), self.sequence(layer.shortcut, x)
                return builder.node("Add", layer.path, [branch, shortcut])
            case Aside():
                self.asides.append(self.sequence(layer.layers, x))
                return x
        assert_never(layer)

    def _pool(self, layer: Pool, x: str) -> str:
        attributes: dict[str, int] = {"ceil_mode": 1} if layer.ceil else {}
        if layer.op == "AveragePool":
            attributes["count_include_pad"] = 1
        return self.builder.pool(
            layer.op,
            layer.path,
            x,
            layer.kernel,
            stride=layer.stride,
            padding=layer.padding,
            **attributes,
        )

    def _rescale(self, layer: Rescale, x: str) -> str:
        def per_channel(name: str, values: Sequence[float]) -> str:
            columns = [[[value]] for value in values]
            return self.builder.constant(f"{layer.path}/{name}", [columns], "float64")

        scaled = self.builder.node(
            "Mul", f"{layer.path}/scaled", [x, per_channel("scale", layer.scale)]
        )
        shift = per_channel("shift", layer.shift)
        return self.builder.node("Add", layer.path, [scaled, shift])

    def _subsample(self, layer: Subsample, x: str) -> str:
        sizes = [int(side) for side in self.builder.shape(x)[2:]]
        entries = {
            "starts": [0, 0],
            "ends": sizes,
            "axes": [2, 3],
            "steps": [layer.stride, layer.stride],
        }
        constants = [
            self.builder.constant(f"{layer.path}/{name}", values)
            for name, values in entries.items()
        ]
        return self.builder.node("Slice", layer.path, [x, *constants])

    def _pad_channels(self, layer: PadChannels, x: str) -> str:
        added = self._header.shape(layer.like)[0] - int(self.builder.shape(x)[1])
        if added % 2 and not layer.at_end:
            raise CheckpointError(
                f"{layer.path}: {added} zero channels cannot be split evenly over both sides; "
                "if they stand behind, state the option padding: end"
            )
        before = 0 if layer.at_end else added // 2
        pads = [0, before, 0, 0, 0, added - before, 0, 0]
        return self.builder.node(
            "Pad", layer.path, [x, self.builder.constant(f"{layer.path}/pads", pads)]
        )
