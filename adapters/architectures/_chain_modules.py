"""The modules of a plain chain, read off a header: layers with weights, and BatchNorms."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field

from ckgrow.header import Header, TensorSpec
from ckgrow.names import shown

NORM_PARTS = ("weight", "bias", "running_mean", "running_var")
COUNTER = "num_batches_tracked"


@dataclass(frozen=True)
class Layer:
    """A Linear ("out in") or a Conv ("out in/group height width").

    ``pieces`` is the size of the maxout units behind it, 1 where there are none.
    """

    name: str
    shape: tuple[int, ...]
    pieces: int = 1

    @property
    def is_conv(self) -> bool:
        """Whether it works on maps."""
        return len(self.shape) == 4

    @property
    def outputs(self) -> int:
        """Channels it makes."""
        return self.shape[0]

    @property
    def passed(self) -> int:
        """Channels that reach the next layer."""
        return self.outputs // self.pieces

    @property
    def inputs(self) -> int:
        """Channels it reads; for a grouped convolution those of one group."""
        return self.shape[1]

    def reads(self, channels: int) -> bool:
        """Whether it fits behind ``channels`` channels, in groups if it is a convolution."""
        if not self.is_conv:
            return channels == self.inputs
        groups, rest = divmod(channels, self.inputs)
        return not rest and groups > 0 and self.outputs % groups == 0


@dataclass(frozen=True)
class Norm:
    """A BatchNorm with scale, shift and running statistics."""

    name: str
    channels: int


@dataclass
class Modules:
    """What of a header belongs to a layer or a BatchNorm, and what is wrong with it."""

    layers: list[Layer] = field(default_factory=list)
    norms: list[Norm] = field(default_factory=list)
    explained: set[str] = field(default_factory=set)
    missing: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    passthrough: list[str] = field(default_factory=list)


def modules(header: Header, ranks: Collection[int]) -> Modules:
    """Layers whose weights have one of ``ranks`` dimensions, and BatchNorms. Never raises."""
    found = Modules()
    loose: list[str] = []
    for key, spec in header.items():
        name, _, part = key.rpartition(".")
        if not name:
            continue
        if part == "running_mean" and len(spec.shape) == 1:
            _norm(found, header, name, spec.shape[0])
        elif part == "weight" and f"{name}.running_mean" not in header and spec.is_number:
            if len(spec.shape) in ranks and spec.size:
                _layer(found, header, name, spec.shape)
            elif len(spec.shape) == 1 and f"{name}.bias" in header:
                loose.append(name)
    if loose and found.layers:
        more = f" (and {len(loose) - 1} more)" if len(loose) > 1 else ""
        found.problems.append(
            f"{shown(loose[0])}{more} scales and shifts without running statistics: LayerNorm, or "
            "BatchNorm with track_running_stats=False; only BatchNorm with its statistics fits here"
        )
    return found


def _layer(found: Modules, header: Header, name: str, shape: tuple[int, ...]) -> None:
    found.layers.append(Layer(name, shape))
    found.explained.add(f"{name}.weight")
    bias = header.get(f"{name}.bias")
    if bias is None:
        return
    found.explained.add(f"{name}.bias")
    _require_number(found, f"{name}.bias", bias)
    if bias.shape != shape[:1]:
        found.problems.append(
            f"{shown(f'{name}.bias')} has shape {list(bias.shape)}, but "
            f"{shown(f'{name}.weight')} makes {shape[0]} channels"
        )


def _norm(found: Modules, header: Header, name: str, channels: int) -> None:
    found.norms.append(Norm(name, channels))
    if f"{name}.weight" not in header and f"{name}.bias" not in header:
        found.problems.append(
            f"{shown(name)} has statistics but no weight and bias (BatchNorm with affine=False): "
            "give it a weight of ones and a bias of zeros"
        )
    for part in NORM_PARTS:
        key = f"{name}.{part}"
        if key not in header:
            found.missing.append(key)
            continue
        found.explained.add(key)
        _require_number(found, key, header[key])
        if header.shape(key) != (channels,):
            found.problems.append(
                f"{shown(key)} has shape {list(header.shape(key))} for {channels} channels"
            )
    if f"{name}.{COUNTER}" in header:
        found.explained.add(f"{name}.{COUNTER}")
        found.passthrough.append(f"{name}.{COUNTER}")


def _require_number(found: Modules, key: str, spec: TensorSpec) -> None:
    if not spec.is_number:
        found.problems.append(f"{shown(key)} is {spec.dtype}, not a floating point tensor")
