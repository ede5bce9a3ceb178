"""Random numbers that can be drawn at any place, in any order, by any worker.

A stream is keyed by what it is for (seed, step, tensor). Its numbers are mapped from raw Philox
words here, because a library's distributions may change with its version.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace

import numpy as np

_WORDS_PER_COUNT = 4


class Stream:
    """An endless row of random numbers; ``start`` and ``count`` address any part of it."""

    def __init__(self, *key: object) -> None:
        digest = hashlib.blake2b(repr(key).encode(), digest_size=16).digest()
        self._key = np.frombuffer(digest, dtype=np.uint64)

    def uniform(self, start: int, count: int) -> np.ndarray:
        """``count`` numbers in (0, 1), 53 bits each, from position ``start`` on."""
        first, skipped = divmod(start, _WORDS_PER_COUNT)
        words = np.random.Philox(key=self._key, counter=first).random_raw(skipped + count)
        return ((words[skipped:] >> np.uint64(11)).astype(np.float64) + 0.5) * 2.0**-53

    def uniform_rows(self, rows: np.ndarray, length: int) -> np.ndarray:
        """Rows of an endless table "row length", for any row numbers; shape (len(rows), length)."""
        drawn = np.empty((len(rows), length))
        for start, stop, first in contiguous(rows):
            count = stop - start
            drawn[start:stop] = self.uniform(first * length, count * length).reshape(count, length)
        return drawn

    def normal_rows(self, rows: np.ndarray, length: int) -> np.ndarray:
        """As :meth:`uniform_rows`, standard normal, by Box and Muller's transform."""
        u = self.uniform_rows(rows, 2 * length)
        return np.sqrt(-2.0 * np.log(u[:, :length])) * np.cos(2.0 * np.pi * u[:, length:])

    def choose(self, population: int, count: int) -> np.ndarray:
        """``count`` different numbers below ``population``, ascending."""
        return np.sort(np.argsort(self.uniform(0, population), kind="stable")[:count])

    def integers(self, below: int, count: int) -> np.ndarray:
        """``count`` independent numbers below ``below``."""
        return np.minimum((self.uniform(0, count) * below).astype(np.int64), below - 1)


def even_choice(population: int, count: int, stream: Stream) -> np.ndarray:
    """``count`` numbers below ``population``, each as often as any other: whole rounds, then a
    choice without repetition."""
    rounds, rest = divmod(count, population)
    whole = np.tile(np.arange(population), rounds)
    return np.concatenate([whole, stream.choose(population, rest)])


@dataclass(frozen=True)
class Draw:
    """Where randomness of one step comes from; ``parts`` tells the parts of a step apart."""

    seed: int
    step: int
    parts: tuple[int, ...] = ()

    def part(self, number: int) -> Draw:
        """Independent randomness for one part of the step."""
        return replace(self, parts=(*self.parts, number))

    def stream(self, *purpose: object) -> Stream:
        """The stream for one purpose (a tensor, a group, ...)."""
        return Stream(self.seed, self.step, *self.parts, *purpose)


def contiguous(rows: np.ndarray) -> list[tuple[int, int, int]]:
    """Runs of consecutive row numbers as (start, stop, first row) over positions in ``rows``."""
    if not len(rows):
        return []
    breaks = np.flatnonzero(np.diff(rows) != 1) + 1
    starts = [0, *breaks.tolist()]
    stops = [*breaks.tolist(), len(rows)]
    return [(start, stop, int(rows[start])) for start, stop in zip(starts, stops, strict=True)]
