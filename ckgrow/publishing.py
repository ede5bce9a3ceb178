"""Files that appear whole or not at all.

A student is written to a part file beside its target, under a lock, verified there, and only then
given its name. A run that fails leaves whatever stood there before; a part file that a killed run
left behind is taken over by the next one.

Where a student is several files, one of them is the main one, which names the others or which a
reader opens first. How they get their names together is told in ``exchanging``.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

from ckgrow.checkpoint import File
from ckgrow.errors import FileError
from ckgrow.exchanging import SUFFIX, Exchange, flush, give_name, status_of
from ckgrow.files import RegularFile, Stamps, require_other
from ckgrow.names import shown_path
from ckgrow.places import Place, local
from ckgrow.reasons import unwritable, words


class PartFile:
    """The part file of ``target``, locked while the context is open, and removed at its end.

    Companions of it are covered by its lock. None of the files ``keep`` is replaced, nor taken
    away: they are a teacher's, in the order of ``Reader.files``. Raises FileError when the folder
    is missing or not writable, when ``target`` is no regular file or one of those, or is being
    written by another run.
    """

    def __init__(self, target: Place, *, force: bool, keep: Sequence[File] = ()) -> None:
        self.shown = shown_path(target)
        self.target = _resolved(local(target), self.shown)
        self.name = self.target.name
        self.path = self.target.with_name(f".{self.name}{SUFFIX}")
        self._exchange = Exchange(self.target, self.path)
        self._companions: dict[str, Path] = {}
        self._outdated: list[str] = []
        self._force = force
        self._keep = tuple(keep)
        self._lock = -1
        _require_file(self.target, self.shown)
        require_other(target, self._keep)

    @property
    def taken(self) -> bool:
        """Whether a file bears the name already."""
        return os.path.exists(self.target)

    def require_free(self) -> None:
        """FileError when a file bears the name already and may not be replaced."""
        self._require_free(self.target, self.shown)

    def __enter__(self) -> PartFile:
        try:
            while not self._claimed():
                self._unlock()
        except FileError:
            self._unlock()
            raise
        except BaseException:  # an interrupt, after which nothing may be left either
            if self._is_locked():
                self._remove()
            self._unlock()
            raise
        return self

    def companion(self, name: str) -> Path:
        """Where the file that will be called ``name`` is written.

        Raises FileError when there is one already that may not be replaced.
        """
        self._require_changeable(name)
        self._companions[name] = self._exchange.new(name)
        return self._companions[name]

    def replaced(self) -> File | None:
        """The file that bears the name now."""
        return RegularFile(self.target, place=self.shown) if self.taken else None

    def outdate(self, name: str) -> None:
        """The file goes when the new main file gets its name; the errors of ``companion``."""
        if os.path.isfile(self._home(name)):
            self._require_changeable(name)
            self._outdated.append(name)

    def opened(self) -> File:
        """The part file under its name to be, with its companions beside it."""
        return RegularFile(self.path, name=self.name, place=self.shown, companions=self._companions)

    def stamps(self) -> Stamps:
        """Of the files as they are written, by the paths that they will have."""
        parts = {self.name: self.path, **self._companions}
        found = ((self._home(name), os.stat(path)) for name, path in parts.items())
        return {str(home): (status.st_size, status.st_mtime_ns) for home, status in found}

    def publish(self) -> None:
        """Gives the files their names; FileError when something took the name meanwhile."""
        for name in (*self._companions, *self._outdated):
            self._require_changeable(name)
        try:
            outdated = [name for name in self._outdated if status_of(self._home(name))]
            if self._companions or outdated:
                self.require_free()
                self._exchange.perform(self._companions, outdated)
            elif self._force:
                os.replace(self.path, self.target)
            else:
                give_name(self.path, self.target)
        except OSError as failure:
            raise self._unpublished(failure) from None
        flush(self.target.parent)

    def keep_failed(self) -> Path:
        """Leaves the files as ``<name>.failed``, for whoever wants to look at them."""
        failed = self._home(f"{self.name}.failed")
        for name in (*self._companions, self.name):
            require_other(self._home(f"{name}.failed"), self._keep)
        try:
            for name, path in self._companions.items():
                os.replace(path, self._home(f"{name}.failed"))
            os.replace(self.path, failed)
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
        try:
            self._remove()
        except BaseException:  # an interrupt at the last moment
            self._remove()
            raise

    def _home(self, name: str) -> Path:
        return self.target.with_name(name)

    def _require_changeable(self, name: str) -> None:
        home = self._home(name)
        self._require_free(home, shown_path(home))
        require_other(home, self._keep)

    def _require_free(self, path: Path, shown: str) -> None:
        _require_file(path, shown)
        if not self._force and os.path.lexists(path):
            raise FileError(f"{shown} exists; add --force to replace it")

    def _claimed(self) -> bool:
        """Whether the part file is ours now, and what a killed run left is settled."""
        self._lock = self._open()
        self._claim()
        if not _is_at(self._lock, self.path):  # a finishing run took it away
            return False
        try:
            self._exchange.settle()
        except OSError as failure:
            raise self._unsettled(failure) from None
        self._exchange.sweep()
        if os.fstat(self._lock).st_nlink > 1:
            # a run was killed while it published: this very file bears the name already
            self.path.unlink()
            return False
        return True

    def _open(self) -> int:
        try:
            return os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
        except FileNotFoundError:
            raise FileError(
                f"{self.shown} cannot be written: the folder {shown_path(self.path.parent)} does "
                "not exist; make it first"
            ) from None
        except OSError as failure:
            raise FileError(f"{self.shown} cannot be written: {unwritable(failure)}") from None

    def _claim(self) -> None:
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise FileError(
                f"{self.shown} is being written by another run; wait for it, or write elsewhere"
            ) from None
        except OSError as failure:
            self._remove()
            raise FileError(
                f"{self.shown} cannot be locked ({words(failure)}): its file system has no "
                "locks; write elsewhere and copy it there"
            ) from None

    def _is_locked(self) -> bool:
        """Whether the lock is ours, after whatever came in between."""
        if self._lock < 0:
            return False
        with contextlib.suppress(OSError):
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        return False

    def _remove(self) -> None:
        """Takes the part files away, if they are still ours, and gives back the lock.

        What cannot be settled stays as it is, for the next run.
        """
        with contextlib.suppress(OSError):
            unpublished = _is_at(self._lock, self.path)
            # Where there are no hard links, a file that got its name has lost that of the part.
            if unpublished or _is_at(self._lock, self.target):
                self._exchange.settle()
                self._exchange.sweep()
            if unpublished:
                self.path.unlink()
        self._unlock()

    def _unlock(self) -> None:
        lock, self._lock = self._lock, -1
        if lock >= 0:
            os.close(lock)

    def _unpublished(self, failure: OSError) -> FileError:
        """The error of names that were not given, with the old ones back if that can be."""
        try:
            self._exchange.settle()
        except OSError as another:
            return self._unsettled(another)
        if not isinstance(failure, FileExistsError):
            return FileError(f"{self.shown} cannot be written: {unwritable(failure)}")
        if self._force:
            return FileError(f"{self._named(failure)} appeared by now; run again")
        return FileError(f"{self._named(failure)} exists by now; add --force to replace it")

    def _unsettled(self, failure: OSError) -> FileError:
        reason = words(failure)
        if isinstance(failure, FileExistsError):
            reason = f"{self._named(failure)} is in the way; move it elsewhere"
        return FileError(
            f"{self.shown} was being replaced, and what stood there cannot be brought back "
            f"({reason}): it waits in hidden files beside it; run again, which tries that first"
        )

    def _named(self, failure: OSError) -> str:
        """Which file a failure is about."""
        path = os.fsdecode(failure.filename2 or failure.filename or self.target)
        return self.shown if path == str(self.target) else shown_path(path)


def _require_file(path: Path, shown: str) -> None:
    """FileError when there is something that is no file, and that no file takes the place of."""
    if os.path.exists(path) and not os.path.isfile(path):
        kind = "a directory" if path.is_dir() else "no regular file"
        raise FileError(f"{shown} is {kind}; name a file to write")


def _resolved(target: Path, shown: str) -> Path:
    try:
        return target.resolve()
    except (OSError, RuntimeError, ValueError) as failure:
        raise FileError(
            f"{shown} cannot be written: {words(failure)}; choose another name"
        ) from None


def _is_at(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), os.lstat(path))
    except OSError:
        return False
