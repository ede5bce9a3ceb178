"""Files that appear whole or not at all.

A student is written to a part file beside its target, under a lock, verified there, and only then
given its name. A run that fails leaves whatever stood there before; a part file that a killed run
left behind is taken over by the next one.

Where a student is several files, one of them is the main one, which names the others or which a
reader opens first. It gets its name last, and an old one loses it first: a checkpoint is there
with all of its files or not at all. Files that got their names before the run was killed are taken
away by the next one, which finds in a journal that they were to be published.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import glob
import json
import os
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

from ckgrow.checkpoint import File
from ckgrow.errors import FileError
from ckgrow.files import RegularFile, require_other
from ckgrow.names import shown_path
from ckgrow.places import Place, local

_SUFFIX = ".ckgrow-part"

_NO_LINKS = (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK)
"""What linking fails with where there are no hard links, as on FAT."""


class PartFile:
    """The part file of ``target``, locked while the context is open, and removed at its end.

    Companions of it are covered by its lock; none is one of the files ``keep``. Raises FileError
    when the folder is missing or not writable, when ``target`` is no regular file, or is being
    written by another run.
    """

    def __init__(self, target: Place, *, force: bool, keep: Sequence[File] = ()) -> None:
        self.shown = shown_path(target)
        self.target = _resolved(local(target), self.shown)
        self.name = self.target.name
        self.path = self.target.with_name(f".{self.name}{_SUFFIX}")
        self._companions: dict[str, Path] = {}
        self._outdated: set[str] = set()
        self._journal = self._part_of("")
        self._force = force
        self._keep = keep
        self._lock = -1
        if self.taken and not os.path.isfile(self.target):
            kind = "a directory" if self.target.is_dir() else "no regular file"
            raise FileError(f"{self.shown} is {kind}; name a file to write")

    @property
    def taken(self) -> bool:
        """Whether a file bears the name already."""
        return os.path.exists(self.target)

    def require_free(self) -> None:
        """FileError when a file bears the name already and may not be replaced."""
        if self.taken and not self._force:
            raise FileError(f"{self.shown} exists; add --force to replace it")

    def __enter__(self) -> PartFile:
        try:
            while not _is_at(self._lock, self.path):  # a finishing run may have taken it away
                self._unlock()
                self._lock = self._open()
                self._claim()
                if os.fstat(self._lock).st_nlink > 1:
                    # a run was killed while it published: this very file bears the name already
                    self.path.unlink()
            self._clear_companions()  # that a killed run left behind
        except FileError:
            self._unlock()
            raise
        except BaseException:  # an interrupt, after which nothing may be left either
            if self._lock >= 0:
                self._claim()
                self._remove()
            raise
        return self

    def companion(self, name: str) -> Path:
        """Where the file that will be called ``name`` is written.

        Raises FileError when there is one already that may not be replaced, or is to be kept.
        """
        self._require_free(name)
        require_other(self.target.with_name(name), self._keep)
        self._companions[name] = self._part_of(name)
        return self._companions[name]

    def replaced(self) -> File | None:
        """The file that bears the name now."""
        return RegularFile(self.target, place=self.shown) if self.taken else None

    def outdate(self, name: str) -> None:
        """Is taken away before the new main file gets its name; FileError for one to be kept."""
        require_other(self.target.with_name(name), self._keep)
        self._outdated.add(name)

    def opened(self) -> File:
        """The part file under its name to be, with its companions beside it."""
        return RegularFile(self.path, name=self.name, place=self.shown, companions=self._companions)

    def publish(self) -> None:
        """Gives the files their names; FileError when something took the name meanwhile.

        The main file's name is free while its companions get theirs.
        """
        try:
            if self._companions or self._outdated:
                self._publish_companions()
            if self._force:
                os.replace(self.path, self.target)
            else:
                self._link()
        except FileExistsError:
            raise FileError(f"{self.shown} exists by now; add --force to replace it") from None
        except OSError as failure:
            raise self._unwritable(failure) from None
        with contextlib.suppress(OSError):  # what was to be written is there
            self._journal.unlink(missing_ok=True)
        _flush(self.target.parent)

    def keep_failed(self) -> Path:
        """Leaves the files as ``<name>.failed``, for whoever wants to look at them."""
        for name, path in self._companions.items():
            os.replace(path, self.target.with_name(f"{name}.failed"))
        failed = self.target.with_name(f"{self.name}.failed")
        os.replace(self.path, failed)
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

    def _part_of(self, name: str) -> Path:
        return self.target.with_name(f".{self.name}~{name}{_SUFFIX}")

    def _require_free(self, name: str) -> None:
        path = self.target.with_name(name)
        if not self._force and os.path.lexists(path):
            raise FileError(f"{shown_path(path)} exists; add --force to replace it")

    def _publish_companions(self) -> None:
        for name in (self.name, *self._companions):
            self._require_free(name)
        names = dict.fromkeys((*self._outdated, *self._companions), self.taken)
        self._journal.write_text(json.dumps(names), encoding="ascii")
        self.target.unlink(missing_ok=True)
        for name, path in self._companions.items():
            os.replace(path, self.target.with_name(name))
        for name in self._outdated - self._companions.keys():
            self.target.with_name(name).unlink(missing_ok=True)

    def _withdraw_companions(self) -> None:
        """Takes away the names that companions got without the main file getting its own.

        What is left of an old checkpoint whose main file is gone by now goes with them.
        """
        try:
            names = json.loads(self._journal.read_text(encoding="ascii"))
        except (OSError, ValueError):  # nothing was being published, or it had not begun
            names = {}
        for name, is_left_over in () if self.taken else names.items():
            if is_left_over or not os.path.lexists(self._part_of(name)):
                self.target.with_name(name).unlink(missing_ok=True)
        self._journal.unlink(missing_ok=True)

    def _link(self) -> None:
        """Gives the name unless it is taken, in one step where the file system has hard links."""
        try:
            os.link(self.path, self.target)
        except OSError as failure:
            if failure.errno not in _NO_LINKS:
                raise
            os.close(os.open(self.target, os.O_CREAT | os.O_EXCL | os.O_CLOEXEC))
            os.replace(self.path, self.target)

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
                f"{self.shown} cannot be locked ({failure.strerror}): its file system has no "
                "locks; write elsewhere and copy it there"
            ) from None

    def _remove(self) -> None:
        """Takes the part files away, if they are still ours, and then gives back the lock."""
        if _is_at(self._lock, self.path):
            self._clear_companions()
            self.path.unlink()
        self._unlock()

    def _clear_companions(self) -> None:
        self._withdraw_companions()
        for path in self.target.parent.glob(f".{glob.escape(self.name)}~*{_SUFFIX}"):
            path.unlink(missing_ok=True)

    def _unlock(self) -> None:
        lock, self._lock = self._lock, -1
        if lock >= 0:
            os.close(lock)

    def _open(self) -> int:
        try:
            return os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
        except FileNotFoundError:
            raise FileError(
                f"{self.shown} cannot be written: the folder {shown_path(self.path.parent)} does "
                "not exist; make it first"
            ) from None
        except OSError as failure:
            raise self._unwritable(failure) from None

    def _unwritable(self, failure: OSError) -> FileError:
        return FileError(
            f"{self.shown} cannot be written: {failure.strerror}; choose another name or folder"
        )


def _resolved(target: Path, shown: str) -> Path:
    try:
        return target.resolve()
    except (OSError, RuntimeError, ValueError) as failure:
        reason = getattr(failure, "strerror", None) or failure
        raise FileError(f"{shown} cannot be written: {reason}; choose another name") from None


def _is_at(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), os.lstat(path))
    except OSError:
        return False


def _flush(folder: Path) -> None:
    """The new name itself must survive a power failure, where the system can promise that."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
