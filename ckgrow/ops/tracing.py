"""What a rule sees, and says, while labels are led through a graph (``ckgrow.labels``)."""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from ckgrow.graph import Node
from ckgrow.labels import Labels
from ckgrow.ops.rule import Site


@dataclass(frozen=True)
class Linear:
    """A layer as a sum over its columns: y[r] = sum of W[r, j] x[j], shifted, plus a bias.

    ``columns`` are the labels of what it reads, "channels"; in ``groups`` equal runs, the rows
    likewise. ``rows`` is the dimension of the weight that makes outputs, ``width`` their number.
    ``taps`` has for each spatial dimension the offsets at which the input is read, from the place
    that an output stands at; ``steps`` are the strides, ``sizes`` those of a map before and
    behind. ``factors`` multiply the weight and the bias.
    """

    node: Node
    weight: str
    bias: str
    columns: np.ndarray
    rows: int
    width: int
    groups: int = 1
    taps: tuple[tuple[int, ...], ...] = ()
    steps: tuple[int, ...] = ()
    sizes: tuple[tuple[int | str, ...], tuple[int | str, ...]] = ((), ())
    factors: tuple[float, float] = (1.0, 1.0)


class Tracing(Protocol):
    """The graph that is walked: labels of a node's inputs, and the laws of what has weights."""

    table: Labels

    def labels(self, index: int) -> np.ndarray:
        """Labels of an input: a value, a constant, or a parameter that a layer does not own."""
        ...

    def is_parameter(self, index: int) -> bool:
        """Whether an input is a tensor of the checkpoint."""
        ...

    def layer(self, linear: Linear) -> np.ndarray:
        """The labels of a layer's outputs, "rows"."""
        ...

    def follow(self, site: Site, index: int, dim: int, tensors: tuple[int, ...]) -> np.ndarray:
        """Labels behind an op that treats every channel of input ``index`` by itself.

        Channels stand along ``dim``; each has its own entries in the inputs ``tensors``.
        """
        ...

    def added(self, site: Site, first: np.ndarray, second: np.ndarray) -> np.ndarray:
        """The labels of a sum."""
        ...

    def opaque(self, site: Site) -> tuple[np.ndarray, ...]:
        """Labels of the outputs of an op that is only known to be a function of its inputs."""
        ...


def signature(site: Site) -> Hashable:
    """What makes two nodes the same function of their values: op, attributes, constants."""
    constants = tuple(
        (index, constant.shape, constant.values)
        for index, constant in enumerate(site.constants)
        if constant is not None
    )
    return site.node.op, tuple(sorted(site.node.attributes.items())), constants


def inside_channels(
    site: Site,
    tracing: Tracing,
    dims: Iterable[int],
    *,
    value: int = 0,
    homogeneous: bool,
    keeps_zero: bool,
) -> tuple[np.ndarray, ...]:
    """Labels behind a function of one input that works along ``dims``, and on others alike.

    It is another function of a value of another rank: attributes count dimensions from the front.
    """
    labels = tracing.labels(value)
    if any(labels.shape[dim] != 1 for dim in dims):
        return tracing.opaque(site)
    made = tracing.table.applied(
        (signature(site), labels.ndim), labels, homogeneous=homogeneous, keeps_zero=keeps_zero
    )
    return (made,)
