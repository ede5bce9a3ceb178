"""The channels of a map that were copied, sorted by how often; and taking channels quickly."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ckgrow.maps import ChannelMap


@dataclass(frozen=True, eq=False)
class Family:
    """Teacher channels with equally many copies.

    ``sources`` are these channels, ascending; ``places`` "copy source" the student channels that
    copy them, in order. ``before`` counts the channels of the families before.
    """

    sources: np.ndarray
    places: np.ndarray
    before: int

    @property
    def copies(self) -> int:
        """How many copies each of the channels has, two or more."""
        return len(self.places)


def families(grown: ChannelMap) -> tuple[Family, ...]:
    """Of all channels with several copies, by the number of copies."""
    members = np.flatnonzero(grown.sources >= 0)
    members = members[grown.counts[grown.sources[members]] > 1]
    order = np.lexsort((grown.sources[members], grown.ranks[members]))
    members = members[order]  # copy by copy, each in the order of sources
    counts = grown.counts[grown.sources[members]]
    found: list[Family] = []
    before = 0
    for count in np.unique(counts).tolist():
        places = members[counts == count].reshape(count, -1)
        found.append(Family(grown.sources[places[0]], places, before))
        before += places.shape[1]
    return tuple(found)


def selection(index: np.ndarray) -> Any:
    """``index`` as a slice where its entries rise by one: a slice is many times faster."""
    if len(index) and index[-1] - index[0] == len(index) - 1 and (np.diff(index) == 1).all():
        return slice(int(index[0]), int(index[-1]) + 1)
    return index


def taken(array: np.ndarray, index: np.ndarray, axis: int) -> np.ndarray:
    """Entries ``index`` of an axis, none of them negative; a view where they are neighbours."""
    chosen = selection(index)
    if isinstance(chosen, slice):
        return array[(slice(None),) * axis + (chosen,)]
    return as_bits(array).take(index, axis=axis).view(array.dtype)


@dataclass(frozen=True, eq=False)
class Layout:
    """How the channels of a map are copied: the first ``head`` as a whole, then ``rest``.

    Maps begin with the teacher's channels as they stand. Other channels are left as they come.
    """

    sources: np.ndarray
    head: int
    rest: np.ndarray

    @staticmethod
    def of(grown: ChannelMap, others: Sequence[Family] = ()) -> Layout:
        """Of all channels but those of ``others`` that stand behind the head."""
        breaks = np.flatnonzero(np.diff(grown.sources) != 1)
        head = int(breaks[0]) + 1 if len(breaks) else len(grown)
        is_left = np.arange(len(grown)) < head
        for family in others:
            is_left[family.places] = True
        return Layout(grown.sources, head, np.flatnonzero(~is_left))

    def copied(self, whole: np.ndarray, axis: int) -> np.ndarray:
        """The copies of an axis of ``whole``, in an array of their own."""
        shape = (*whole.shape[:axis], len(self.sources), *whole.shape[axis + 1 :])
        made = np.empty(shape, whole.dtype)
        into, out = (np.moveaxis(as_bits(each), axis, 0) for each in (made, whole))
        if self.head:
            into[: self.head] = out[self.sources[0] : self.sources[0] + self.head]
        if len(self.rest):
            entries = as_bits(whole).take(self.sources[self.rest], axis=axis)
            into[selection(self.rest)] = np.moveaxis(entries, axis, 0)
        return made


def as_bits(array: np.ndarray) -> np.ndarray:
    """The same memory as whole numbers, which numpy moves faster than the dtypes of ml_dtypes."""
    return array.view(f"u{array.itemsize}") if array.dtype.kind == "V" else array
