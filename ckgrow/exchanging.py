"""Several files that get their names together, or those that had them before keep them.

There is no system call for that, so it is done in steps that a journal tells of: the old files are
renamed aside, the new ones get their names, the main one last, and only then do the old ones go.
Until the main file has its name, every step can be taken back; from then on, the rest can be
finished. Both are done from the journal alone, by the same run or by the next.

An old main file goes first and comes back last: who looks in between finds a whole checkpoint or
none, never a mix of two.
"""

from __future__ import annotations

import contextlib
import errno
import glob
import json
import os
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from hashlib import blake2b
from pathlib import Path

SUFFIX = ".ckgrow-part"
"""How the names of unfinished files end, and of those that stand aside."""

_NO_LINKS = (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK)
"""What linking fails with where there are no hard links, as on FAT."""


@dataclass(frozen=True)
class _Journal:
    """The names that change hands: those ``taken`` before, the main one first, and free ones."""

    taken: tuple[str, ...] = ()
    free: tuple[str, ...] = ()


class Exchange:
    """The files beside ``target`` that get or lose their names with it.

    ``part`` is the new main file, which whoever calls has a lock on.
    """

    def __init__(self, target: Path, part: Path) -> None:
        self._target = target
        self._part = part
        # Not the name itself: with that of a companion it could be longer than names may be.
        self._tag = blake2b(os.fsencode(target.name), digest_size=8).hexdigest()
        self._journal = target.with_name(f".{self._tag}{SUFFIX}")

    def new(self, name: str) -> Path:
        """Where the file that will be called ``name`` is written."""
        return self._hidden("new", name)

    def perform(self, companions: Iterable[str], outdated: Iterable[str]) -> None:
        """Gives ``companions`` and the main file their names; ``outdated`` ones lose theirs.

        Raises OSError where a step fails, FileExistsError where a name was taken meanwhile; then
        ``settle`` brings back what was there.
        """
        main = self._target.name
        getting = (*companions, main)  # the main one last
        leaving = dict.fromkeys((main, *getting, *outdated))  # and first
        taken = tuple(name for name in leaving if status_of(self._home(name)) is not None)
        free = tuple(name for name in getting if name not in taken)
        self._note(_Journal(taken, free))
        for name in taken:
            os.replace(self._home(name), self._old(name))
        for name in getting:
            give_name(self._made(name), self._home(name))

    def settle(self) -> None:
        """Takes back what was begun, or finishes what was done; nothing where nothing was begun.

        Raises OSError where it cannot. The journal and everything that it needs are there then,
        and it can be tried again.
        """
        journal = self._noted()
        if journal is not None and self._is_done(journal):
            flush(self._target.parent)  # the new names are safe before the old files go
            for name in journal.taken:
                self._old(name).unlink(missing_ok=True)
        elif journal is not None:
            self._take_back(journal)
        self._journal.unlink(missing_ok=True)

    def sweep(self) -> None:
        """Takes the unfinished files of companions away, once all is settled."""
        for path in self._target.parent.glob(f".{glob.escape(self._tag)}~new~*{SUFFIX}"):
            with contextlib.suppress(OSError):  # the others still go, and the next run tries again
                path.unlink()

    def _is_done(self, journal: _Journal) -> bool:
        """Whether the main file that is there got its name by this exchange, or never lost it."""
        main = self._target.name
        if status_of(self._target) is None:
            return False
        if main in journal.taken and status_of(self._old(main)) is None:
            return True
        present, part = os.lstat(self._target), status_of(self._part)
        # Where there are no hard links it was renamed, and an empty one may be the next run's.
        return part is None or not part.st_size or os.path.samestat(present, part)

    def _take_back(self, journal: _Journal) -> None:
        """Brings back the old files, the main one last, when all else is as it was."""
        for name in journal.free:
            if self._is_ours(name):
                self._home(name).unlink()
        for name in (*journal.taken[1:], *journal.taken[:1]):
            home, old = self._home(name), self._old(name)
            if status_of(old) is None:
                continue  # it was not moved yet, or is back already
            if status_of(home) is not None and not self._is_ours(name):
                raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(home))
            os.replace(old, home)

    def _is_ours(self, name: str) -> bool:
        """Whether what bears the name has it by ``give_name``, or is what that begins with."""
        present, made = status_of(self._home(name)), status_of(self._made(name))
        if present is None:
            return False
        return made is None or not present.st_size or os.path.samestat(present, made)

    def _note(self, journal: _Journal) -> None:
        """Writes the journal, which is on the disk before the first name changes."""
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
        with open(os.open(self._journal, flags, 0o666), "w", encoding="ascii") as stream:
            json.dump(asdict(journal), stream)
            stream.flush()
            os.fsync(stream.fileno())
        flush(self._target.parent)

    def _noted(self) -> _Journal | None:
        """What the journal says; one that is no journal was not finished, so nothing was begun."""
        flags = os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            with open(os.open(self._journal, flags), encoding="ascii") as stream:
                found = json.load(stream)
        except (FileNotFoundError, ValueError, RecursionError):
            return None
        if not isinstance(found, dict) or set(found) != {"taken", "free"}:
            return None
        if not all(_are_bare(names) for names in found.values()):
            return None
        return _Journal(tuple(found["taken"]), tuple(found["free"]))

    def _home(self, name: str) -> Path:
        return self._target.with_name(name)

    def _made(self, name: str) -> Path:
        """Where the file is that gets the name ``name``."""
        return self._part if name == self._target.name else self.new(name)

    def _old(self, name: str) -> Path:
        """Where the file that is called ``name`` stands aside."""
        return self._hidden("old", name)

    def _hidden(self, kind: str, name: str) -> Path:
        return self._target.with_name(f".{self._tag}~{kind}~{name}{SUFFIX}")


def give_name(part: Path, target: Path) -> None:
    """Gives a file its name, in one step where the file system has hard links.

    It may keep its name of before beside it. FileExistsError when the name is taken.
    """
    try:
        os.link(part, target)
    except OSError as failure:
        if failure.errno not in _NO_LINKS:
            raise
        os.close(os.open(target, os.O_CREAT | os.O_EXCL | os.O_CLOEXEC))
        os.replace(part, target)


def status_of(path: Path) -> os.stat_result | None:
    """Of the file itself, be it a link; None when there is none."""
    try:
        return os.lstat(path)
    except FileNotFoundError:
        return None


def flush(folder: Path) -> None:
    """New names in ``folder`` are to survive a power failure, where the system can promise it."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _are_bare(names: object) -> bool:
    """Whether they are names of files in a folder, and lead nowhere else."""
    return isinstance(names, list) and all(
        isinstance(name, str) and name not in ("", ".", "..") and not {"/", "\0"} & set(name)
        for name in names
    )
