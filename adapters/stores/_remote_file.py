"""A file that is elsewhere, read by ranges; no copy of it is made here."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

from ckgrow.errors import CheckpointError, FileError
from ckgrow.names import shown, shown_path
from ckgrow.places import Place, beside, is_remote, name_of

from ._asking import Ranges, asked, is_web
from ._read_ahead import ReadAhead, Shelf
from ._systems import system_of

_VERSION = (
    *("ETag", "etag", "generation", "VersionId", "blob_id", "sha256", "md5Hash", "Content-MD5"),
    *("LastModified", "Last-Modified", "last_modified", "updated", "mtime", "created"),
)
"""What stores tell that differs when a file was written anew; each tells some of it."""

_STREAM_BUFFER = 1 << 16


class RemoteFile:
    """The file ``key`` of a file system of fsspec; ``url`` is what the user calls it.

    What is read stands on ``shelf`` for a while, which all files share.

    Raises FileNotFoundError where there is none, FileError for everything else that fails.
    """

    path: Path | None = None
    stamp: tuple[int, int] | None = None

    def __init__(self, system: Any, key: str, url: str, shelf: Shelf) -> None:
        self.place = shown_path(url)
        self.name = name_of(url)
        self._system = system
        self._key = key
        self._url = url
        self._shelf = shelf
        info = self._info()
        self.size = _size(info, self.place)
        self._identity = _identity(info)
        self._pieces = ReadAhead(self._fetch, self.size, shelf)
        self._ranges = Ranges(system, key, self.size)

    def read(self, offset: int, size: int) -> bytes:
        """``size`` bytes from ``offset`` on; the errors of ``read_into``."""
        buffer = bytearray(size)
        self.read_into(memoryview(buffer), offset)
        return bytes(buffer)

    def read_into(self, buffer: memoryview, offset: int) -> None:
        """Fills ``buffer`` (of bytes) from ``offset`` on.

        Raises CheckpointError when the file ends before, FileError when it cannot be read.
        """
        if offset + len(buffer) > self.size:
            raise CheckpointError(
                f"{self.place} ends at byte {self.size}, before byte {offset + len(buffer)} that "
                "was to be read; fetch it again or save it again"
            )
        self._pieces.read_into(buffer, offset)

    def stream(self) -> io.BufferedReader:
        """The file as a Python stream from its beginning; closing it leaves the file open."""
        return io.BufferedReader(_Stream(self), _STREAM_BUFFER)

    def sibling(self, name: str) -> RemoteFile | None:
        """The file ``name`` in the same folder or below it, None when there is none.

        Raises CheckpointError for what leads elsewhere.
        """
        parts = name.replace("\\", "/").split("/")
        if not name or {"", ".", ".."} & set(parts) or not name.isprintable() or "://" in name:
            raise CheckpointError(
                f"{self.place} names a file {shown(name)}, which is not in its folder; files that "
                "belong together lie together"
            )
        # In a URL of the web some characters have a meaning, %2e%2e among them.
        written = quote(name) if is_web(self._system) else name
        url = str(beside(self._url, written))
        key = url if is_web(self._system) else f"{self._key.rpartition('/')[0]}/{written}"
        try:
            return RemoteFile(self._system, key, url, self._shelf)
        except FileNotFoundError:
            return None

    def unchanged(self) -> bool:
        """Whether the store still has the version of the file that was opened."""
        try:
            return _identity(self._info()) == self._identity
        except FileNotFoundError:
            return False

    def is_at(self, place: Place) -> bool:
        """Whether ``place`` is a URL of this file."""
        if not is_remote(place):
            return False
        system, key = system_of(str(place))
        return bool(system == self._system) and key == self._key

    def close(self) -> None:
        """Gives the memory back; there is nothing else to close."""
        self._pieces.forget()

    def _info(self) -> Mapping[str, Any]:
        """What the store knows now, not what it said earlier."""
        info: Mapping[str, Any] = asked(self._system, self.place, "opened", self._ask_anew)
        if info.get("type") == "directory":
            raise FileError(
                f"{self.place} is a folder; put a / at its end to name the checkpoint in it"
            )
        return info

    def _ask_anew(self) -> Any:
        self._system.invalidate_cache(self._key)
        return self._system.info(self._key)

    def _fetch(self, start: int, stop: int) -> bytes:
        try:
            data = asked(self._system, self.place, "read", lambda: self._ranges.fetch(start, stop))
        except (FileError, FileNotFoundError):
            self._require_unchanged()  # which says more than the end of a range that is no more
            raise
        if len(data) != stop - start:
            self._require_unchanged()
            raise FileError(
                f"{self.place} cannot be read: the server sent {len(data)} of {stop - start} "
                "bytes; try again later"
            )
        return data

    def _require_unchanged(self) -> None:
        if not self.unchanged():
            raise FileError(
                f"{self.place} changed while it was read; run again when nothing writes to it"
            )


class _Stream(io.RawIOBase):
    """A file that knows where it is."""

    def __init__(self, file: RemoteFile) -> None:
        self._file = file
        self._position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._file.size}[whence]
        if start + offset < 0:
            raise ValueError(f"position {start + offset}")
        self._position = start + offset
        return self._position

    def tell(self) -> int:
        return self._position

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer).cast("B")
        view = view[: max(0, self._file.size - self._position)]
        self._file.read_into(view, self._position)
        self._position += len(view)
        return len(view)


def _identity(info: Mapping[str, Any]) -> tuple[str, ...]:
    return str(info.get("size")), *(str(info.get(key)) for key in _VERSION)


def _size(info: Mapping[str, Any], place: str) -> int:
    size = info.get("size")
    if not isinstance(size, int) or info.get("partial") is False:
        raise FileError(
            f"{place} cannot be read in pieces: the server does not say how long it is, or sends "
            "it as a whole only; fetch it and name the copy"
        )
    return size
