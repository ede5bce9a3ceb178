"""Protocol buffers as they stand in a file: which fields, and where, without loading their bytes.

The encoding (https://protobuf.dev/programming-guides/encoding/): a message is a sequence of fields,
each a key (number and kind, one varint) and a value, which for texts, bytes and messages is a
length and so many bytes. What is not looked into is skipped, so that opening a model costs what
its names and nodes cost, not its weights, and forged sizes cost nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from ckgrow.checkpoint import File
from ckgrow.errors import CheckpointError

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5

_WINDOW = 1 << 16  # bytes read at once; what is skipped is often longer
_MOST_FIELDS = 4_000_000
_MOST_TEXT = 256_000_000  # bytes of names and metadata altogether
_LONGEST_VARINT = 10  # bytes; 64 bits in groups of 7


class Field(NamedTuple):
    """A field of a message: ``number`` and ``kind``, and its value.

    ``value`` is that of a varint, as it is without a sign; others stand from ``start`` to ``stop``
    in the file.
    """

    number: int
    kind: int
    value: int
    start: int
    stop: int


class Wire:
    """The messages of a file. Raises CheckpointError for what is none, or is too much."""

    def __init__(self, file: File) -> None:
        self.place = file.place
        self._file = file
        self._window = b""
        self._begins = 0
        self._fields = 0
        self._text = 0

    def fields(self, start: int, stop: int) -> Iterator[Field]:
        """The fields of the message that stands from ``start`` to ``stop``."""
        position = start
        while position < stop:
            field = self._field(position, stop)
            position = field.stop
            yield field

    def varints(self, field: Field) -> Iterator[int]:
        """The numbers that are packed in a field."""
        position = field.start
        while position < field.stop:
            self._count()
            value, position = self._varint(position, field.stop)
            yield value

    def text(self, field: Field) -> str:
        """The text that a field holds."""
        try:
            return self.bytes(field).decode()
        except UnicodeDecodeError:
            raise self.damaged(field.start, "a name that is not UTF-8") from None

    def bytes(self, field: Field) -> bytes:
        """The bytes that a field holds."""
        self.require(field, BYTES)
        size = field.stop - field.start
        self._text += size
        if self._text > _MOST_TEXT:
            raise CheckpointError(
                f"{self.place} holds more than {_MOST_TEXT} bytes of names and metadata; a model "
                "does not, so it is damaged or forged"
            )
        begin = field.start - self._begins
        if begin >= 0 and begin + size <= len(self._window):
            return self._window[begin : begin + size]
        return self._file.read(field.start, size)

    def require(self, field: Field, kind: int) -> None:
        """CheckpointError when a field is not of the kind that its number stands for."""
        if field.kind != kind:
            raise self.damaged(field.start, f"field {field.number} is of a wrong kind")

    def damaged(self, position: int, what: str) -> CheckpointError:
        """The error for a file that is no model, or none any more."""
        return CheckpointError(
            f"{self.place} is no ONNX model, or a damaged one: {what} (byte {position}); fetch or "
            "save it again"
        )

    def _field(self, position: int, stop: int) -> Field:
        self._count()
        begin = position
        key, position = self._varint(position, stop)
        number, kind = key >> 3, key & 7
        if not number:
            raise self.damaged(begin, "a field without a number")
        if kind == VARINT:
            value, end = self._varint(position, stop)
            return Field(number, kind, value, position, end)
        if kind == BYTES:
            size, position = self._varint(position, stop)
        elif kind in (FIXED64, FIXED32):
            size = 8 if kind == FIXED64 else 4
        else:
            raise self.damaged(begin, f"field {number} is of an unknown kind")
        if size > stop - position:
            raise self.damaged(begin, f"field {number} ends behind what it is a part of")
        return Field(number, kind, 0, position, position + size)

    def _count(self) -> None:
        self._fields += 1
        if self._fields > _MOST_FIELDS:
            raise CheckpointError(
                f"{self.place} has more than {_MOST_FIELDS} nodes, tensors and fields of them; "
                "ckgrow reads no ONNX model as large"
            )

    def _varint(self, position: int, stop: int) -> tuple[int, int]:
        """The number that begins at ``position``, and where it ends."""
        value = 0
        for shift in range(0, 7 * _LONGEST_VARINT, 7):
            if position >= stop:
                raise self.damaged(position, "a number is cut off")
            byte = self._byte(position)
            position += 1
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value & 0xFFFF_FFFF_FFFF_FFFF, position
        raise self.damaged(position, "a number has no end")

    def _byte(self, position: int) -> int:
        index = position - self._begins
        if not 0 <= index < len(self._window):
            self._window = self._file.read(position, min(_WINDOW, self._file.size - position))
            self._begins, index = position, 0
        return self._window[index]
