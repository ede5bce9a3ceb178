"""A progress bar for the terminal."""

from __future__ import annotations

from types import TracebackType

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeRemainingColumn,
)


class Bars:
    """One bar at a time: a count of bytes where there is one, a spinner where there is none."""

    def __init__(self) -> None:
        self._progress = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            DownloadColumn(),
            TimeRemainingColumn(),
            console=Console(stderr=True),
            transient=True,
        )
        self._task = self._progress.add_task("starting", total=None)

    def begin(self, what: str, total: int) -> None:
        """A part of the work begins; ``total`` in bytes, 0 when it cannot be counted."""
        self._progress.reset(self._task, description=what, total=total or None)

    def advance(self, count: int) -> None:
        """So many bytes more are done."""
        self._progress.advance(self._task, count)

    def __enter__(self) -> Bars:
        self._progress.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._progress.stop()
