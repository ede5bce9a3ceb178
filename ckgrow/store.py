"""What a store adapter is: files that are elsewhere, and reached by URL."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from ckgrow.checkpoint import File


class Store(Protocol):
    """Opens, lists and takes files by URL; raises FileError, which names the URL."""

    name: str

    def open(self, url: str) -> File:
        """The file at ``url``, of which nothing but its size is read."""
        ...

    def listing(self, url: str) -> tuple[str, ...] | None:
        """The names in the folder ``url``, None when it is no folder."""
        ...

    def exists(self, url: str) -> bool:
        """Whether a file is there."""
        ...

    def require_writable(self, url: str) -> None:
        """FileError for a kind of URL that can only be read."""
        ...

    def put(self, source: Path, url: str, *, replace: bool) -> None:
        """Copies a finished file there, which appears as a whole or not at all.

        FileError when a file is there already, unless it is to be replaced.
        """
        ...

    def copy(self, url: str, another: str) -> None:
        """Copies a file to ``another`` URL beside it, without it coming here."""
        ...

    def remove(self, url: str) -> None:
        """Takes a file away; one that is not there is no error."""
        ...
