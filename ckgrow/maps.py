"""Where each student channel comes from.

Every student channel has a *source*: ``copy(i)``, the teacher's channel i; ``fresh(k)``, the new
unit k; or ``zero``, identically zero. Channels with one source are equal for every input. A map
stores sources as whole numbers: i for ``copy(i)``, -1 for ``zero``, -2 - k for ``fresh(k)``.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np

ZERO = -1
_FIRST_FRESH = -2


def fresh(units: Iterable[int] | np.ndarray) -> np.ndarray:
    """The encoded sources ``fresh(k)`` of units k."""
    return _FIRST_FRESH - np.asarray(units, dtype=np.int64)


_MOST_CODED = 1 << 24

Run = tuple[str, int, int]


@dataclass(frozen=True, eq=False)
class ChannelMap:
    """Sources of student channels. ``width`` is the teacher's; ``sources`` has the student's."""

    width: int
    sources: np.ndarray

    @staticmethod
    @lru_cache(maxsize=64)
    def identity(width: int) -> ChannelMap:
        """Every channel from itself; layers of one width share it."""
        sources = np.arange(width, dtype=np.int64)
        sources.flags.writeable = False
        return ChannelMap(width, sources)

    @staticmethod
    def with_fresh(width: int, count: int) -> ChannelMap:
        """Every channel from itself, then ``count`` fresh units."""
        return ChannelMap(width, np.concatenate([np.arange(width), fresh(np.arange(count))]))

    @staticmethod
    def of(width: int, sources: Iterable[int]) -> ChannelMap:
        """A map from encoded sources; ValueError when a copy is of no teacher channel."""
        array = np.fromiter(sources, dtype=np.int64)
        if array.size and array.max() >= width:
            raise ValueError(f"source {array.max()} of a teacher with {width} channels")
        return ChannelMap(width, array)

    @staticmethod
    def concat(maps: Sequence[ChannelMap]) -> ChannelMap:
        """Maps of neighbouring segments as one map of the whole axis."""
        if len(maps) == 1:
            return maps[0]
        parts: list[np.ndarray] = []
        width = fresh = 0
        for each in maps:
            parts.append(each._shifted(width, fresh))
            width += each.width
            fresh += each.fresh_count
        return ChannelMap(width, np.concatenate(parts) if parts else np.empty(0, np.int64))

    def __len__(self) -> int:
        return len(self.sources)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, ChannelMap):
            return NotImplemented
        return self.width == other.width and np.array_equal(self.sources, other.sources)

    def __hash__(self) -> int:
        return hash((self.width, self.sources.tobytes()))

    @property
    def is_identity(self) -> bool:
        """Whether nothing changes."""
        return len(self) == self.width and bool((self.sources == np.arange(self.width)).all())

    @cached_property
    def fresh_count(self) -> int:
        """Number of fresh units: one more than the highest k."""
        lowest = int(self.sources.min(initial=ZERO))
        return max(0, _FIRST_FRESH - lowest + 1)

    @property
    def fresh_units(self) -> np.ndarray:
        """For each student channel the k of ``fresh(k)``, -1 for other sources."""
        return np.where(self.sources <= _FIRST_FRESH, _FIRST_FRESH - self.sources, -1)

    @property
    def has_zeros(self) -> bool:
        """Whether any channel is identically zero."""
        return bool((self.sources == ZERO).any())

    def with_zeros_as_fresh(self) -> ChannelMap:
        """The map with a fresh unit of its own for every channel that was zero."""
        zeros = np.flatnonzero(self.sources == ZERO)
        sources = self.sources.copy()
        sources[zeros] = _FIRST_FRESH - self.fresh_count - np.arange(len(zeros))
        return ChannelMap(self.width, sources)

    @property
    def has_copies(self) -> bool:
        """Whether any teacher channel stands several times."""
        return bool((self.counts > 1).any())

    @property
    def counts(self) -> np.ndarray:
        """How often each teacher channel is copied; shape (width,)."""
        return np.bincount(self.sources[self.sources >= 0], minlength=self.width)

    @cached_property
    def ranks(self) -> np.ndarray:
        """For each student channel, how many channels of the same source stand before it."""
        order = np.argsort(self.sources, kind="stable")
        ordered = self.sources[order]
        starts = np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]]) if len(self) else order
        sizes = np.diff(np.r_[starts, len(self)])
        ranks = np.empty(len(self), dtype=np.int64)
        ranks[order] = np.arange(len(self)) - np.repeat(starts, sizes)
        return ranks

    def repeat(self, inner: int) -> ChannelMap:
        """The map of an axis on which every channel stands ``inner`` times in a row."""
        if inner == 1:
            return self
        places = np.arange(inner)
        copies = self.sources[:, None] * inner + places
        fresh = _FIRST_FRESH - ((_FIRST_FRESH - self.sources[:, None]) * inner + places)
        sources = np.where(self.sources[:, None] >= 0, copies, fresh)
        sources[self.sources == ZERO] = ZERO
        return ChannelMap(self.width * inner, sources.ravel())

    def then(self, later: ChannelMap) -> ChannelMap:
        """This growth followed by ``later``, as one map from the first teacher."""
        if later.width != len(self):
            raise ValueError(f"a map of {later.width} channels cannot follow one onto {len(self)}")
        if self.is_identity:
            return later
        sources = np.where(later.sources <= _FIRST_FRESH, later.sources - self.fresh_count, ZERO)
        copied = later.sources >= 0
        sources[copied] = self.sources[later.sources[copied]]
        return ChannelMap(self.width, sources)

    def runs(self) -> list[Run]:
        """Run-length code: ("copy" | "fresh" | "zero", first, count), first rising by one."""
        sources = self.sources
        if not len(sources):
            return []
        # within a run copies rise by one, fresh units too (whose codes fall), and zeros stay
        kinds = np.sign(sources - ZERO)
        goes_on = (np.diff(sources) == kinds[1:]) & (np.diff(kinds) == 0)
        bounds = np.concatenate([[0], np.flatnonzero(~goes_on) + 1, [len(sources)]])
        starts, counts = bounds[:-1], np.diff(bounds)
        runs: list[Run] = []
        for source, count in zip(sources[starts].tolist(), counts.tolist(), strict=True):
            if source >= 0:
                runs.append(("copy", source, count))
            elif source == ZERO:
                runs.append(("zero", 0, count))
            else:
                runs.append(("fresh", _FIRST_FRESH - source, count))
        return runs

    @staticmethod
    def from_runs(width: int, runs: Iterable[Sequence[str | int]]) -> ChannelMap:
        """The map that :meth:`runs` coded; ValueError when the code is not one."""
        runs = [(kind, first, count) for kind, first, count in runs]
        if not 0 <= sum(int(count) for _, _, count in runs) <= _MOST_CODED:
            raise ValueError("a map of more channels than any network has")
        parts: list[np.ndarray] = []
        for kind, first, count in runs:
            places = np.arange(int(count), dtype=np.int64)
            if kind == "copy":
                parts.append(int(first) + places)
            elif kind == "fresh":
                parts.append(_FIRST_FRESH - int(first) - places)
            elif kind == "zero":
                parts.append(np.full(int(count), ZERO, dtype=np.int64))
            else:
                raise ValueError(f"unknown source {kind!r}")
        return ChannelMap.of(width, np.concatenate(parts) if parts else ())

    def _shifted(self, width: int, fresh: int) -> np.ndarray:
        moved = np.where(self.sources >= 0, self.sources + width, self.sources - fresh)
        moved[self.sources == ZERO] = ZERO
        return moved
