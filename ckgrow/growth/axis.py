"""What a widening method is told: an axis before and after, and the tensor it stands on."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from ckgrow.graph import Node
from ckgrow.maps import ChannelMap
from ckgrow.random import Draw, Stream

if TYPE_CHECKING:
    from ckgrow.spec import WidenStep


@dataclass(frozen=True, eq=False)
class Part:
    """One segment of a grown axis: ``map`` over its channels, each standing ``inner`` times.

    ``models`` has for each student channel a teacher's channel that it may imitate, the same one
    for all channels of one source: the source itself where it is a copy.
    """

    label: str
    inner: int
    map: ChannelMap
    models: np.ndarray

    @staticmethod
    def unchanged(width: int, inner: int) -> Part:
        """A segment that does not grow."""
        return Part("", inner, ChannelMap.identity(width), np.arange(width))


@dataclass(frozen=True, eq=False)
class GrownAxis:
    """An axis before and after, segment by segment."""

    parts: tuple[Part, ...]

    @cached_property
    def map(self) -> ChannelMap:
        """The map over the entries of the whole axis."""
        return ChannelMap.concat([part.map.repeat(part.inner) for part in self.parts])

    @cached_property
    def models(self) -> np.ndarray:
        """The models over the entries of the whole axis."""
        found = [np.empty(0, np.int64)]
        before = 0
        for part in self.parts:
            entries = part.models[:, None] * part.inner + np.arange(part.inner)
            found.append(before + entries.ravel())
            before += part.map.width * part.inner
        # what grows from no channels at the end of the axis imitates the entry before it
        return np.minimum(np.concatenate(found), max(before - 1, 0))

    @cached_property
    def fresh_models(self) -> np.ndarray:
        """The model of each fresh unit of :attr:`map`."""
        units = self.map.fresh_units
        found = np.zeros(self.map.fresh_count, np.int64)
        found[units[units >= 0]] = self.models[units >= 0]
        return found


@dataclass(frozen=True)
class Growing:
    """One dimension of one tensor while a step widens it.

    ``node`` is a node that reads the tensor. ``rows`` is the grown axis of the rows of a weight
    whose columns are rewritten, None when its rows do not grow.
    """

    tensor: str
    dim: int
    node: Node
    draw: Draw
    step: WidenStep
    rows: GrownAxis | None = None

    @property
    def position(self) -> int:
        """Which input of the node the tensor is."""
        return self.node.inputs.index(self.tensor)

    def stream(self, purpose: str) -> Stream:
        """Random numbers for one purpose, this dimension's own: both may grow in one step."""
        return self.draw.stream(purpose, self.dim, self.tensor)
