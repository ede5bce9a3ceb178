"""Runs a batch: reads the manifest, leaves out what is made, hands the rest to a pool."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Sequence
from functools import cache, partial
from pathlib import Path

from ckgrow.batches.display import BatchWatching, Unseen
from ckgrow.batches.document import BatchDocument
from ckgrow.batches.expanding import expanded
from ckgrow.batches.folders import folders_of
from ckgrow.batches.halting import Sign
from ckgrow.batches.jobs import Job, recorded
from ckgrow.batches.manifest import Manifest, read_manifest
from ckgrow.batches.pools import BACKENDS, check_backend, open_pool
from ckgrow.batches.records import DONE, FAILED, SKIPPED, Record
from ckgrow.batches.results import Results
from ckgrow.batches.running import Crew
from ckgrow.batches.stamps import hash_spec, unchanged
from ckgrow.errors import CkgrowError, SpecError
from ckgrow.names import shown_path
from ckgrow.version import VERSION

_RESULTS = ".results.jsonl"


def batch(
    manifest: Manifest,
    *,
    results: str | Path | None = None,
    backend: str = BACKENDS[0],
    jobs: int | None = None,
    address: str | None = None,
    force: bool = False,
    fail_fast: bool = False,
    watching: BatchWatching | None = None,
) -> BatchDocument:
    """Grows every teacher of a manifest, and says what became of each.

    ``manifest`` is a path to YAML or JSON Lines, or a list of what would be its jobs. A record of
    every job goes to the file ``results`` as it ends, beside the manifest unless stated. Jobs
    whose output is what they would make again are skipped, unless ``force``. ``jobs`` is how many
    run at once. A job that fails does not stop the others, unless ``fail_fast``.

    Raises SpecError for a manifest that is wrong, before anything runs, and FileError where it
    or the results cannot be read or written.
    """
    begun = time.perf_counter()
    check_backend(backend, jobs, address)
    named = manifest if isinstance(manifest, str | Path) else None
    folder = os.path.dirname(os.path.abspath(named)) if named is not None else os.getcwd()
    all_jobs = expanded(read_manifest(manifest), folder)
    path = _results_path(named, results, all_jobs)
    watched = watching or Unseen()
    counts: Counter[str] = Counter()
    failures: list[Record] = []
    with Results(path) as file:
        waiting = all_jobs if force else _not_made(all_jobs, file.known)
        counts[SKIPPED] = len(all_jobs) - len(waiting)
        watched.begin(len(all_jobs), counts[SKIPPED])

        def finished(record: Record) -> None:
            file.append(record)
            counts[record.status] += 1
            if record.status == FAILED:
                failures.append(record)
            watched.finished(record)

        if waiting:
            opening = partial(open_pool, backend, jobs, address, len(waiting))
            with folders_of(job.output_place for job in waiting), Sign(path) as sign:
                Crew(opening, waiting, sign, force=force, fail_fast=fail_fast).run(finished)
    return BatchDocument(
        manifest=None if named is None else shown_path(named),
        results=shown_path(path),
        backend=backend,
        jobs=len(all_jobs),
        done=counts[DONE],
        skipped=counts[SKIPPED],
        failed=counts[FAILED],
        not_run=len(all_jobs) - counts.total(),
        seconds=round(time.perf_counter() - begun, 3),
        failures=tuple(failures),
    )


def _results_path(
    manifest: str | Path | None, results: str | Path | None, jobs: Sequence[Job]
) -> Path:
    """Where records go; SpecError where nothing says, or where a job reads or writes that file."""
    if results is not None:
        path = Path(results)
    elif manifest is not None:
        path = Path(manifest).with_suffix(_RESULTS)
    else:
        raise SpecError("a list of jobs has no file that results could stand beside; name results")
    real = os.path.realpath(path)
    for job in jobs:
        if real in (job.output_place, job.teacher_place, job.spec_place):
            raise SpecError(
                f"{shown_path(path)} cannot take the results: it belongs to a job ({job.where})"
            )
    return path


def _not_made(jobs: Sequence[Job], known: dict[str, Record]) -> list[Job]:
    """The jobs whose output is not, as far as records tell, what they would make again."""

    @cache
    def spec_hash(place: str) -> str | None:
        try:
            return hash_spec(place)
        except CkgrowError:  # the job will say so
            return None

    def is_made(job: Job) -> bool:
        record = known.get(recorded(job.output))
        return (
            record is not None
            and (record.teacher, record.weights) == (recorded(job.teacher), job.weights)
            and record.version == VERSION
            and (record.verify or not job.verify)
            and record.spec_hash is not None
            and record.spec_hash == spec_hash(job.spec_place)
            and unchanged(job.teacher_place, record.files.get("teacher", {}))
            and unchanged(job.output_place, record.files.get("output", {}))
        )

    return [job for job in jobs if not is_made(job)]
