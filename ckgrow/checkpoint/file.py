"""What a file is to a format: bytes at offsets, wherever they are."""

from __future__ import annotations

from pathlib import Path
from typing import BinaryIO, Protocol

from ckgrow.places import Place


class File(Protocol):
    """The bytes of a file, wherever it is, read at any offset from several threads at once.

    ``place`` is where it is as messages name it, ``name`` its own name without folders, ``size``
    in bytes, ``path`` where this machine has it (None where it has not). ``stamp`` is the size and
    the time of change, in nanoseconds, of what was opened; None where the times of files are
    not to be relied on.
    """

    place: str
    name: str
    size: int
    path: Path | None
    stamp: tuple[int, int] | None

    def read(self, offset: int, size: int) -> bytes:
        """``size`` bytes from ``offset`` on; the errors of ``read_into``."""
        ...

    def read_into(self, buffer: memoryview, offset: int) -> None:
        """Fills ``buffer`` (of bytes) from ``offset`` on.

        Raises CheckpointError when the file ends before, FileError when it cannot be read.
        """
        ...

    def stream(self) -> BinaryIO:
        """The file as a Python stream from its beginning; closing it leaves the file open."""
        ...

    def sibling(self, name: str) -> File | None:
        """The file ``name`` in the same folder or below it, None when there is none.

        Raises CheckpointError for a name that leads out of the folder, by its words or by a
        symbolic link; names stand in files from elsewhere.
        """
        ...

    def unchanged(self) -> bool:
        """Whether it is still the file that was opened, which may be closed by now."""
        ...

    def is_at(self, place: Place) -> bool:
        """Whether it is what stands at ``place``, by this name or by another."""
        ...

    def close(self) -> None:
        """Gives the file back; closing twice does nothing."""
        ...
