"""A network described once, as a sequence of layers; whoever reads it decides what it is for.

An architecture with branches writes its layout with these dataclasses. The description is read
twice: against a header, to say which keys have a place and which shapes do not fit
(``_explaining``), and with a builder, to make the graph (``_emitting``). It holds module paths and
conventions (strides, windows, epsilon), never a width: those stand in the checkpoint.

``path`` is a module path where the layer has parameters, and the node's name otherwise.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Convolution:
    """``path.weight`` of shape "out in/group height width", and perhaps ``path.bias``.

    The kernel is read off the weight. ``padded`` keeps the map's size at stride 1 (padding
    kernel // 2 per axis). Only a ``grouped`` one may read fewer channels than arrive.
    """

    path: str
    stride: int = 1
    padded: bool = True
    grouped: bool = False


@dataclass(frozen=True)
class Normalization:
    """A BatchNorm with torch's four tensors; ``num_batches_tracked`` is explained, not read."""

    path: str
    epsilon: float


@dataclass(frozen=True)
class Relu:
    """max(0, x)."""

    path: str


@dataclass(frozen=True)
class Dropout:
    """Nothing, in eval mode."""

    path: str


@dataclass(frozen=True)
class Pool:
    """A square pooling window. Averages count the padding, as torch does by default."""

    path: str
    op: Literal["MaxPool", "AveragePool"]
    kernel: int
    stride: int
    padding: int = 0
    ceil: bool = False


@dataclass(frozen=True)
class AdaptiveAverage:
    """Average pooling to a map of ``size`` x ``size``."""

    path: str
    size: int


@dataclass(frozen=True)
class Flatten:
    """Channels and space become one axis; ``positions`` is how much space there is."""

    path: str
    positions: int = 1
    output: str = ""


@dataclass(frozen=True)
class Linear:
    """``path.weight`` of shape "out in", and perhaps ``path.bias``."""

    path: str
    output: str = ""


@dataclass(frozen=True)
class Rescale:
    """Channel c becomes ``scale[c] * x + shift[c]``: constants of the network, no tensors."""

    path: str
    scale: tuple[float, ...]
    shift: tuple[float, ...]


@dataclass(frozen=True)
class Subsample:
    """Every ``stride``-th row and column, from the first on."""

    path: str
    stride: int


@dataclass(frozen=True)
class PadChannels:
    """Zero channels, so that there are as many as ``like`` has rows: half on either side.

    ``at_end`` puts them all behind.
    """

    path: str
    like: str
    at_end: bool = False


@dataclass(frozen=True)
class Concatenation:
    """Branches that read the same value, side by side on the channel axis."""

    path: str
    branches: tuple[tuple[Layer, ...], ...]


@dataclass(frozen=True)
class Residual:
    """The sum of two branches that read the same value; an empty one is the value itself."""

    path: str
    branch: tuple[Layer, ...]
    shortcut: tuple[Layer, ...]


@dataclass(frozen=True)
class Aside:
    """A head that hangs on the value and is an output of its own; the value goes on unchanged."""

    layers: tuple[Layer, ...]


Layer = (
    Convolution
    | Normalization
    | Relu
    | Dropout
    | Pool
    | AdaptiveAverage
    | Flatten
    | Linear
    | Rescale
    | Subsample
    | PadChannels
    | Concatenation
    | Residual
    | Aside
)
