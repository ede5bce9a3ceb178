"""Checkpoints are files from elsewhere: opened without hanging, read at offsets, never mapped.

A memory-mapped file that shrinks kills the process, so every byte comes through ``pread``.
"""

from __future__ import annotations

import io
import os
import stat
from pathlib import Path

from ckgrow.checkpoint import Format, Reader
from ckgrow.errors import CheckpointError, FileError
from ckgrow.names import shown_path
from ckgrow.registry import formats

START_LENGTH = 16
"""How many bytes of a file a format sees when it is asked whether the file is its own."""

_LARGEST_READ = 1 << 30  # one system call returns less than 2 GiB


class RegularFile:
    """A regular file opened for reading at any offset, from several threads at once.

    Raises FileError when the path is missing, not permitted, or no regular file: a directory, a
    pipe or a device is refused before it is opened, so that nothing waits for a writer.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path).absolute()
        self.place = shown_path(path)
        try:
            _require_regular(os.stat(self.path), self.place)
            self._descriptor = os.open(self.path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except (OSError, ValueError) as failure:
            raise FileError(f"{self.place} cannot be opened: {_reason(failure)}") from None
        status = os.fstat(self._descriptor)
        self.size = status.st_size
        self._identity = _identity(status)
        try:  # once more, since the path may have changed hands after the first look
            _require_regular(status, self.place)
        except FileError:
            self.close()
            raise

    def read(self, offset: int, size: int) -> bytes:
        """``size`` bytes from ``offset`` on; the errors of ``read_into``."""
        buffer = bytearray(size)
        self.read_into(memoryview(buffer), offset)
        return bytes(buffer)

    def read_into(self, buffer: memoryview, offset: int) -> None:
        """Fills ``buffer`` (of bytes) from ``offset`` on.

        Raises CheckpointError when the file ends before, FileError when the system cannot read.
        """
        filled = 0
        while filled < len(buffer):
            piece = buffer[filled : filled + _LARGEST_READ]
            try:
                count = os.preadv(self._descriptor, [piece], offset + filled)
            except OSError as failure:
                raise FileError(f"{self.place} cannot be read: {_reason(failure)}") from None
            if count == 0:
                raise CheckpointError(
                    f"{self.place} ends at byte {offset + filled}, before byte "
                    f"{offset + len(buffer)} that was to be read: it became shorter after it was "
                    "opened; run again when nothing writes to it"
                )
            filled += count

    def stream(self) -> io.BufferedReader:
        """The file as a Python stream from its beginning; closing it leaves the file open."""
        stream = os.fdopen(os.dup(self._descriptor), "rb")
        stream.seek(0)
        return stream

    def unchanged(self) -> bool:
        """Whether the path still leads to the file that was opened, of the same size and time."""
        try:
            return _identity(os.stat(self.path)) == self._identity
        except OSError:
            return False

    def close(self) -> None:
        """Gives the file back; closing twice does nothing."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


def open_checkpoint(path: str | Path, weights: str | None = None) -> Reader:
    """Opens the checkpoint at ``path`` in whichever format it is.

    What the file holds decides before what it is called. ``weights`` names the state dict inside
    a container. Raises FileError when the file cannot be opened, CheckpointError when no format
    can read it, SpecError when it has no ``weights`` of that name.
    """
    file = RegularFile(path)
    try:
        start = file.read(0, min(START_LENGTH, file.size))
    finally:
        file.close()
    if not start:
        raise CheckpointError(f"{file.place} is empty; fetch it again or save it again")
    return _format_of(Path(path), start).open(Path(path), weights)


def _format_of(path: Path, start: bytes) -> Format:
    known = formats().values()
    for candidate in known:
        if candidate.recognises(path, start):
            return candidate
    for candidate in known:  # it is not what its name says: that format explains what is wrong
        if path.suffix.lower() in candidate.suffixes:
            return candidate
    readable = "; ".join(f"{each.name} ({' '.join(each.suffixes)})" for each in known)
    raise CheckpointError(
        f"{shown_path(path)} is not a checkpoint ckgrow can read (it starts with {start!r}); "
        f"formats: {readable}"
    )


def _require_regular(status: os.stat_result, place: str) -> None:
    if stat.S_ISDIR(status.st_mode):
        raise FileError(f"{place} is a directory; name the checkpoint file inside it")
    if not stat.S_ISREG(status.st_mode):
        raise FileError(f"{place} is a pipe, socket or device; a checkpoint is a regular file")


def _identity(status: os.stat_result) -> tuple[int, int, int, int]:
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns


def _reason(failure: OSError | ValueError) -> str:
    """The system's words without the path, which the message already names."""
    if isinstance(failure, FileNotFoundError):
        return "no such file; check the path"
    if isinstance(failure, PermissionError):
        return "permission denied; check the permissions of the file and its folders"
    return getattr(failure, "strerror", None) or str(failure)
