"""Zip archives with one member changed: sizes and checksums are made anew, so that they fit."""

from __future__ import annotations

import io
import warnings
import zipfile
from random import Random

from .damage import damaged
from .documents import STRINGS
from .pickles import pickle_changed


def archive_changed(random: Random, data: bytes) -> bytes:
    """Members changed, added, left out, compressed; sizes and checksums are made anew."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        entries = [(each.filename, archive.read(each)) for each in archive.infolist()]
        methods = [each.compress_type for each in archive.infolist()]
    index = random.randrange(len(entries))
    if any(name.endswith(".pkl") for name, _ in entries) and random.random() < 0.6:
        index = next(i for i, (name, _) in enumerate(entries) if name.endswith(".pkl"))
    name, content = entries[index]
    way = random.randrange(12)
    if way == 0:
        del entries[index], methods[index]
    elif way == 1:
        entries.append((name, content if random.random() < 0.5 else damaged(random, content)))
        methods.append(methods[index])
    elif way == 2:
        entries[index] = random.choice((*STRINGS, name.upper(), name + "x")), content
    elif way == 3:
        methods[index] = random.choice((0, 8, 12, 14))
    elif way == 4:
        entries[index] = name, content + bytes(random.choice((1, 1000, 3_000_000)))
        methods[index] = 8
    else:
        inner = pickle_changed if name.endswith(".pkl") else _array
        entries[index] = name, inner(random, content)
    return _zipped(entries, methods)


def _zipped(entries: list[tuple[str, bytes]], methods: list[int]) -> bytes:
    stream = io.BytesIO()
    with warnings.catch_warnings(), zipfile.ZipFile(stream, "w") as archive:
        warnings.simplefilter("ignore")  # two members of one name are meant
        for (name, content), method in zip(entries, methods, strict=True):
            plain = name.encode("utf-8", "replace").decode()
            archive.writestr(zipfile.ZipInfo(plain), content, compress_type=method)
    return stream.getvalue()


def _array(random: Random, data: bytes) -> bytes:
    """The header of a .npy array, whose length stays right; any other member is just bytes."""
    if not data.startswith(b"\x93NUMPY\1") or random.random() < 0.2:
        return damaged(random, data)
    length = int.from_bytes(data[8:10], "little")
    text = data[10 : 10 + length].decode("latin1")
    way = random.randrange(5)
    if way == 0:
        kinds = ("<f4", ">f4", "<f8", "|O", "|b1", "<M8[ns]", "|V4", "<U3", "|S2", "<i8", "<c16")
        changed = text.replace(text.split("'")[3], random.choice((*kinds, "x" * 99)))
    elif way == 1:
        changed = text.replace("False", random.choice(("True", "None", "1", "false")))
    elif way == 2:
        changed = random.choice((text * 2, text.replace("shape", "descr"), "{}", "[" * 300, "1+1"))
    else:
        changed = damaged(random, text.encode("latin1")).decode("latin1")
    changed = changed.rstrip(" \n").ljust(length - 1) + "\n"
    coded = changed.encode("latin1", "replace")[:65535]
    return data[:8] + len(coded).to_bytes(2, "little") + coded + data[10 + length :]
