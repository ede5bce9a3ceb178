"""What a batch says at its end."""

from __future__ import annotations

from dataclasses import dataclass

from ckgrow.batches.records import Record


@dataclass(frozen=True)
class BatchDocument:
    """How many jobs there were, and what became of them.

    ``results`` is the file with all records; ``failures`` are those of the jobs that failed.
    ``not_run`` counts jobs that were left out after a failure, with ``fail_fast``. ``skipped``
    has those as well whose record says so already, and which no worker was asked about.
    """

    manifest: str | None
    results: str
    backend: str
    jobs: int
    done: int
    skipped: int
    failed: int
    not_run: int
    seconds: float
    failures: tuple[Record, ...]
    schema: str = "ckgrow.batch/1"
