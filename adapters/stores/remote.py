"""Files behind URLs, through fsspec: S3, Google Cloud Storage, Hugging Face, the web and others.

Which of fsspec's packages serves a scheme, where it finds credentials and which server it talks to
are fsspec's own configuration; nothing of that is looked at here.
"""

from __future__ import annotations

import contextlib
from functools import partial
from pathlib import Path
from typing import Any

from ckgrow.checkpoint import File
from ckgrow.errors import FileError
from ckgrow.names import shown_path

from ._asking import asked, is_web
from ._read_ahead import Shelf
from ._reasons import is_unsupported, told
from ._remote_file import RemoteFile
from ._systems import system_of
from ._waiting import answered

_PART = 1 << 23
"""Bytes of one request that writes, unless that would make too many."""

_MOST_PARTS = 9_000

_WRITE_LIMIT = 600.0
"""Seconds that a request that writes may take, with everything tried anew."""

_REMOVE_LIMIT = 15.0
"""Seconds that clearing up may take: it also happens after an interrupt, which is not to hang."""


class Remote:
    """The store adapter."""

    name = "fsspec"

    def __init__(self) -> None:
        self._shelf = Shelf()

    def open(self, url: str) -> File:
        """The file at ``url``, of which nothing but its size is read."""
        system, key = system_of(url)
        try:
            return RemoteFile(system, key, url, self._shelf)
        except FileNotFoundError:
            raise FileError(
                f"{shown_path(url)} cannot be opened: no such file; check the URL"
            ) from None

    def listing(self, url: str) -> tuple[str, ...] | None:
        """The names in the folder ``url``, None when it is no folder.

        What has an ending is taken for a file without asking, unless it ends in a slash. On the
        web there are no folders.
        """
        if not url.endswith("/") and "." in url.rpartition("/")[2]:
            return None
        system, key = system_of(url)
        if is_web(system):
            return None
        key = key.rstrip("/")

        def ask() -> list[str]:
            system.invalidate_cache(key)
            return [each["name"].rstrip("/") for each in system.ls(key, detail=True)]

        try:
            names = asked(system, shown_path(url), "opened", ask)
        except FileNotFoundError:
            return None
        if names == [key]:  # a file is listed as itself
            return None
        return tuple(name.rpartition("/")[2] for name in names)

    def exists(self, url: str) -> bool:
        """Whether a file is there; FileError where not even its bucket is."""
        system, key = system_of(url)

        def ask() -> bool:
            system.invalidate_cache(key)
            return bool(system.info(key)["type"] != "directory")

        try:
            return asked(system, shown_path(url), "looked for", ask)
        except FileNotFoundError:
            return False

    def require_writable(self, url: str) -> None:
        """FileError for a kind of URL that can only be read."""
        if is_web(system_of(url)[0]):
            raise FileError(
                f"{shown_path(url)} cannot be written: nothing is written to the web; write a "
                "file here and copy it there"
            )

    def put(self, source: Path, url: str, *, replace: bool) -> None:
        """Copies a finished file there, which appears as a whole or not at all.

        FileError when a file is there already and is not to be replaced.
        """
        system, key = system_of(url)
        with told(shown_path(url), "written"):
            try:
                _upload(system, source, key, "wb" if replace else "xb")
            except FileExistsError:
                raise FileError(
                    f"{shown_path(url)} exists by now; add --force to replace it"
                ) from None
            except Exception as failure:
                if replace or not is_unsupported(failure):
                    raise
                _upload(system, source, key, "wb")  # a server that cannot look and write at once

    def copy(self, url: str, another: str) -> None:
        """Copies a file to ``another`` URL of the same store, without it coming here."""
        (system, key), (_, target) = system_of(url), system_of(another)
        with told(shown_path(another), "written"):
            answered(partial(system.cp_file, key, target), limit=_WRITE_LIMIT)

    def remove(self, url: str) -> None:
        """Takes a file away; one that is not there is no error."""
        system, key = system_of(url)
        with told(shown_path(url), "removed"), contextlib.suppress(FileNotFoundError):
            answered(partial(system.rm_file, key), limit=_REMOVE_LIMIT)


def _upload(system: Any, source: Path, key: str, mode: str) -> None:
    """In parts, which become the file when the last one has arrived.

    Where the library is not asynchronous it may collect them, and send all at the end: then only
    its own time limits hold.
    """
    limit = _WRITE_LIMIT if system.async_impl else None
    size = max(_PART, -(-source.stat().st_size // _MOST_PARTS))
    begin = partial(system.open, key, mode, autocommit=False, block_size=size)
    stream = answered(begin, limit=limit)
    try:
        with open(source, "rb") as file:
            while piece := file.read(size):
                answered(partial(stream.write, piece), limit=limit)
        answered(stream.close, limit=limit)
        answered(stream.commit, limit=limit)
    except BaseException:
        stream.closed = True  # else Python would close it some day, and so complete it
        with contextlib.suppress(Exception):
            answered(stream.discard, limit=_REMOVE_LIMIT)
        raise


ADAPTER = Remote()
