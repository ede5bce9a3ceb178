"""Makes every student tensor from the teacher's, as a stream: tile by tile, several at once.

Random draws are addressed by row, and no row depends on what is made with it, so the bytes do not
depend on the number of workers or on the tiles that are made; statistics are summed over tiles of
a fixed size.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping

import numpy as np
from blake3 import blake3

from ckgrow.checkpoint import Reader, Sink
from ckgrow.header import Header, common_prefix
from ckgrow.measuring import Measuring, Read
from ckgrow.recipes import Recipe
from ckgrow.tiles import digest_tiles

TILE_BYTES = 1 << 21
"""Size of a tile of the result; a worker holds a few times this."""

Advance = Callable[[int], None]


def execute(
    recipes: Mapping[str, Recipe],
    read: Read,
    writer: Sink,
    workers: int,
    advance: Advance = lambda _: None,
) -> dict[str, str]:
    """Writes every tensor of ``recipes`` and returns BLAKE3 hashes of their bytes by name.

    ``advance`` is told the bytes written so far by each tile. The first failure stops the others
    and is raised; so is an interrupt, after the workers have stopped.
    """
    stop = threading.Event()
    measuring = Measuring(read, stop)
    readings: dict[str, Measuring] = {}

    def make(name: str, start: int, last: int) -> memoryview:
        reading = readings.setdefault(name, measuring.tensor())
        rows = np.ascontiguousarray(recipes[name].rows(np.arange(start, last), reading))
        writer.write(name, start, rows)
        advance(rows.nbytes)
        return _bytes(rows)

    specs = {name: recipe.spec for name, recipe in recipes.items()}
    return digest_tiles(specs, TILE_BYTES, make, lambda name: readings.pop(name), workers, stop)


def hash_tensors(header: Header, read: Read, workers: int) -> dict[str, str]:
    """BLAKE3 hashes of the bytes of every tensor, by name."""

    def bytes_of(name: str, start: int, stop: int) -> memoryview:
        return _bytes(np.ascontiguousarray(read(name, start, stop)))

    return digest_tiles(header, TILE_BYTES, bytes_of, lambda _: None, workers, threading.Event())


def content_hash(header: Header, digests: Mapping[str, str]) -> str:
    """One hash over sorted (name, dtype, shape, hash of the tensor).

    Formats do not matter, nor does a wrapper's prefix that all names share.
    """
    total, prefix = blake3(), common_prefix(header)
    for name in sorted(header):
        spec = header[name]
        total.update(
            repr((name.removeprefix(prefix), spec.dtype, spec.shape, digests[name])).encode()
        )
    return str(total.hexdigest())


def hash_content(reader: Reader, workers: int) -> str:
    """The content hash of what an open checkpoint holds, whatever its format."""
    return content_hash(reader.header, hash_tensors(reader.header, reader.read, workers))


def _bytes(rows: np.ndarray) -> memoryview:
    return rows.reshape(-1).view(np.uint8).data
