"""Protocol buffers with one field changed; the lengths of what it is in are made to fit."""

from __future__ import annotations

from random import Random

from .damage import damaged, number
from .documents import STRINGS

_MESSAGES = {
    (): {7, 8, 14},  # of a model: graph, operator sets, metadata
    (7,): {1, 5, 11, 12},  # of a graph: nodes, initialisers, inputs, outputs
    (7, 1): {5},  # of a node: attributes
    (7, 5): {13},  # of a tensor: external data
}
"""Which fields are messages themselves, by the numbers of the fields they are in."""


def message_changed(random: Random, data: bytes, path: tuple[int, ...] = ()) -> bytes:
    """A message with one field changed; the lengths of those it is in fit again."""
    fields = _fields(data)
    index = random.randrange(len(fields))
    initialisers = [at for at, (tag, _) in enumerate(fields) if (*path, tag >> 3) == (7, 5)]
    graphs = [at for at, (tag, _) in enumerate(fields) if (*path, tag >> 3) == (7,)]
    if random.random() < 0.8:
        index = random.choice(graphs or initialisers or [index])
    tag, value = fields[index]
    if tag & 7 == 2 and tag >> 3 in _MESSAGES.get(path, ()) and value and random.random() < 0.9:
        fields[index] = tag, message_changed(random, value, (*path, tag >> 3))
        return _message(fields)
    way = random.randrange(8)
    if way == 0:
        del fields[index]
    elif way == 1:
        fields[index : index + 1] = [(tag, value)] * random.choice((2, 2, 100))
    elif way == 2:
        fields[index] = (random.choice((tag ^ 1, tag ^ 3, tag + 8, tag & 7, 64 << 3 | 2)), value)
    elif way == 3:
        fields.insert(index, fields[random.randrange(len(fields))])
    elif isinstance(value, int):
        fields[index] = tag, number(random) % 2**64
    elif way == 4:
        fields[index] = tag, random.choice(STRINGS).encode("utf-8", "surrogatepass")
    else:
        fields[index] = tag, damaged(random, value)
    return _message(fields)


def _fields(data: bytes) -> list[tuple[int, int | bytes]]:
    """Keys and values; those of fixed size are bytes as well. ValueError when it is no message."""
    found: list[tuple[int, int | bytes]] = []
    position = 0
    while position < len(data):
        tag, position = _varint(data, position)
        size = {1: 8, 5: 4}.get(tag & 7, 0)
        if tag & 7 == 0:
            value, position = _varint(data, position)
            found.append((tag, value))
            continue
        if tag & 7 == 2:
            size, position = _varint(data, position)
        if (not size and tag & 7 != 2) or position + size > len(data):
            raise ValueError("no message")
        found.append((tag, data[position : position + size]))
        position += size
    return found


def _varint(data: bytes, position: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        value |= (data[position] & 0x7F) << shift
        position += 1
        if data[position - 1] < 0x80:
            return value, position
    raise ValueError("no message")


def _message(fields: list[tuple[int, int | bytes]]) -> bytes:
    out = bytearray()
    for tag, value in fields:
        out += _coded(tag)
        if isinstance(value, int):
            out += _coded(value)
        else:
            out += (_coded(len(value)) if tag & 7 == 2 else b"") + value
    return bytes(out)


def _coded(value: int) -> bytes:
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)
