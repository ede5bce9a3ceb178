"""Checkpoints are files from elsewhere: opened without hanging, read at offsets, never mapped.

A memory-mapped file that shrinks kills the process, so every byte comes through ``pread``.
"""

from __future__ import annotations

import io
import os
import stat
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from ckgrow.checkpoint import File, Format, Reader
from ckgrow.errors import CheckpointError, FileError, SpecError
from ckgrow.names import first_few, shown, shown_path
from ckgrow.places import Place, inside, is_remote, local
from ckgrow.reasons import unreadable
from ckgrow.registry import format_named, formats, store

Stamps = Mapping[str, tuple[int, int]]
"""Size in bytes and time of change in nanoseconds of files, by their paths."""

START_LENGTH = 16
"""How many bytes of a file a format sees when it is asked whether the file is its own."""

_LARGEST_READ = 1 << 30  # one system call returns less than 2 GiB


class RegularFile:
    """A regular file of this machine.

    ``name`` and ``place`` are those of ``path`` unless given: a part file is spoken of by the name
    that it will have, and ``companions`` stand where its siblings will be.

    Raises FileError when the path is missing, not permitted, or no regular file: a directory, a
    pipe or a device is refused before it is opened, so that nothing waits for a writer.
    """

    path: Path | None

    def __init__(
        self,
        path: str | Path,
        *,
        name: str = "",
        place: str = "",
        companions: dict[str, Path] | None = None,
    ) -> None:
        self._path = Path(path).absolute()
        self.path = self._path
        self.name = name or self._path.name
        self.place = place or shown_path(path)
        self._companions = companions or {}
        try:
            _require_regular(os.stat(self._path), self.place)
            self._descriptor = os.open(self._path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except (OSError, ValueError) as failure:
            raise FileError(f"{self.place} cannot be opened: {unreadable(failure)}") from None
        status = os.fstat(self._descriptor)
        self.size = status.st_size
        self.stamp: tuple[int, int] | None = (status.st_size, status.st_mtime_ns)
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
                raise FileError(f"{self.place} cannot be read: {unreadable(failure)}") from None
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

    def sibling(self, name: str) -> RegularFile | None:
        """The file ``name`` in the same folder or below it, None when there is none.

        A link may lead to where the file itself really is, as in a cache of links. Raises
        CheckpointError for what leads elsewhere.
        """
        if name in self._companions:
            return RegularFile(self._companions[name], name=name)
        parts = Path(name).parts
        if not parts or Path(name).is_absolute() or ".." in parts or "\0" in name:
            raise CheckpointError(
                f"{self.place} names a file {shown(name)}, which is not in its folder; files that "
                "belong together lie together"
            )
        path = self._path.parent / name
        if not os.path.lexists(path):
            return None
        homes = {self._path.parent.resolve(), self._path.resolve().parent}
        if not any(path.resolve().is_relative_to(home) for home in homes):
            raise CheckpointError(
                f"{self.place} names the file {shown(name)}, a link that leads out of its folder; "
                "put the file itself there"
            )
        return RegularFile(path)

    def unchanged(self) -> bool:
        """Whether the path still leads to the file that was opened, of the same size and time."""
        try:
            return _identity(os.stat(self._path)) == self._identity
        except OSError:
            return False

    def is_at(self, place: Place) -> bool:
        """Whether ``place`` leads to the file that was opened, by this name, a link or another."""
        if is_remote(place):
            return False
        try:
            status = os.stat(local(place))
        except (OSError, ValueError):
            return False
        return (status.st_dev, status.st_ino) == self._identity[:2]

    def close(self) -> None:
        """Gives the file back; closing twice does nothing."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


def open_file(place: Place) -> File:
    """The file at a place, here or elsewhere; FileError when it cannot be opened."""
    return store().open(str(place)) if is_remote(place) else RegularFile(local(place))


def open_checkpoint(source: Place | File, weights: str | None = None) -> Reader:
    """Opens a checkpoint in whichever format it is; a folder stands for the one that is in it.

    What the file holds decides before what it is called. ``weights`` names the state dict inside
    a container. Raises FileError when the file cannot be opened, CheckpointError when no format
    can read it, SpecError when it has no ``weights`` of that name.
    """
    file = open_file(_entrance(source)) if isinstance(source, str | Path) else source
    try:
        start = file.read(0, min(START_LENGTH, file.size))
        if not start:
            raise CheckpointError(f"{file.place} is empty; fetch it again or save it again")
        found = _format_of(file, start)
        if weights is not None and not found.containers:
            several = ", ".join(each.name for each in formats().values() if each.containers)
            raise SpecError(
                f"{file.place} holds one set of weights, as {found.name} files do; choosing "
                f"weights by name is for {several} files"
            )
        return found.open(file, weights)
    except BaseException:
        file.close()
        raise


def stamps_of(files: Iterable[File]) -> Stamps:
    """Stamps of ``files`` by absolute path; empty unless all are files of this machine."""
    known = [(file.path, file.stamp) for file in files]
    stamps = {str(path): stamp for path, stamp in known if path is not None and stamp is not None}
    return stamps if len(stamps) == len(known) else {}


def require_other(place: Place, files: Sequence[File]) -> None:
    """FileError when a file to be written at ``place`` would replace one of a teacher's ``files``.

    They are in the order of ``Reader.files``.
    """
    for number, file in enumerate(files):
        if file.is_at(place):
            part = "part of the teacher" if number else "the teacher itself"
            raise FileError(f"{shown_path(place)} is {part}; write the student elsewhere")


def _entrance(place: Place) -> Place:
    """The file to open first: the place itself, or what a folder holds."""
    names = _listing(place)
    if names is None:
        return place
    endings = tuple(suffix for each in formats().values() for suffix in each.suffixes)
    found = [name for name in sorted(names) if name.lower().endswith(endings)]
    indexes = tuple(
        suffix for each in formats().values() if each.shards for suffix in each.suffixes
    )
    chosen = [name for name in found if name.lower().endswith(indexes)] or found
    if len(chosen) == 1:
        return inside(place, chosen[0])
    if not chosen:
        raise FileError(
            f"{shown_path(place)} is a directory without a checkpoint in it; name a file"
        )
    raise FileError(
        f"{shown_path(place)} is a directory with {len(chosen)} checkpoints; name one of "
        f"{first_few([shown(name) for name in chosen])}"
    )


def _listing(place: Place) -> Iterable[str] | None:
    if is_remote(place):
        return store().listing(str(place))
    try:
        return os.listdir(local(place)) if os.path.isdir(local(place)) else None
    except (OSError, ValueError) as failure:
        raise FileError(f"{shown_path(place)} cannot be opened: {unreadable(failure)}") from None


def _format_of(file: File, start: bytes) -> Format:
    for candidate in formats().values():
        if candidate.recognises(file, start):
            return candidate
    named = format_named(file.name)
    if named is not None:  # it is not what its name says: that format explains what is wrong
        return named
    readable = "; ".join(f"{each.name} ({' '.join(each.suffixes)})" for each in formats().values())
    raise CheckpointError(
        f"{file.place} is not a checkpoint ckgrow can read (it starts with {start!r}); "
        f"formats: {readable}"
    )


def _require_regular(status: os.stat_result, place: str) -> None:
    if stat.S_ISDIR(status.st_mode):
        raise FileError(f"{place} is a directory; name the checkpoint file inside it")
    if not stat.S_ISREG(status.st_mode):
        raise FileError(f"{place} is a pipe, socket or device; a checkpoint is a regular file")


def _identity(status: os.stat_result) -> tuple[int, int, int, int]:
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns
