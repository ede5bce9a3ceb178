"""How running jobs learn that they are to stop, in whichever process or machine they run.

Whoever runs a batch makes a file when it is to end; jobs look for it between pieces of their work,
and clean up behind themselves. A signal would reach neither a thread nor another machine, and what
reaches a worker process kills it.
"""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path
from types import TracebackType

from ckgrow.errors import Terminated

_EVERY = 0.1
"""Seconds between two looks."""


class Sign:
    """The file that stops jobs: beside ``results``, and only once it was raised.

    One that a killed batch left behind is gone when the context begins, and so is this one at its
    end.
    """

    def __init__(self, results: Path) -> None:
        self.path = results.absolute().with_name(f".{results.name}.ckgrow-stop")
        self.raised = False

    def raise_(self) -> None:
        """Running jobs stop, and those that would begin do not."""
        self.raised = True
        with contextlib.suppress(OSError):  # a full disk: then running jobs finish
            self.path.touch()

    def _lower(self) -> None:
        with contextlib.suppress(OSError):
            self.path.unlink(missing_ok=True)

    def __enter__(self) -> Sign:
        self._lower()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._lower()


class Obedient:
    """Watches a run, and stops it by Terminated once the sign at ``path`` is there.

    The run stops also when ``parent``, the process that hands out the jobs, had this one as its
    child and is dead. "" and 0 stand for no sign and no such process.
    """

    def __init__(self, path: str, parent: int) -> None:
        self._path = path
        self._parent = parent if parent == os.getppid() else 0
        self._looked = 0.0

    def begin(self, what: str, total: int) -> None:
        """A part of the work begins."""
        self._look()

    def advance(self, count: int) -> None:
        """A tile is written."""
        if time.monotonic() - self._looked > _EVERY:
            self._look()

    def _look(self) -> None:
        self._looked = time.monotonic()
        orphaned = self._parent and os.getppid() != self._parent
        if orphaned or (self._path and os.path.exists(self._path)):
            raise Terminated
