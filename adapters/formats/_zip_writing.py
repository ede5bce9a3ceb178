"""The bytes around the members of a zip archive that are stored as they are, all sizes known.

They are those that Python's zipfile writes for numpy.savez, so the same arrays make the same file:
every local header has room for 64-bit sizes, and every member the date of MS-DOS's beginning.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from dataclasses import dataclass

_LOCAL = struct.Struct("<4s5H3L2H")
_ENTRY = struct.Struct("<4s4B4H3L5H2L")
_END = struct.Struct("<4s4H2LH")
_LARGE_END = struct.Struct("<4sQ2H2L4Q")
_LOCATOR = struct.Struct("<4sLQL")
_VERSION = 45  # the first with 64-bit sizes
_UNIX = 3
_DATE = 1 << 5 | 1  # 1 January 1980
_MODE = 0o600 << 16
_UTF8 = 0x0800
_LARGE = 0xFFFFFFFF
_LARGEST = (1 << 31) - 1  # of numbers that are not moved to the extra field
_MANY = 0xFFFF


@dataclass(frozen=True)
class Entry:
    """A member of ``size`` bytes, whose local header stands at ``header``."""

    name: str
    checksum: int
    size: int
    header: int


def local_header(name: str, checksum: int, size: int) -> bytes:
    """What stands before the bytes of a member."""
    text, flags = _encoded(name)
    extra = struct.pack("<HHQQ", 1, 16, size, size)
    fields = (_VERSION, flags, 0, 0, _DATE, checksum, _LARGE, _LARGE, len(text), len(extra))
    return _LOCAL.pack(b"PK\x03\x04", *fields) + text + extra


def directory(entries: Iterable[Entry], begin: int) -> bytes:
    """What stands after the last member, from ``begin`` on."""
    records = [_record(entry) for entry in entries]
    text = b"".join(records)
    count, length = len(records), len(text)
    if count <= _MANY and begin <= _LARGEST and length <= _LARGEST:
        return text + _END.pack(b"PK\x05\x06", 0, 0, count, count, length, begin, 0)
    rest = (44, _VERSION, _VERSION, 0, 0, count, count, length, begin)
    text += _LARGE_END.pack(b"PK\x06\x06", *rest)
    text += _LOCATOR.pack(b"PK\x06\x07", 0, begin + length, 1)
    count = min(count, _MANY)
    return text + _END.pack(
        b"PK\x05\x06", 0, 0, count, count, min(length, _LARGE), min(begin, _LARGE), 0
    )


def _record(entry: Entry) -> bytes:
    text, flags = _encoded(entry.name)
    numbers: list[int] = []
    size, header = entry.size, entry.header
    if size > _LARGEST:
        numbers, size = [size, size], _LARGE
    if header > _LARGEST:
        numbers, header = [*numbers, header], _LARGE
    extra = struct.pack(f"<HH{len(numbers)}Q", 1, 8 * len(numbers), *numbers) if numbers else b""
    made = (_VERSION, _UNIX, _VERSION, 0, flags, 0, 0, _DATE, entry.checksum, size, size)
    rest = (len(text), len(extra), 0, 0, 0, _MODE, header)
    return _ENTRY.pack(b"PK\x01\x02", *made, *rest) + text + extra


def _encoded(name: str) -> tuple[bytes, int]:
    return name.encode(), 0 if name.isascii() else _UTF8
