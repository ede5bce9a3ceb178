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
from ckgrow.exchanging import SUFFIX
from ckgrow.files import RegularFile, Stamps, require_other
from ckgrow.names import shown_path
from ckgrow.places import beside, name_of
from ckgrow.reasons import unwritable
from ckgrow.registry import store


class UploadedPart:
    """A checkpoint that is made in a temporary folder here, and copied to a URL when it is whole.

    Its main file is copied last. There are no locks elsewhere: of two runs onto one URL the first
    one stays, or the last one with ``force``. None of the files ``keep`` is replaced. Raises
    FileError for a URL that nothing can be written to.
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
        """Goes when the new main file comes, if it is there; FileError for one to be kept."""
        require_other(beside(self._url, name), self._keep)
        self._outdated.append(name)

    def opened(self) -> File:
        """The main file in the temporary folder."""
        return RegularFile(self.path, place=self.shown)

    def stamps(self) -> Stamps:
        """None, as the files will not be on this machine."""
        return {}

    def publish(self) -> None:
        """Copies the files, the main one last. If one cannot be, those of before are there again.

        A single file is replaced in one step. Of several, the old ones are copied aside first, and
        the old main one goes before anything changes: who looks in between finds none.
        """
        self.require_free()
        outdated = [name for name in self._outdated if self._has(name)]
        if not (self._companions or outdated):
            store().put(self.path, self._url, replace=self._force)
            return
        old = [name for name in (self.name, *self._companions) if self._has(name)] + outdated
        if old and not self._force:
            place = shown_path(self._at(old[0]))
            raise FileError(f"{place} exists by now; add --force to replace it")
        kept: list[str] = []
        new: list[str] = []
        try:
            for name in old:
                store().copy(self._at(name), self._aside(name))
                kept.append(name)
            for name in (self.name, *outdated):
                store().remove(self._at(name))
            for name in (*self._companions, self.name):
                store().put(self.path.with_name(name), self._at(name), replace=self._force)
                new.append(name)
        except BaseException as failure:
            if kept == old:  # before, nothing was changed
                self._bring_back(old, new, failure)
            self._forget(kept)
            raise
        self._forget(old)

    def keep_failed(self) -> Path:
        """Moves the files out of the temporary folder, into the one that ckgrow runs in."""
        failed = Path.cwd() / f"{self.name}.failed"
        for name in (*self._companions, self.name):
            require_other(failed.with_name(f"{name}.failed"), self._keep)
        try:
            for name in (*self._companions, self.name):
                shutil.move(self.path.with_name(name), failed.with_name(f"{name}.failed"))
        except OSError as failure:
            raise FileError(
                f"{shown_path(failed)} cannot be written: {unwritable(failure)}"
            ) from None
        return failed

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._folder.cleanup()

    def _bring_back(self, old: Sequence[str], new: Sequence[str], failure: BaseException) -> None:
        """What was there before is there again, its main file last, and nothing else."""
        try:
            for name in reversed(new):
                store().remove(self._at(name))
            for name in reversed(old):
                store().copy(self._aside(name), self._at(name))
        except FileError as another:
            raise FileError(
                f"{failure}; what stood there cannot be brought back ({another}): it waits beside "
                f"it, under names that end in {SUFFIX}"
            ) from failure

    def _forget(self, names: Sequence[str]) -> None:
        """Takes the copies away."""
        for name in names:
            with contextlib.suppress(FileError):  # what matters is there
                store().remove(self._aside(name))

    def _has(self, name: str) -> bool:
        return store().exists(self._at(name))

    def _at(self, name: str) -> str:
        return self._url if name == self.name else str(beside(self._url, name))

    def _aside(self, name: str) -> str:
        """Where an old file is while others get their names."""
        return str(beside(self._url, f".{self.name}~old~{name}{SUFFIX}"))
