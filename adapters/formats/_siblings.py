"""The files beside a checkpoint's main file that its tensors stand in.

There may be more of them than a process may have open. Each is looked at once when the checkpoint
is opened, and opened anew when something is read from it.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager

from ckgrow.checkpoint import File
from ckgrow.errors import FileError

from ._open_few import OpenFew


class Siblings:
    """``files`` beside ``main``, by the names that ``main`` calls them; they are closed."""

    def __init__(self, main: File, files: Mapping[str, File]) -> None:
        self._main = main
        self._files = files
        self._open: OpenFew[File] = OpenFew(self._opened, lambda file: file.close())

    def use(self, name: str) -> AbstractContextManager[File]:
        """The file ``name``, open as long as the context is; FileError when it is another now."""
        return self._open.use(name)

    def files(self) -> tuple[File, ...]:
        """All of them, as they were first opened."""
        return tuple(self._files.values())

    def close(self) -> None:
        """Gives back those that are open."""
        self._open.close()

    def _opened(self, name: str) -> File:
        known, file = self._files[name], self._main.sibling(name)
        if file is None or not known.unchanged():
            if file is not None:
                file.close()
            raise FileError(
                f"{known.place} changed while {self._main.place} was read; run again when nothing "
                "writes to it"
            )
        return file
