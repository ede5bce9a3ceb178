"""Workers on this machine: processes (loky), or threads of this one."""

from __future__ import annotations

import signal
from collections.abc import Iterable, Iterator
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from typing import Any

from joblib import Parallel, parallel_config
from joblib.externals.loky import get_reusable_executor

from ckgrow.batches.pools import Call, kept_busy
from ckgrow.batches.surroundings import deaf, environment

_IDLE = 20
"""Seconds after which a worker without work ends, also one whose batch was killed."""


class _Processes:
    """Worker processes, in which a job's death is no other job's."""

    deaths: tuple[type[BaseException], ...] = (BrokenProcessPool,)

    def __init__(self, workers: int) -> None:
        self.most = kept_busy(workers)
        self._workers = workers

    def run(self, calls: Iterable[Call], most: int) -> Iterator[Any]:
        """As in :class:`ckgrow.batches.pools.Pool`."""
        parallel = Parallel(
            # With one, joblib would run everything in this very process; then the second is idle.
            n_jobs=max(2, self._workers),
            return_as="generator_unordered",
            batch_size=1,
            pre_dispatch=most,
            max_nbytes=None,
        )
        return parallel(calls)

    def kill(self) -> None:
        """Ends the workers at once."""
        get_reusable_executor().shutdown(wait=True, kill_workers=True)


@contextmanager
def loky_pool(jobs: int) -> Iterator[_Processes]:
    """Worker processes, of one thread each."""
    settings = {"inner_max_num_threads": 1, "idle_worker_timeout": _IDLE}
    with deaf((signal.SIGINT, signal.SIGTERM)), parallel_config("loky", **settings):
        try:
            yield _Processes(jobs)
        finally:
            get_reusable_executor().shutdown(wait=True)


class _Threads:
    """Threads of this process."""

    deaths: tuple[type[BaseException], ...] = ()

    def __init__(self, workers: int) -> None:
        self.most = workers

    def run(self, calls: Iterable[Call], most: int) -> Iterator[Any]:
        """As in :class:`ckgrow.batches.pools.Pool`."""
        parallel = Parallel(
            n_jobs=self.most, return_as="generator_unordered", batch_size=1, pre_dispatch=most
        )
        return parallel(calls)

    def kill(self) -> None:
        """Nothing can end a thread; it ends with the process."""


@contextmanager
def threading_pool(jobs: int) -> Iterator[_Threads]:
    """Threads, whose networks run in one thread each."""
    with environment({"OMP_NUM_THREADS": "1"}), parallel_config("threading"):
        yield _Threads(jobs)
