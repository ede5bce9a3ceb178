"""Writes a safetensors file whose every offset is known before the first tensor is computed."""

from __future__ import annotations

import errno
import json
import math
import os
import stat
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from ckgrow.errors import FileError
from ckgrow.header import numpy_dtype
from ckgrow.names import shown_path

from ._rows import rows_shape
from ._safetensors_layout import Layout

_LARGEST_WRITE = 1 << 30  # one system call takes less than 2 GiB

_REASONS = {
    errno.ENOSPC: "the disk is full; free space or write elsewhere",
    errno.EDQUOT: "the disk quota is used up; free space or write elsewhere",
    errno.EFBIG: "the file is larger than the file system or the limit of the shell allows",
    errno.EACCES: "permission denied; check the permissions of the file and its folder",
    errno.ENOENT: "its folder does not exist; make it first",
    errno.EISDIR: "it is a directory; name a file in it",
}


class SafetensorsWriter:
    """A safetensors file being written, from several threads at once."""

    def __init__(self, path: Path, start: bytes, layout: Layout) -> None:
        self._place = shown_path(path)
        self._start = start
        self._layout = layout
        self._missing = sum(spec.nbytes for spec in layout.header.values())
        self._lock = threading.Lock()
        flags = os.O_RDWR | os.O_CREAT | os.O_NONBLOCK | os.O_CLOEXEC
        with self._reported():
            self._descriptor = os.open(path, flags, 0o666)
        try:
            if not stat.S_ISREG(os.fstat(self._descriptor).st_mode):
                raise FileError(f"{self._place} is a pipe or device; the output is a regular file")
            with self._reported():
                os.ftruncate(self._descriptor, 0)
                _reserve(self._descriptor, len(start) + self._missing)
            self._write(start, 0)
        except BaseException:
            self.abandon()
            raise

    def write(self, name: str, start: int, rows: np.ndarray) -> None:
        """Writes ``rows`` of tensor ``name`` from row ``start`` on, each row once.

        Raises ValueError when they do not fit the tensor, FileError when they cannot be stored.
        """
        spec = self._layout.header[name]
        stop = start + (len(rows) if rows.ndim else 1)
        shape = rows_shape(name, spec, start, stop)
        if rows.dtype != numpy_dtype(spec.dtype) or rows.shape not in (shape, spec.shape):
            raise ValueError(
                f"rows of {rows.dtype} {rows.shape} for {name!r} of {spec.dtype} {spec.shape}"
            )
        if not rows.size:
            return
        data = np.ascontiguousarray(rows).reshape(-1).view(np.uint8)
        skipped = start * math.prod(spec.shape[1:]) * spec.itemsize
        self._write(data.data, self._layout.offsets[name] + skipped)
        with self._lock:
            self._missing -= data.nbytes

    def finish(self, replacements: Mapping[str, str]) -> None:
        """Replaces placeholders in the metadata by texts of equal length, flushes, and closes.

        Each placeholder stands exactly once in the header, and neither text needs an escape in
        JSON. Raises ValueError otherwise, and when rows are missing.
        """
        if self._missing:
            raise ValueError(f"{self._missing} bytes of tensors were not written, or some twice")
        for placeholder, text in replacements.items():
            before, after = _plain(placeholder), _plain(text)
            if len(before) != len(after) or self._start.count(before) != 1:
                raise ValueError(f"{placeholder!r} cannot be replaced by {text!r}")
            self._write(after, self._start.index(before))
        with self._reported():
            os.fsync(self._descriptor)
            descriptor, self._descriptor = self._descriptor, -1
            os.close(descriptor)

    def abandon(self) -> None:
        """Closes without finishing; whoever made the path removes it."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def _write(self, data: bytes | memoryview, offset: int) -> None:
        view = memoryview(data)
        written = 0
        while written < len(view):
            piece = view[written : written + _LARGEST_WRITE]
            with self._reported():
                written += os.pwrite(self._descriptor, piece, offset + written)

    @contextmanager
    def _reported(self) -> Iterator[None]:
        try:
            yield
        except OSError as failure:
            reason = _REASONS.get(failure.errno or 0, failure.strerror)
            raise FileError(f"{self._place} cannot be written: {reason}") from None


def _reserve(descriptor: int, size: int) -> None:
    """Takes the space now, where the file system can, so that a full disk shows at once."""
    if not hasattr(os, "posix_fallocate"):  # macOS
        os.ftruncate(descriptor, size)
        return
    try:
        os.posix_fallocate(descriptor, 0, size)
    except OSError as failure:
        os.ftruncate(descriptor, 0)  # gives back what was taken before the space ran out
        if failure.errno not in (errno.EOPNOTSUPP, errno.EINVAL):
            raise
        os.ftruncate(descriptor, size)


def _plain(text: str) -> bytes:
    if json.dumps(text, ensure_ascii=False) != f'"{text}"':
        raise ValueError(f"{text!r} needs an escape in JSON")
    return text.encode()
