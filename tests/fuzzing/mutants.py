"""Checkpoints with damage: to their bytes, or to what these say while the outside is intact."""

from __future__ import annotations

import lzma
import struct
import zipfile
import zlib
from random import Random

from .archives import archive_changed
from .damage import damaged
from .documents import header_changed, json_changed, record_changed
from .messages import message_changed
from .pickles import pickle_changed
from .samples import Sample


def mutant(random: Random, kind: str, sample: Sample) -> Sample:
    """``sample`` with one to four changes in its files, of which one may be missing then."""
    files = dict(sample.files)
    if kind == "record":
        return Sample(sample.entry, {sample.entry: record_changed(random, files[sample.entry])})
    for _ in range(random.choice((1, 1, 1, 2, 4))):
        name = random.choice((sample.entry, *files))
        if name != sample.entry and random.random() < 0.02:
            files.pop(name, None)
        elif name in files:
            change = restructured if random.random() < 0.5 else _in_bytes
            files[name] = change(random, name, files[name])
    return Sample(sample.entry, files)


def _in_bytes(random: Random, name: str, data: bytes) -> bytes:
    return damaged(random, data)


def restructured(random: Random, name: str, data: bytes) -> bytes:
    """A file of a checkpoint with one of its parts changed; bytes where it has none of ours."""
    try:
        if name.endswith(".json"):
            return json_changed(random, data)
        if name.endswith(".safetensors"):
            return header_changed(random, data)
        if data.startswith(b"PK"):
            return archive_changed(random, data)
        if name.endswith(".pt"):
            return pickle_changed(random, data)
        if name.endswith(".onnx"):
            return message_changed(random, data)
    except (ValueError, LookupError, struct.error, zipfile.BadZipFile, NotImplementedError):
        pass  # an earlier change has destroyed that structure
    except (EOFError, RecursionError, OSError, zlib.error, lzma.LZMAError, UnicodeError):
        pass
    return damaged(random, data)
