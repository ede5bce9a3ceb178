"""Runs the jobs of a batch in a pool, whatever happens to its workers or to the batch itself.

The pool lives in a thread of its own. Signals go to the main thread, which waits for records: it
can be interrupted without the pool being torn down around jobs that are at work.
"""

from __future__ import annotations

import contextlib
import os
import queue
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from dataclasses import replace

from ckgrow.batches.halting import Sign
from ckgrow.batches.jobs import Job, recorded
from ckgrow.batches.mailbox import Mailbox
from ckgrow.batches.pools import PATIENCE, Call, Pool, unimportable
from ckgrow.batches.records import FAILED, Record, record_of
from ckgrow.batches.surroundings import hear_again
from ckgrow.batches.working import INTERNAL, run_job
from ckgrow.errors import CkgrowError, FileError
from ckgrow.places import is_remote
from ckgrow.publishing import PartFile
from ckgrow.version import VERSION

Opening = Callable[[], AbstractContextManager[Pool]]


class Feed:
    """Hands out jobs one by one, and knows which of them are out. Ends early once closed."""

    def __init__(self, jobs: Iterable[Job]) -> None:
        self._waiting = iter(jobs)
        self.closed = False
        self.out: dict[str, Job] = {}

    def __iter__(self) -> Iterator[Job]:
        return self

    def __next__(self) -> Job:
        if self.closed:
            raise StopIteration
        job = next(self._waiting)
        self.out[job.output_place] = job
        return job

    def close(self) -> None:
        """No job is handed out any more."""
        self.closed = True


class Crew:
    """A pool at work in its thread, which gives records to whoever asks.

    With ``fail_fast`` no job begins after one has failed.
    """

    def __init__(
        self, opening: Opening, jobs: Iterable[Job], sign: Sign, *, force: bool, fail_fast: bool
    ) -> None:
        self._opening = opening
        self._force = force
        self._fail_fast = fail_fast
        self._sign = sign
        self._feed = Feed(jobs)
        self._told: Mailbox[Pool | Record | BaseException | None] = Mailbox()
        self._pool: Pool | None = None
        self._thread = threading.Thread(target=self._work, name="batch", daemon=True)

    def run(self, finished: Callable[[Record], None]) -> None:
        """Runs all jobs; ``finished`` is told each record, in this thread, twice if interrupted.

        An exception, Ctrl-C for instance, stops the jobs that run: they end, or leave nothing;
        then it is raised again.
        """
        self._thread.start()
        try:
            while (told := self._told.first()) is not None:
                match told:
                    case BaseException():
                        raise told
                    case Pool():
                        hear_again()
                    case Record():
                        finished(told)
                self._told.drop()
        except BaseException:
            self._feed.close()
            self._sign.raise_()
            self._drain(finished)
            raise
        self._thread.join()

    def _drain(self, finished: Callable[[Record], None]) -> None:
        """Takes the records of jobs that still end; kills workers whose jobs do not."""
        with contextlib.suppress(queue.Empty):
            while (told := self._told.first(PATIENCE)) is not None:
                if isinstance(told, Record):
                    with contextlib.suppress(CkgrowError):  # a full disk may be what stops us
                        finished(told)
                self._told.drop()
            self._thread.join(PATIENCE)
        if self._thread.is_alive() and self._pool is not None:
            self._pool.kill()
            self._thread.join(PATIENCE)
            for job in self._feed.out.values():
                _sweep(job)

    def _work(self) -> None:
        try:
            with self._opening() as self._pool:
                self._told.put(self._pool)
                self._run_all(self._pool)
        except BaseException as failure:  # noqa: BLE001 - it is raised in the main thread
            self._told.put(failure)
        finally:
            self._told.put(None)

    def _run_all(self, pool: Pool) -> None:
        """Hands out jobs until none are left; those that a dead worker may have had run alone."""
        while not self._sign.raised:
            try:
                self._take(pool, self._feed, pool.most)
                return
            except pool.deaths:
                suspects = list(self._feed.out.values())
            for job in suspects:
                if self._sign.raised or self._feed.closed:
                    _sweep(job)
                else:
                    self._run_alone(pool, job)

    def _run_alone(self, pool: Pool, job: Job) -> None:
        begun = time.perf_counter()
        try:
            self._take(pool, (job,), 1)
        except pool.deaths:
            if self._sign.raised:
                return
            _sweep(job)
            self._tell(_dead(job, time.perf_counter() - begun))
            _require_alive(pool)

    def _take(self, pool: Pool, jobs: Iterable[Job], most: int) -> None:
        """Runs jobs, at most so many at once, and tells their records."""
        try:
            for result in pool.run((self._call(job) for job in jobs), most):
                if result is not None:
                    self._tell(record_of(result))
        except ImportError as failure:
            raise unimportable(failure) from None

    def _tell(self, record: Record) -> None:
        """Passes a record on, with the places as the manifest names them."""
        job = self._feed.out.pop(record.output)
        named = replace(
            record,
            teacher=recorded(job.teacher),
            spec=recorded(job.spec),
            output=recorded(job.output),
        )
        if self._fail_fast and record.status == FAILED:
            self._feed.close()
        self._told.put(named)

    def _call(self, job: Job) -> Call:
        places = (job.teacher_place, job.spec_place, job.output_place)
        settings = {
            "weights": job.weights,
            "verify": job.verify,
            "force": self._force,
            "sign": str(self._sign.path),
            "parent": os.getpid(),
        }
        return run_job, places, settings


def _dead(job: Job, seconds: float) -> Record:
    """The record of a job whose worker died twice, the second time with no other job beside it."""
    return Record(
        job.teacher_place,
        job.spec_place,
        job.output_place,
        FAILED,
        round(seconds, 4),
        "the worker process died: it was killed, by a lack of memory perhaps, or crashed",
        INTERNAL,
        weights=job.weights,
        verify=job.verify,
        version=VERSION,
    )


def _sweep(job: Job) -> None:
    """Takes away what a killed worker left of a job, as the next run onto its output would."""
    if not is_remote(job.output_place):
        with contextlib.suppress(CkgrowError), PartFile(job.output_place, force=True):
            pass


def _require_alive(pool: Pool) -> None:
    """FileError when workers die without any job."""
    try:
        for _ in pool.run([(os.getpid, (), {})], 1):
            pass
    except pool.deaths as failure:
        raise FileError(f"workers of the pool die as soon as they start ({failure})") from None
