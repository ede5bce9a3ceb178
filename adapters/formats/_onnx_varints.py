"""Whole numbers as protocol buffers pack them: seven bits to a byte, of any number of bytes.

Older models store float16, bfloat16, fp8 and small integers so. Where an element stands follows
from all before it, so they are counted once, and then only the pieces that hold it are decoded.
"""

from __future__ import annotations

import threading

import numpy as np

from ckgrow.checkpoint import File
from ckgrow.errors import CheckpointError
from ckgrow.header import TensorSpec, numpy_dtype
from ckgrow.names import shown

_PIECE = 1 << 16  # bytes
_LONGEST = 10  # bytes of one number


class Varints:
    """The elements of a tensor, packed from ``offset`` on in ``size`` bytes of a file."""

    def __init__(self, name: str, spec: TensorSpec, file: File, offset: int, size: int) -> None:
        self._name, self._spec = name, spec
        self._file, self._offset, self._size = file, offset, size
        self._lock = threading.Lock()
        self._counted: np.ndarray | None = None

    def read(self, start: int, stop: int) -> np.ndarray:
        """Elements ``start`` to ``stop`` in the tensor's dtype.

        Raises CheckpointError where there are not as many numbers as elements.
        """
        with self._lock:
            if self._counted is None:
                self._counted = self._count()
        if start == stop:
            return np.empty(0, numpy_dtype(self._spec.dtype))
        # Element n begins behind the end of n - 1; piece p holds the ends from counted[p] on.
        before = self._counted
        first = int(np.searchsorted(before, start - 1, "right")) - 1 if start else 0
        last = int(np.searchsorted(before, stop - 1, "right"))
        data = self._bytes(first * _PIECE, min(last * _PIECE, self._size))
        ends = np.flatnonzero(data < 0x80) + 1
        begins = np.concatenate((np.zeros(1, ends.dtype), ends[:-1]))
        skipped = start - int(before[first])
        own = slice(skipped, skipped + stop - start)
        return self._typed(self._decoded(data, begins[own], ends[own]))

    def _count(self) -> np.ndarray:
        """How many numbers end before each piece, and in all."""
        counts = [0]
        data = np.empty(0, np.uint8)
        for position in range(0, self._size, _PIECE):
            data = self._bytes(position, min(position + _PIECE, self._size))
            counts.append(int(np.count_nonzero(data < 0x80)))
        counted = np.cumsum(np.array(counts, np.int64))
        if counted[-1] != self._spec.size or (data.size and data[-1] >= 0x80):
            raise self._damaged(f"it holds {counted[-1]} numbers for {self._spec.size} elements")
        return counted

    def _decoded(self, data: np.ndarray, begins: np.ndarray, ends: np.ndarray) -> np.ndarray:
        lengths = ends - begins
        longest = int(lengths.max())
        if longest > _LONGEST:
            raise self._damaged("a number in it has no end")
        values = np.zeros(len(begins), np.uint64)
        for index in range(longest):
            reaching = np.flatnonzero(lengths > index)
            bits = (data[begins[reaching] + index] & 0x7F).astype(np.uint64)
            values[reaching] |= bits << np.uint64(7 * index)
        return values

    def _typed(self, values: np.ndarray) -> np.ndarray:
        """Of floating point numbers the bits were stored, of others the values."""
        dtype = numpy_dtype(self._spec.dtype)
        if dtype.kind in "iub":
            return values.astype(bool) if dtype.kind == "b" else values.astype(dtype)
        return values.astype(f"u{dtype.itemsize}").view(dtype)

    def _bytes(self, start: int, stop: int) -> np.ndarray:
        return np.frombuffer(self._file.read(self._offset + start, stop - start), np.uint8)

    def _damaged(self, what: str) -> CheckpointError:
        return CheckpointError(
            f"{self._file.place}: the data of tensor {shown(self._name)} is damaged: {what}; "
            "fetch or save the model again"
        )
