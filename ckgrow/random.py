"""Random numbers that can be drawn at any place, in any order, by any worker.

A stream is keyed by what it is for (seed, step, tensor). Its numbers are mapped from raw Philox
words here, because a library's distributions may change with its version.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace

import numpy as np

_WORDS_PER_COUNT = 4
_SHORTS_PER_COUNT = 16
_PAIRS_PER_COUNT = 4
_WORDS_IN_VAIN = 1 << 12


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
        for start, stop, first, last in clusters(rows):
            whole = self.uniform(first * length, (last + 1 - first) * length)
            drawn[start:stop] = whole.reshape(last + 1 - first, length)[rows[start:stop] - first]
        return drawn

    def normal_rows(self, rows: np.ndarray, length: int) -> np.ndarray:
        """As :meth:`uniform_rows`, standard normal, by Box and Muller's transform."""
        u = self.uniform_rows(rows, 2 * length)
        return np.sqrt(-2.0 * np.log(u[:, :length])) * np.cos(2.0 * np.pi * u[:, length:])

    def fractions(self, rows: np.ndarray, length: int, start: int, stop: int) -> np.ndarray:
        """Columns ``start`` to ``stop`` of rows of an endless table "row length", in float32.

        Numbers in (0, 1), 16 bits each, for what needs many and not fine ones. Each row begins
        with words of its own, so any part of it can be drawn alone.
        """
        words = self._row_words(rows, length, start, stop, _SHORTS_PER_COUNT)
        skipped = start % _SHORTS_PER_COUNT
        shorts = words.view(np.uint16)[:, skipped : skipped + stop - start]
        drawn = shorts.astype(np.float32)
        drawn += np.float32(0.5)
        drawn *= np.float32(2.0**-16)
        return drawn

    def normals(self, rows: np.ndarray, length: int, start: int, stop: int) -> np.ndarray:
        """As :meth:`fractions`, standard normal: both halves of Box and Muller's transform.

        Each word makes two of them, from 32 bits for the radius and 32 for the angle.
        """
        first = start - start % 2
        words = self._row_words(rows, length, first, stop, 2 * _PAIRS_PER_COUNT)
        radius = _unit(words >> np.uint64(32))
        np.log(radius, out=radius)
        radius *= np.float32(-2.0)
        np.sqrt(radius, out=radius)
        words &= np.uint64(0xFFFF_FFFF)
        angle = _unit(words)
        angle *= np.float32(2.0 * np.pi)
        pairs = np.empty((len(rows), 2 * words.shape[1]), np.float32)
        np.multiply(radius, np.cos(angle), out=pairs[:, ::2])
        np.multiply(radius, np.sin(angle, out=angle), out=pairs[:, 1::2])
        skipped = start % (2 * _PAIRS_PER_COUNT)
        return pairs[:, skipped : skipped + stop - start]

    def _row_words(
        self, rows: np.ndarray, length: int, start: int, stop: int, per_count: int
    ) -> np.ndarray:
        """Words from the count that holds column ``start`` on, "row word"."""
        counts = -(-length // per_count)
        first, last = start // per_count, -(-stop // per_count)
        width = (last - first) * _WORDS_PER_COUNT
        words = np.empty((len(rows), width), np.uint64)
        if last - first < counts:
            for place, row in enumerate(rows.tolist()):
                words[place] = self._words(row * counts + first, width)
            return words
        # drawing some rows in vain takes less time than beginning anew
        for begin, end, top, bottom in clusters(rows, _WORDS_IN_VAIN // max(width, 1)):
            drawn = self._words(top * counts, (bottom + 1 - top) * width)
            drawn = drawn.reshape(bottom + 1 - top, width)
            if len(drawn) == len(rows) and (np.diff(rows) == 1).all():
                return drawn
            words[begin:end] = drawn[rows[begin:end] - top]
        return words

    def _words(self, first: int, count: int) -> np.ndarray:
        return np.random.Philox(key=self._key, counter=first).random_raw(count)

    def choose(self, population: int, count: int) -> np.ndarray:
        """``count`` different numbers below ``population``, ascending."""
        if not 0 < count < population:
            return np.arange(count)
        return np.sort(np.argpartition(self.uniform(0, population), count - 1)[:count])

    def integers(self, below: int, count: int) -> np.ndarray:
        """``count`` independent numbers below ``below``."""
        return np.minimum((self.uniform(0, count) * below).astype(np.int64), below - 1)


def _unit(words: np.ndarray) -> np.ndarray:
    """32-bit words as numbers in (0, 1], float32."""
    drawn = words.astype(np.float32)
    drawn += np.float32(0.5)
    drawn *= np.float32(2.0**-32)
    return drawn


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


def clusters(rows: np.ndarray, gap: int = 0) -> list[tuple[int, int, int, int]]:
    """Runs of rising row numbers that leave out at most ``gap`` rows at a time.

    As (start, stop, first row, last row), start and stop being positions in ``rows``.
    """
    if not len(rows):
        return []
    steps = np.diff(rows)
    breaks = np.flatnonzero((steps < 0) | (steps > gap + 1)) + 1
    starts, stops = np.append(0, breaks), np.append(breaks, len(rows))
    ends = (each.tolist() for each in (starts, stops, rows[starts], rows[stops - 1]))
    return list(zip(*ends, strict=True))
