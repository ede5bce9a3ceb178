"""Rows of an array in an npz archive: read where they stand, or from an array that was unpacked.

An archive has a checksum of each member. It is held against what was read once every row was.
"""

from __future__ import annotations

import threading
import zlib

import numpy as np

from ckgrow.checkpoint import File

from ._checksums import Pieces, combined
from ._npz_reading import Array, damaged, native, unpacked

_MOST_PIECES = 1024
"""Of a tensor that is read out of order; beyond, its checksum is not looked at."""


class Streamed:
    """An array whose rows stand in the file as they are."""

    def __init__(self, file: File, name: str, array: Array) -> None:
        self._file = file
        self._name = name
        self._array = array
        self._pieces: Pieces | None = Pieces()  # None when nothing is to be checked any more
        self._seen = 0
        self._lock = threading.Lock()

    def rows(self, start: int, shape: tuple[int, ...]) -> np.ndarray:
        """Rows from ``start`` on, as many as ``shape`` says, in an array of their own."""
        rows = np.empty(shape, self._array.dtype)
        if rows.size:
            begin = start * (rows.nbytes // len(rows))
            data = rows.reshape(-1).view(np.uint8).data  # the same memory, as bytes
            self._file.read_into(data, self._array.member.offset + self._array.skipped + begin)
            if self._pieces is not None:
                self._check(begin, len(data), zlib.crc32(data))
        return native(rows)

    def _check(self, begin: int, size: int, checksum: int) -> None:
        with self._lock:
            pieces = self._pieces
            if pieces is None:
                return
            pieces.add(begin, size, checksum)
            self._seen += size
            nbytes = self._array.spec.nbytes
            if self._seen < nbytes and len(pieces) <= _MOST_PIECES:
                return
            self._pieces = None
        tensor = pieces.whole(nbytes)
        if tensor is None:  # some rows were read twice before others were read at all
            return
        member = self._array.member
        head = zlib.crc32(self._file.read(member.offset, self._array.skipped))
        if combined(head, tensor, nbytes) != member.checksum:
            raise damaged(self._file, self._name)


class Unpacked:
    """An array that is compressed or stands in columns: whole in memory from its first row on."""

    def __init__(self, file: File, name: str, array: Array) -> None:
        self._file = file
        self._name = name
        self._array = array
        self._whole: np.ndarray | None = None
        self._lock = threading.Lock()

    def rows(self, start: int, shape: tuple[int, ...]) -> np.ndarray:
        """Rows from ``start`` on, as many as ``shape`` says, in an array of their own."""
        with self._lock:
            if self._whole is None:
                self._whole = unpacked(self._file, self._name, self._array)
        if not self._array.spec.shape:
            return self._whole.reshape(1)[start : start + shape[0]].copy()
        return np.array(self._whole[start : start + shape[0]], order="C")
