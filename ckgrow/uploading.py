"""Files that are made here and copied to a URL when they are whole."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

from ckgrow.checkpoint import File
from ckgrow.errors import FileError
from ckgrow.files import RegularFile, require_other
from ckgrow.names import shown_path
from ckgrow.places import beside, name_of
from ckgrow.registry import store


class UploadedPart:
    """A checkpoint that is made in a temporary folder here, and copied to a URL when it is whole.

    Its main file is copied last. There are no locks elsewhere: of two runs onto one URL the first
    one stays, or the last one with ``force``. None of the files ``keep`` is replaced. Raises FileError for a URL that nothing can be
    written to.
    """

    def __init__(self, url: str, *, force: bool, keep: Sequence[File] = ()) -> None:
        self.shown = shown_path(url)
        self.name = name_of(url)
        if not self.name:
            raise FileError(f"{self.shown} names no file; add the name of the student")
        store().require_writable(url)
        self._url = url
        self._force = force
        self._keep = keep
        self._companions: list[str] = []
        self._outdated: list[str] = []

    @property
    def taken(self) -> bool:
        """Whether a file is there already."""
        return store().exists(self._url)

    def require_free(self) -> None:
        """FileError when a file is there already and may not be replaced."""
        if not self._force and self.taken:
            raise FileError(f"{self.shown} exists; add --force to replace it")

    def __enter__(self) -> UploadedPart:
        self._folder = tempfile.TemporaryDirectory(prefix="ckgrow-")
        self.path = Path(self._folder.name) / self.name
        return self

    def companion(self, name: str) -> Path:
        """Beside the main file, in the temporary folder; FileError for one to be kept."""
        require_other(beside(self._url, name), self._keep)
        self._companions.append(name)
        return self.path.with_name(name)

    def replaced(self) -> File | None:
        """The main file that is at the URL now."""
        return store().open(self._url) if self.taken else None

    def outdate(self, name: str) -> None:
        """Is taken away once the new main file is there; FileError for one to be kept."""
        require_other(beside(self._url, name), self._keep)
        self._outdated.append(name)

    def opened(self) -> File:
        """The main file in the temporary folder."""
        return RegularFile(self.path, place=self.shown)

    def publish(self) -> None:
        """Copies the files, the main one last; an old main file goes before its companions do.

        Those that were copied are taken away again when another cannot be.
        """
        self.require_free()
        if self._companions and self.taken:
            store().remove(self._url)
        there: list[str] = []
        try:
            for name in (*self._companions, self.name):
                url = str(beside(self._url, name))
                store().put(self.path.with_name(name), url, replace=self._force)
                there.append(url)
        except BaseException:
            with contextlib.suppress(FileError):  # if one stays, so would the others
                for url in there:
                    store().remove(url)
            raise
        for name in self._outdated:
            with contextlib.suppress(FileError):  # what was to be written is there
                store().remove(str(beside(self._url, name)))

    def keep_failed(self) -> Path:
        """Moves the files out of the temporary folder, into the one that ckgrow runs in."""
        for name in (*self._companions, self.name):
            shutil.move(self.path.with_name(name), Path.cwd() / f"{name}.failed")
        return Path.cwd() / f"{self.name}.failed"

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._folder.cleanup()
