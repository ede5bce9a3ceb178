"""Pickles with one instruction changed."""

from __future__ import annotations

import io
import pickletools
import struct
from random import Random

from .damage import damaged, number


def pickle_changed(random: Random, data: bytes) -> bytes:
    """One instruction of a pickle changed; the rest of a file of several stays."""
    pieces, position = [], 0
    stream = io.BytesIO(data)
    while position < len(data) and data[position : position + 1] == b"\x80":
        starts = [at for _, _, at in pickletools.genops(stream)]
        pieces += [data[a:b] for a, b in zip(starts, [*starts[1:], stream.tell()], strict=True)]
        position = stream.tell()
    rest = data[position:]
    if not pieces or random.random() < 0.15:
        return damaged(random, data)
    index = random.randrange(len(pieces))
    numbers = [at for at, piece in enumerate(pieces) if piece[:1] in b"KMJ\x8a"]
    if numbers and random.random() < 0.6:
        index = random.choice(numbers)
        pieces[index] = _pickled_number(random)
    else:
        way = random.randrange(7)
        if way == 0:
            del pieces[index]
        elif way == 1:
            pieces.insert(index, pieces[random.randrange(len(pieces))])
        elif way == 2:
            pieces[index] = pieces[random.randrange(len(pieces))]
        elif way == 3:
            pieces.insert(index, random.choice(_INSTRUCTIONS))
        elif way == 4:
            other = random.randrange(len(pieces))
            pieces[index], pieces[other] = pieces[other], pieces[index]
        elif way == 5:
            pieces[index : index + 1] = [pieces[index]] * random.choice((2, 2000))
        else:
            pieces[index] = damaged(random, pieces[index])
    return b"".join(pieces) + rest


_INSTRUCTIONS = (b"0", b"1", b"2", b"N", b"]", b"}", b")", b"(", b"t", b"R", b"b", b"s", b"u", b"Q")
_INSTRUCTIONS += (b".", b"h\x00", b"r\xff\xff\xff\x7f", b"j\xff\xff\xff\xff", b"\x88", b"e", b"l")
_INSTRUCTIONS += (b"cos\nsystem\n", b"cbuiltins\neval\n", b"ctorch\nload\n", b"X\x01\0\0\0a", b"d")
_INSTRUCTIONS += (b"ctorch\nfloat32\n", b"ccollections\nOrderedDict\n", b"ctorch\nSize\n", b"a")
_INSTRUCTIONS += (b"ctorch._utils\n_rebuild_tensor_v2\n", b"\x81", b"\x85", b"\x86", b"\x87")
_INSTRUCTIONS += (b"ctorch._utils\n_rebuild_sparse_tensor\n", b"ctorch\nDoubleStorage\n", b"q\x00")


def _pickled_number(random: Random) -> bytes:
    value = number(random)
    if 0 <= value < 256:
        return b"K" + bytes([value])
    if -(2**31) <= value < 2**31:
        return b"J" + struct.pack("<i", value)
    return b"\x8a\x0a" + value.to_bytes(10, "little", signed=True)
