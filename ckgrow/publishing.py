"""Files that appear whole or not at all.

A student is written to a part file beside its target, under a lock, verified there, and only then
given its name. A run that fails leaves whatever stood there before; a part file that a killed run
left behind is taken over by the next one.
"""

from __future__ import annotations

import fcntl
import os
from pathlib import Path
from types import TracebackType

from ckgrow.errors import FileError
from ckgrow.files import shown_path


class PartFile:
    """The part file of ``target``, locked while the context is open, and removed at its end.

    Raises FileError when the folder is missing or not writable, when ``target`` is no regular
    file, exists without ``force``, or is being written by another run.
    """

    def __init__(self, target: str | Path, *, force: bool) -> None:
        self.shown = shown_path(target)
        self.target = _resolved(Path(target), self.shown)
        self.path = self.target.with_name(f".{self.target.name}.ckgrow-part")
        self._force = force
        self._lock = -1
        if self.target.exists() and not self.target.is_file():
            kind = "a directory" if self.target.is_dir() else "no regular file"
            raise FileError(f"{self.shown} is {kind}; name a file to write")
        if self.target.exists() and not force:
            raise FileError(f"{self.shown} exists; add --force to replace it")

    def __enter__(self) -> PartFile:
        while self._lock < 0:
            lock = self._open()
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                os.close(lock)
                raise FileError(
                    f"{self.shown} is being written by another run; wait for it, or write elsewhere"
                ) from None
            if _is_at(lock, self.path):  # not one that a finishing run has just taken away
                self._lock = lock
            else:
                os.close(lock)
        return self

    def publish(self) -> None:
        """Gives the part file its name; FileError when something took the name meanwhile."""
        try:
            if self._force:
                os.replace(self.path, self.target)
            else:
                os.link(self.path, self.target)
        except FileExistsError:
            raise FileError(f"{self.shown} exists by now; add --force to replace it") from None
        except OSError as failure:
            raise FileError(f"{self.shown} cannot be written: {failure.strerror}") from None
        _flush(self.target.parent)

    def keep_failed(self) -> Path:
        """Leaves the part file as ``<target>.failed``, for whoever wants to look at it."""
        failed = self.target.with_name(f"{self.target.name}.failed")
        os.replace(self.path, failed)
        return failed

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if _is_at(self._lock, self.path):
            self.path.unlink()
        os.close(self._lock)

    def _open(self) -> int:
        try:
            return os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        except FileNotFoundError:
            raise FileError(
                f"{self.shown} cannot be written: the folder {shown_path(self.path.parent)} does "
                "not exist; make it first"
            ) from None
        except OSError as failure:
            raise FileError(f"{self.shown} cannot be written: {failure.strerror}") from None


def _resolved(target: Path, shown: str) -> Path:
    try:
        return target.resolve()
    except (OSError, RuntimeError, ValueError) as failure:
        raise FileError(f"{shown} cannot be written: {failure}") from None


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
