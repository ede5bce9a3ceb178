"""How far a batch is: a live line on a terminal, a line per job elsewhere. All on stderr."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

import typer

from ckgrow.batches import BatchWatching, Record
from ckgrow.batches.records import FAILED, SKIPPED
from ckgrow.cli.shared import printable
from ckgrow.names import shown_path


class Lines:
    """A line per job, when it ends."""

    def begin(self, jobs: int, skipped: int) -> None:
        """How many jobs there are to run."""
        typer.echo(_beginning(jobs, skipped), err=True)

    def finished(self, record: Record) -> None:
        """What became of one."""
        typer.echo(_line(record), err=True)


class Live:
    """Counts, a bar, the rate and the time that is left; failures stay above it."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            Progress,
            TextColumn,
            TimeElapsedColumn,
            TimeRemainingColumn,
        )

        self._counts: Counter[str] = Counter()
        self._progress = Progress(
            MofNCompleteColumn(),
            BarColumn(),
            TextColumn("{task.fields[counts]}", markup=False),
            TextColumn("{task.fields[rate]}", markup=False),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=Console(stderr=True, highlight=False),
            transient=True,
        )
        self._task = self._progress.add_task("jobs", total=None, counts="", rate="")

    def begin(self, jobs: int, skipped: int) -> None:
        """How many jobs there are to run."""
        self._progress.console.print(_beginning(jobs, skipped), markup=False)
        self._progress.update(self._task, total=jobs - skipped)
        self._progress.start()

    def finished(self, record: Record) -> None:
        """One job more; what failed is told at once."""
        if record.status == FAILED:
            self._progress.console.print(_line(record), markup=False, soft_wrap=True)
        self._counts[record.status] += 1
        counts = ", ".join(f"{count} {status}" for status, count in sorted(self._counts.items()))
        seconds = self._progress.tasks[self._task].elapsed or 0.0
        rate = self._counts.total() / seconds if seconds else 0.0
        self._progress.update(self._task, advance=1, counts=counts, rate=_rate(rate))

    def stop(self) -> None:
        """The line goes."""
        self._progress.stop()


@contextmanager
def watching_batch() -> Iterator[BatchWatching]:
    """Whoever shows a batch where stderr goes."""
    if not sys.stderr.isatty():
        yield Lines()
        return
    live = Live()
    try:
        yield live
    finally:
        live.stop()


def _beginning(jobs: int, skipped: int) -> str:
    said = "1 job" if jobs == 1 else f"{jobs} jobs"
    return f"{said}, {skipped} of them done before" if skipped else said


def _line(record: Record) -> str:
    output = shown_path(record.output)
    if record.status == FAILED:
        return printable(f"failed: {output}: {record.error}")
    if record.status == SKIPPED:
        return printable(f"skipped: {output}: up to date")
    return printable(f"done: {output} ({record.seconds:.1f} s)")


def _rate(per_second: float) -> str:
    return f"{per_second:.1f}/s" if per_second >= 1 else f"{per_second * 60:.1f}/min"
