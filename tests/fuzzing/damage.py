"""Damage to bytes, whatever they mean: what disks, networks and other tools do to files."""

from __future__ import annotations

import re
from random import Random

EDGES = (0, 1, 2, 3, 7, 8, 63, 64, 127, 128, 255, 256, 2**15, 2**16 - 1, 2**16, 2**31 - 1, 2**31)
EDGES += (2**32 - 1, 2**32, 2**53, 2**62, 2**63 - 1, 2**63, 2**64 - 1)
EDGES += tuple(-each for each in EDGES[1:])
"""Numbers at which some kind of integer ends, or a check is off by one."""

TEXTS = (
    *map(str, EDGES),
    *("1e9", "1.5", "-0", "007", "1e999", "NaN", "Infinity", "None", "null", "true", "[]", "{}"),
    *('""', "9" * 40, "9" * 5000, "\\u0000", "\\ud800"),
)

_NUMBER = re.compile(rb"-?\d+")


def number(random: Random) -> int:
    """An edge, or a small number beside one."""
    return random.choice(EDGES) + random.choice((0, 0, 0, -1, 1))


def damaged(random: Random, data: bytes) -> bytes:
    """``data`` with one piece of it changed, moved, taken away or added."""
    return random.choice(_WAYS)(random, data) if data else _extended(random, data)


def _flipped(random: Random, data: bytes) -> bytes:
    changed = bytearray(data)
    for _ in range(random.choice((1, 1, 1, 2, 8))):
        changed[_place(random, data)] ^= 1 << random.randrange(8)
    return bytes(changed)


def _overwritten(random: Random, data: bytes) -> bytes:
    start, stop = _stretch(random, data)
    return data[:start] + _filling(random, stop - start) + data[stop:]


def _removed(random: Random, data: bytes) -> bytes:
    start, stop = _stretch(random, data)
    return data[:start] + data[stop:]


def _inserted(random: Random, data: bytes) -> bytes:
    place = _place(random, data)
    return data[:place] + _filling(random, random.choice((1, 2, 4, 8, 64))) + data[place:]


def _repeated(random: Random, data: bytes) -> bytes:
    start, stop = _stretch(random, data)
    return data[:stop] + data[start:stop] * random.choice((1, 1, 2, 100)) + data[stop:]


def _spliced(random: Random, data: bytes) -> bytes:
    """One piece over another."""
    start, stop = _stretch(random, data)
    place = _place(random, data)
    return data[:place] + data[start:stop] + data[place + stop - start :]


def _swapped(random: Random, data: bytes) -> bytes:
    size = random.choice((1, 4, 16, 64, 512))
    first, second = sorted((_place(random, data), _place(random, data)))
    if first + size > second:
        return _flipped(random, data)
    return (
        data[:first]
        + data[second : second + size]
        + data[first + size : second]
        + data[first : first + size]
        + data[second + size :]
    )


def _truncated(random: Random, data: bytes) -> bytes:
    return data[: _place(random, data)]


def _extended(random: Random, data: bytes) -> bytes:
    more = _filling(random, random.choice((1, 8, 100, 5000)))
    return data + random.choice((more, data))


def _renumbered(random: Random, data: bytes) -> bytes:
    """A binary number, as all formats have some."""
    size = random.choice((1, 2, 4, 4, 8, 8))
    place = _place(random, data)
    value = number(random) % (1 << 8 * size)
    order = random.choice(("little", "little", "big"))
    return data[:place] + value.to_bytes(size, order) + data[place + size :]


def _written_number(random: Random, data: bytes) -> bytes:
    """A number that is written out, as in JSON and in the header of an array."""
    found = list(_NUMBER.finditer(data))
    if not found:
        return _renumbered(random, data)
    place = random.choice(found)
    return data[: place.start()] + random.choice(TEXTS).encode() + data[place.end() :]


_WAYS = (
    _flipped,
    _overwritten,
    _removed,
    _inserted,
    _repeated,
    _spliced,
    _swapped,
    _truncated,
    _extended,
    _renumbered,
    _renumbered,
    _written_number,
    _written_number,
)


def _place(random: Random, data: bytes) -> int:
    """Anywhere, rather near the ends, where formats keep what they are."""
    size = len(data)
    near = min(size, 300)
    return random.choice(
        (
            random.randrange(size),
            random.randrange(near),
            size - 1 - random.randrange(near),
            random.randrange(min(size, 40)),
        )
    )


def _stretch(random: Random, data: bytes) -> tuple[int, int]:
    start = _place(random, data)
    return start, min(len(data), start + random.choice((1, 2, 4, 8, 16, 100, 1000)))


def _filling(random: Random, size: int) -> bytes:
    return random.choice((bytes(size), b"\xff" * size, random.randbytes(size), b"9" * size))
