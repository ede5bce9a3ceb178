"""A file being written at any place in it, whose size is known before anything is computed."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ckgrow.errors import FileError
from ckgrow.names import shown_path
from ckgrow.reasons import unwritable

from ._write_behind import WriteBehind

_LARGEST_WRITE = 1 << 30  # one system call takes less than 2 GiB


class OutputFile:
    """A file of ``size`` bytes, empty before, that several threads write to.

    Without a size it is one that was made so earlier, and is written on.

    Raises FileError when it cannot be opened or the space is not there; then an empty file may be
    left at the path.
    """

    def __init__(self, path: Path, size: int | None) -> None:
        self.place = shown_path(path)
        flags = os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC | (0 if size is None else os.O_CREAT)
        with reported(self.place):
            self._descriptor = os.open(path, flags, 0o666)
        try:
            if not stat.S_ISREG(os.fstat(self._descriptor).st_mode):
                raise FileError(f"{self.place} is a pipe or device; the output is a regular file")
            if size is not None:
                with reported(self.place):
                    os.ftruncate(self._descriptor, 0)
                    _reserve(self._descriptor, size)
            self._behind = WriteBehind(self._descriptor)
        except BaseException:
            self.abandon()
            raise

    def write(self, data: bytes | memoryview, offset: int) -> None:
        """Writes ``data`` from ``offset`` on; FileError when it cannot be stored."""
        view = memoryview(data)
        written = 0
        while written < len(view):
            piece = view[written : written + _LARGEST_WRITE]
            with reported(self.place):
                written += os.pwrite(self._descriptor, piece, offset + written)
        self._behind.wrote(offset, len(view))

    def finish(self) -> None:
        """Flushes to the disk, and closes."""
        with reported(self.place):
            os.fsync(self._descriptor)
            descriptor, self._descriptor = self._descriptor, -1
            os.close(descriptor)

    def abandon(self) -> None:
        """Closes without finishing; doing it twice is harmless."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


@contextmanager
def reported(place: str) -> Iterator[None]:
    """Turns what the system cannot write into a FileError that names ``place``."""
    try:
        yield
    except OSError as failure:
        raise FileError(f"{place} cannot be written: {unwritable(failure)}") from None


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
