"""The directory of a zip archive, strictly: what two readers could take differently is refused.

The format is PKWARE's APPNOTE: members one after another, each behind a local header, then the
central directory, which names them all, then a record that says where the directory is.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from itertools import pairwise

from ckgrow.checkpoint import File
from ckgrow.errors import CheckpointError
from ckgrow.names import shown

START = b"PK\x03\x04"
EMPTY = b"PK\x05\x06"
"""What an archive begins with, and one without members."""

STORED = 0
DEFLATED = 8

_END = struct.Struct("<4s4H2LH")
_LARGE_END = struct.Struct("<4sQ2H2L4Q")
_LOCATOR = struct.Struct("<4sLQL")
_ENTRY = struct.Struct("<4s6H3L5H2L")
_LOCAL = struct.Struct("<4s5H3L2H")
_LONGEST_COMMENT = 0xFFFF
_LONGEST_DIRECTORY = 100_000_000  # as much as a safetensors header may have
_LARGE = 0xFFFFFFFF  # stands for a number that is in the extra field
_LARGE_FIELD = 1
_ENCRYPTED = 0x0001 | 0x0040 | 0x2000
_UTF8 = 0x0800


@dataclass(frozen=True)
class Member:
    """One file in an archive: its bytes as they stand at ``offset``, and what they unpack to."""

    name: str
    method: int
    checksum: int
    stored: int
    size: int
    offset: int


def first_name(file: File) -> bytes:
    """The name of the member that an archive begins with, as it stands there; b"" if cut short."""
    if file.size < _LOCAL.size:
        return b""
    length = _LOCAL.unpack(file.read(0, _LOCAL.size))[-2]
    return file.read(_LOCAL.size, min(length, file.size - _LOCAL.size))


def members(file: File) -> tuple[Member, ...]:
    """The members in the order of the directory; CheckpointError for a damaged or odd archive."""
    begin, length, count = _directory(file)
    text = file.read(begin, length)
    found: list[Member] = []
    spans: list[tuple[int, int]] = []
    position = 0
    while position < len(text):
        header, raw, member, position = _entry(text, position, file.place)
        member = _located(file, header, raw, member, begin)
        spans.append((header, member.offset + member.stored))
        found.append(member)
    if len(found) != count:
        raise _damaged(file.place, f"it has {len(found)} members and says {count}")
    _require_apart(sorted(spans), file.place)
    _require_distinct(found, file.place)
    return tuple(found)


def _directory(file: File) -> tuple[int, int, int]:
    """Where the directory begins, how long it is, and how many members it names."""
    start = max(0, file.size - _END.size - _LONGEST_COMMENT)
    tail = file.read(start, file.size - start)
    at = tail.rfind(EMPTY)
    if at < 0 or len(tail) < at + _END.size:
        raise CheckpointError(
            f"{file.place} is cut short or no zip archive: it has no directory at its end; fetch "
            "or save it again"
        )
    _, disk, home, here, count, length, begin, comment = _END.unpack_from(tail, at)
    if at + _END.size + comment != len(tail):
        raise _damaged(file.place, "something stands after its end")
    end = start + at
    if end >= _LOCATOR.size:
        mark, large_home, large, _ = _LOCATOR.unpack(file.read(end - _LOCATOR.size, _LOCATOR.size))
        if mark == b"PK\x06\x07":
            if large + _LARGE_END.size > end - _LOCATOR.size:
                raise _damaged(file.place, "the record of its directory is not where it says")
            record = _LARGE_END.unpack(file.read(large, _LARGE_END.size))
            mark, _, _, _, disk, home, here, count, length, begin = record
            if mark != b"PK\x06\x06" or large_home:
                raise _damaged(file.place, "the record of its directory is not where it says")
            end = large
    if disk or home or here != count:
        raise CheckpointError(f"{file.place} is one part of a split archive; join the parts first")
    if begin + length != end:
        raise _damaged(file.place, "its directory is not where it says")
    if length > _LONGEST_DIRECTORY:
        raise CheckpointError(
            f"{file.place} has a directory of {length} bytes; at most {_LONGEST_DIRECTORY} work"
        )
    return begin, length, count


def _entry(text: bytes, position: int, place: str) -> tuple[int, bytes, Member, int]:
    """Offset of the local header, the name as it stands, the member, where the next entry is."""
    if position + _ENTRY.size > len(text):
        raise _damaged(place, "its directory is cut short")
    fields = _ENTRY.unpack_from(text, position)
    mark, _, _, flags, method, _, _, checksum, stored, size = fields[:10]
    of_name, of_extra, of_comment, disk, _, _, header = fields[10:]
    position += _ENTRY.size
    following = position + of_name + of_extra + of_comment
    if mark != b"PK\x01\x02" or following > len(text):
        raise _damaged(place, "its directory holds something else")
    raw = text[position : position + of_name]
    name = _decoded(raw, flags, place)
    extra = text[position + of_name : position + of_name + of_extra]
    size, stored, header = _large(extra, (size, stored, header), name, place)
    if flags & _ENCRYPTED:
        raise CheckpointError(f"{place}: member {shown(name)} is encrypted; save it without")
    if disk:
        raise CheckpointError(f"{place} is one part of a split archive; join the parts first")
    return header, raw, Member(name, method, checksum, stored, size, 0), following


def _decoded(raw: bytes, flags: int, place: str) -> str:
    try:
        name = raw.decode("utf-8" if flags & _UTF8 else "cp437")
    except UnicodeDecodeError:
        raise _damaged(place, "the name of a member is no UTF-8") from None
    if "\0" in name:  # where some readers end it
        raise _damaged(place, f"the name {shown(name)} of a member has a NUL in it")
    return name


def _large(
    extra: bytes, numbers: tuple[int, int, int], name: str, place: str
) -> tuple[int, int, int]:
    """Sizes and offset, of which those that do not fit 32 bits stand in the extra field."""
    values = b""
    while len(extra) >= 4:
        kind, length = struct.unpack_from("<2H", extra)
        if kind == _LARGE_FIELD:
            values = extra[4 : 4 + length]
            break
        extra = extra[4 + length :]
    found: list[int] = []
    for number in numbers:
        if number == _LARGE:
            if len(values) < 8:
                raise _damaged(place, f"the size of member {shown(name)} is missing")
            number, values = int.from_bytes(values[:8], "little"), values[8:]
        found.append(number)
    return found[0], found[1], found[2]


def _located(file: File, header: int, raw: bytes, member: Member, end: int) -> Member:
    """The member with the place of its bytes, which its local header tells."""
    fault = _damaged(file.place, f"member {shown(member.name)} is not where its directory says")
    if header + _LOCAL.size > end:
        raise fault
    local = file.read(header, _LOCAL.size + min(len(raw), end - header - _LOCAL.size))
    mark, _, flags, method, _, _, _, _, _, of_name, of_extra = _LOCAL.unpack_from(local)
    offset = header + _LOCAL.size + of_name + of_extra
    if mark != START or local[_LOCAL.size :] != raw or of_name != len(raw):
        raise fault
    if method != member.method or flags & _ENCRYPTED or offset + member.stored > end:
        raise fault
    return Member(member.name, method, member.checksum, member.stored, member.size, offset)


def _require_apart(spans: list[tuple[int, int]], place: str) -> None:
    """Members that share bytes make small archives unpack to endless ones."""
    for (_, end), (begin, _) in pairwise(spans):
        if begin < end:
            raise _damaged(place, "two of its members overlap")


def _require_distinct(found: list[Member], place: str) -> None:
    seen: set[str] = set()
    for member in found:
        if member.name in seen:
            raise CheckpointError(
                f"{place} is ambiguous: it holds {shown(member.name)} twice; save the file again"
            )
        seen.add(member.name)


def _damaged(place: str, fault: str) -> CheckpointError:
    return CheckpointError(
        f"{place} is a damaged zip archive: {fault}; fetch or save the file again"
    )
