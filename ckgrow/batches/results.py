"""The file of records: appended to as jobs finish, read when a batch runs again."""

from __future__ import annotations

import fcntl
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

from ckgrow.batches.records import FAILED, Record
from ckgrow.errors import FileError, SpecError
from ckgrow.names import shown_path
from ckgrow.reasons import unwritable

_TORN = b'{"teacher": '
"""How the part of a record begins that a killed run left behind."""


class Results:
    """The file at ``path``, locked while the context is open, and made if there is none.

    ``known`` has the latest record of every output that was made, whatever failed since, by the
    output as it was named.
    Raises FileError when the file cannot be written or another batch writes to it, SpecError when
    there are other things in it than records. The torn last line of a killed run is cut off.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.known: dict[str, Record] = {}
        self._descriptor = -1

    def __enter__(self) -> Results:
        shown = shown_path(self.path)
        try:
            flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_NONBLOCK | os.O_CLOEXEC
            self._descriptor = os.open(self.path, flags, 0o666)
            if not stat.S_ISREG(os.fstat(self._descriptor).st_mode):
                raise FileError(f"{shown} is no regular file; name another one with --results")
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self._read(shown)
        except BaseException as failure:
            self._close()
            if isinstance(failure, BlockingIOError):
                raise FileError(f"{shown} is being written by another batch; wait for it") from None
            if isinstance(failure, OSError):
                raise FileError(f"{shown} cannot be written: {unwritable(failure)}") from None
            raise
        return self

    def append(self, record: Record) -> None:
        """Adds a record; it is with the system, whatever becomes of this process."""
        line = memoryview(record.to_json().encode() + b"\n")
        try:
            while line:
                line = line[os.write(self._descriptor, line) :]
        except OSError as failure:
            raise FileError(
                f"{shown_path(self.path)} cannot be written: {unwritable(failure)}"
            ) from None

    def _read(self, shown: str) -> None:
        whole = 0
        for number, line in enumerate(self._lines(), 1):
            try:
                record = Record.from_json(line)
            except ValueError:
                if not line.endswith(b"\n") and line.startswith(_TORN[: len(line)]):
                    os.ftruncate(self._descriptor, whole)
                    return
                raise SpecError(
                    f"{shown}:{number}: this is no record of a batch; name another file with "
                    "--results"
                ) from None
            whole += len(line)
            if record.status != FAILED:
                self.known[record.output] = record
            if not line.endswith(b"\n"):  # all but the last byte was written
                os.write(self._descriptor, b"\n")

    def _lines(self) -> Iterator[bytes]:
        with open(os.dup(self._descriptor), "rb") as file:
            yield from file

    def _close(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._close()
