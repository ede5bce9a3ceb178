"""Reads a described network against a header: which keys have a place, and what does not fit."""

from __future__ import annotations

from collections.abc import Sequence
from typing import assert_never

from ckgrow.architecture import Explanation
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

BATCH_NORM = ("weight", "bias", "running_mean", "running_var")
COUNTER = "num_batches_tracked"


def explanation(header: Header, layers: Sequence[Layer]) -> Explanation:
    """What of ``header`` the description explains. Never raises."""
    reading = _Reading(header)
    reading.sequence(layers, None)
    return Explanation(
        explained=frozenset(reading.explained),
        unexplained=tuple(name for name in header if name not in reading.explained),
        missing=tuple(dict.fromkeys(reading.missing)),
        problems=tuple(reading.problems),
    )


class _Reading:
    """One walk. Channels are None where a missing tensor leaves their number unknown."""

    def __init__(self, header: Header) -> None:
        self.explained: set[str] = set()
        self.missing: list[str] = []
        self.problems: list[str] = []
        self._header = header

    def sequence(self, layers: Sequence[Layer], channels: int | None) -> int | None:
        """The channels behind the last layer."""
        for layer in layers:
            channels = self._layer(layer, channels)
        return channels

    def _layer(self, layer: Layer, channels: int | None) -> int | None:
        match layer:
            case Relu() | Dropout() | Pool() | AdaptiveAverage() | Subsample() | Rescale():
                return channels
            case Convolution():
                return self._convolution(layer, channels)
            case Normalization():
                for part in BATCH_NORM:
                    self._channelwise(f"{layer.path}.{part}", channels)
                self._count(f"{layer.path}.{COUNTER}")
                return channels
            case Linear():
                return self._linear(layer, channels)
            case Flatten():
                return None if channels is None else channels * layer.positions
            case PadChannels():
                return self._padded(layer, channels)
            case Concatenation():
                parts = [self.sequence(branch, channels) for branch in layer.branches]
                known = [part for part in parts if part is not None]
                return sum(known) if len(known) == len(parts) else None
            case Residual():
                return self._sum(layer, channels)
            case Aside():
                self.sequence(layer.layers, channels)
                return channels
        assert_never(layer)

    def _convolution(self, layer: Convolution, channels: int | None) -> int | None:
        name = f"{layer.path}.weight"
        weight = self._tensor(name, 4)
        if weight is None:
            return None
        self._bias(layer.path, weight[0])
        if channels is not None and channels != weight[1]:
            if not layer.grouped:
                self.problems.append(
                    f"{name} has {weight[1]} input channels, but {channels} arrive"
                )
            elif channels % weight[1] or weight[0] % (channels // weight[1]):
                self.problems.append(
                    f"{name} of shape {list(weight)} divides the {channels} channels that arrive "
                    "into no whole number of groups"
                )
        return weight[0]

    def _linear(self, layer: Linear, channels: int | None) -> int | None:
        name = f"{layer.path}.weight"
        weight = self._tensor(name, 2)
        if weight is None:
            return None
        self._bias(layer.path, weight[0])
        if channels is not None and channels != weight[1]:
            self.problems.append(f"{name} has {weight[1]} inputs, but {channels} arrive")
        return weight[0]

    def _padded(self, layer: PadChannels, channels: int | None) -> int | None:
        if channels is None or layer.like not in self._header:
            return None
        wanted = (*self._header.shape(layer.like), 0)[0]
        if wanted <= channels:
            self.problems.append(
                f"{layer.path}: a shortcut without parameters cannot bring {channels} channels "
                f"to the {wanted} of {layer.like}"
            )
        return wanted

    def _sum(self, layer: Residual, channels: int | None) -> int | None:
        made = self.sequence(layer.branch, channels)
        kept = self.sequence(layer.shortcut, channels)
        if made is not None and kept is not None and made != kept:
            self.problems.append(
                f"{layer.path}: the branch makes {made} channels, the shortcut {kept}"
            )
        return made

    def _bias(self, path: str, rows: int) -> None:
        if f"{path}.bias" in self._header:
            self._channelwise(f"{path}.bias", rows)

    def _channelwise(self, name: str, channels: int | None) -> None:
        shape = self._tensor(name, 1)
        if shape is not None and channels is not None and shape != (channels,):
            self.problems.append(f"{name} has {shape[0]} entries for {channels} channels")

    def _count(self, name: str) -> None:
        if name in self._header:
            self.explained.add(name)

    def _tensor(self, name: str, rank: int) -> tuple[int, ...] | None:
        """The shape of a tensor that must be there; None when it is absent or unusable."""
        spec = self._header.get(name)
        if spec is None:
            self.missing.append(name)
            return None
        self.explained.add(name)
        if len(spec.shape) != rank:
            self.problems.append(f"{name} has shape {list(spec.shape)}, not {rank} dimensions")
        elif not spec.size:
            self.problems.append(f"{name} of shape {list(spec.shape)} is empty")
        elif not spec.is_number:
            self.problems.append(f"{name} is {spec.dtype}, not a floating point tensor")
        else:
            return spec.shape
        return None
