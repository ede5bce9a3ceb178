"""What the tests did to ckgrow and what came of it, as a table that a full run leaves behind.

A test opens a row, and counts outcomes in it. ``--full`` has every process of the run append its
rows to a file, of which the last to finish makes the table.
"""

from __future__ import annotations

import json
import os
import platform
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import date
from pathlib import Path

ROWS = "CKGROW_FAULT_ROWS"
"""The variable of the environment that names the file of rows; without it they are dropped."""

RESULTS = Path(__file__).parents[1] / "benchmarks" / "results"

TESTS = {
    "test_remote_faults.py::test_a_fault_that_passes": (
        *("S3 answers 500 a few times", "s3://"),
        "tried again; written and verified",
    ),
    "test_remote_faults.py::test_a_fault_that_stays": (
        *("S3 answers 500 without end", "s3://"),
        "exit 4 after a few tries; nothing is written",
    ),
    "test_remote_faults.py::test_slow_server": (
        *("S3 is slow", "s3://"),
        "written and verified",
    ),
    "test_remote_faults.py::test_silent_server": (
        *("S3 answers nothing", "s3://"),
        "exit 4 after the time limit of a request",
    ),
    "test_remote_faults.py::test_upload_that_fails_leaves_nothing": (
        *("the upload breaks off", "s3://"),
        "exit 4; nothing is there",
    ),
    "test_remote_faults.py::test_upload_that_fails_leaves_the_old_student": (
        *("the upload breaks off, --force", "s3://"),
        "exit 4; the old student is there",
    ),
    "test_remote_faults.py::test_teacher_changes_while_it_is_read": (
        *("the teacher is replaced or removed while it is read", "s3://"),
        "exit 4; nothing is written",
    ),
    "test_remote_faults.py::test_interrupt_ends_at_once": (
        *("Ctrl-C and SIGTERM during a request", "s3://"),
        "exit 130 or 143 within seconds; nothing is there",
    ),
    "test_batch_workers.py::test_a_worker_is_killed": (
        *("kill -9 of a worker in the middle of a batch", "batch"),
        "its job is run again; all are done and verified",
    ),
    "test_batch_workers.py::test_every_backend_makes_the_same_students": (
        *("a bad checkpoint, and one that kills whatever worker opens it", "batch"),
        "they fail; the others are done and verified",
    ),
    "test_batch_workers.py::test_a_killed_batch_continues_where_it_was": (
        *("kill -9 of a batch", "batch"),
        "the next run does what is missing, and no more",
    ),
    "test_spreading.py::test_a_worker_that_is_killed": (
        *("kill -9 of a worker that makes a part of one student", "apply --backend"),
        "exit 4; nothing is written",
    ),
    "test_spreading.py::test_an_old_student_survives_workers_that_die": (
        *("kill -9 of a worker that makes a part of one student, --force", "apply --backend"),
        "exit 4; the old student whole",
    ),
    "test_spreading.py::test_interrupted": (
        *("Ctrl-C and SIGTERM while workers make parts of one student", "apply --backend"),
        "exit 130 or 143; nothing is left",
    ),
    "test_batch.py::test_a_full_disk_stops_the_batch": (
        *("the file of results becomes larger than is allowed (EFBIG)", "batch"),
        "exit 4; no unfinished file is left",
    ),
    "test_sharded_faults.py::test_killed_at_every_change_of_a_name": (
        *("kill -9 at a change of names", "sharded, over more and fewer shards"),
        "the old student, the new one or none; never a mix",
    ),
}
"""Tests elsewhere that try one fault: what was done, to what, and what they assert of it."""


@contextmanager
def tried(fault: str, on: str) -> Iterator[Counter[str]]:
    """A row: what was done, to what; outcomes are counted in what it yields.

    A test that fails leaves a row that says so.
    """
    outcomes: Counter[str] = Counter()
    try:
        yield outcomes
    except BaseException:
        outcomes["FAILED"] += 1
        raise
    finally:
        _append(fault, on, outcomes)


def note(test: str, outcome: str) -> None:
    """Rows for the tests that try one fault each, by the name that pytest has for them."""
    name = test.rpartition("/")[2].partition("[")[0]
    if name in TESTS and outcome != "skipped":
        fault, on, came = TESTS[name]
        _append(fault, on, {came if outcome == "passed" else "FAILED": 1})


def _append(fault: str, on: str, outcomes: dict[str, int]) -> None:
    path = os.environ.get(ROWS)
    if path and outcomes:
        line = json.dumps([fault, on, outcomes]) + "\n"
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        try:  # one write, so that processes do not get into each other's lines
            os.write(descriptor, line.encode())
        finally:
            os.close(descriptor)


def begin(path: Path) -> None:
    """Has this process, and those that it starts, collect rows."""
    path.unlink(missing_ok=True)
    os.environ[ROWS] = str(path)


def finish() -> None:
    """Writes the table of the rows that were collected, if there are any, and ends collecting."""
    path = Path(os.environ.pop(ROWS))
    if not path.exists():
        return
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    path.unlink()
    (RESULTS / f"faults-{date.today()}.md").write_text(table(rows), encoding="utf-8")


def table(rows: Iterable[tuple[str, str, dict[str, int]]]) -> str:
    """Markdown, one line for each fault and what it was done to."""
    found: dict[tuple[str, str], Counter[str]] = {}
    for fault, on, outcomes in rows:
        found.setdefault((fault, on), Counter()).update(outcomes)
    lines = [
        f"# Faults, {date.today()}",
        "",
        f"Written by `make test-full` on {platform.system()} {platform.machine()}, Python "
        f"{platform.python_version()}. Each was done to the command so many times; in brackets how "
        "often an outcome was where there are several.",
        "",
        "| What was done | To | Tries | What came of it |",
        "| --- | --- | ---: | --- |",
    ]
    for (fault, on), outcomes in sorted(found.items()):
        what = "<br>".join(
            outcome if len(outcomes) == 1 else f"{outcome} ({count:,})"
            for outcome, count in sorted(outcomes.items())
        )
        lines.append(f"| {fault} | {on} | {outcomes.total():,} | {what} |")
    return "\n".join(lines) + "\n"
