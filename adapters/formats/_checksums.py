"""CRC-32 of bytes that come in pieces, in any order."""

from __future__ import annotations

from functools import cache

_POLYNOMIAL = 0xEDB88320  # its bits reversed: the highest bit is the coefficient of x^0
_ONE = 1 << 31
_X = 1 << 30


class Pieces:
    """The checksums of pieces of one stretch of bytes, each piece given once; not thread-safe."""

    def __init__(self) -> None:
        self._known: dict[int, tuple[int, int]] = {}  # end of a piece -> its begin and checksum

    def add(self, begin: int, size: int, checksum: int) -> None:
        """A piece of ``size`` bytes at ``begin``; one that continues another becomes part of it."""
        before = self._known.pop(begin, None)
        if before is not None:
            begin, size, checksum = (
                before[0],
                begin + size - before[0],
                combined(before[1], checksum, size),
            )
        self._known[begin + size] = begin, checksum

    def __len__(self) -> int:
        """How many pieces there are that do not continue one another as far as is known."""
        return len(self._known)

    def whole(self, size: int) -> int | None:
        """The checksum of all ``size`` bytes from 0 on; None unless each is in one piece."""
        position, total = 0, 0
        for end, (begin, checksum) in sorted(self._known.items()):
            if begin != position:
                return None
            total, position = combined(total, checksum, end - begin), end
        return total if position == size else None


def combined(first: int, second: int, size: int) -> int:
    """The checksum of two pieces in a row, the second of ``size`` bytes, from theirs.

    A checksum is a remainder of polynomials over two elements; bytes that follow multiply that of
    what stands before by a power of x (as zlib's crc32_combine does).
    """
    return _product(_power(8 * size), first) ^ second


def _product(left: int, right: int) -> int:
    """Modulo the polynomial."""
    result = 0
    while left:
        if left & _ONE:
            result ^= right
        left = left << 1 & 0xFFFFFFFF
        right = right >> 1 ^ (_POLYNOMIAL if right & 1 else 0)
    return result


def _power(exponent: int) -> int:
    """x to the ``exponent``, by squares."""
    result, at = _ONE, 0
    while exponent:
        if exponent & 1:
            result = _product(_square(at), result)
        exponent >>= 1
        at += 1
    return result


@cache
def _square(times: int) -> int:
    """x, squared so many times."""
    return _X if times == 0 else _product(_square(times - 1), _square(times - 1))
