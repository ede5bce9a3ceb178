"""Workers of Dask: those of a scheduler that runs already, or of one on this machine."""

from __future__ import annotations

import logging
import signal
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from contextlib import ExitStack, contextmanager
from typing import Any

from joblib import Parallel, cpu_count, parallel_config, register_parallel_backend
from joblib._dask import DaskDistributedBackend

from ckgrow.batches.pools import Call, kept_busy
from ckgrow.batches.surroundings import deaf
from ckgrow.errors import FileError, SpecError

try:
    import dask
    from distributed import Client, KilledWorker, LocalCluster
except ImportError as missing:
    raise SpecError(
        f"--backend dask needs a package that is not installed ({missing.name}); "
        "run: pip install 'ckgrow[dask]'"
    ) from None

_BACKEND = "ckgrow-dask"

_PATIENCE = 30
"""Seconds within which a scheduler has to answer."""

_STARTING = {
    "distributed.comm.timeouts.connect": "180s",
    "distributed.scheduler.allowed-failures": 0,
}
"""For a cluster of this machine alone, which takes long to start on a busy one. A job that kills
its worker is tried again by the batch, alone."""


class _Lost:
    """Stands for the result of a call whose worker died."""

    def __init__(self, failure: BaseException) -> None:
        self.failure = failure


class _Backend(DaskDistributedBackend):  # type: ignore[misc]  # joblib has no types
    """joblib's backend, which would wait for ever for the result of a worker that died."""

    def effective_n_jobs(self, n_jobs: int) -> int:
        """Two at least: with one worker, joblib would run everything in this very process."""
        return max(2, super().effective_n_jobs(n_jobs))

    def submit(self, func: Any, callback: Callable[[Any], None] | None = None) -> Future[Any]:
        future: Future[Any] = super().submit(func, callback)

        def lost(ended: Future[Any]) -> None:
            failure = ended.exception()
            if failure is not None and callback is not None:
                callback(_Lost(failure))

        future.add_done_callback(lost)
        return future

    def retrieve_result_callback(self, out: Any) -> Any:
        if isinstance(out, _Lost):
            raise out.failure
        return super().retrieve_result_callback(out)


class _Workers:
    """Workers of a Dask scheduler."""

    deaths: tuple[type[BaseException], ...] = (KilledWorker,)

    def __init__(self, most: int, client: Client) -> None:
        self.most = most
        self._client = client

    def run(self, calls: Iterable[Call], most: int) -> Iterator[Any]:
        """As in :class:`ckgrow.batches.pools.Pool`."""
        parallel = Parallel(
            n_jobs=-1, return_as="generator_unordered", batch_size=1, pre_dispatch=most
        )
        return parallel(calls)

    def kill(self) -> None:
        """Forgets what was handed out; the workers end with their cluster."""
        self._client.close(timeout=1)


@contextmanager
def dask_pool(jobs: int | None, address: str | None) -> Iterator[_Workers]:
    """Workers of the scheduler at ``address``, or of a cluster that ends with the context."""
    register_parallel_backend(_BACKEND, _Backend)
    with ExitStack() as stack:
        if address is None:
            # SIGTERM is how Dask itself ends a worker.
            stack.enter_context(deaf((signal.SIGINT, signal.SIGTERM)))
            stack.enter_context(dask.config.set(_STARTING))
            cluster = LocalCluster(
                n_workers=jobs or cpu_count(),
                threads_per_worker=1,
                host="127.0.0.1",
                dashboard_address=None,
                silence_logs=logging.CRITICAL,
            )
            stack.enter_context(cluster)
            client = stack.enter_context(Client(cluster, set_as_default=False))
        else:
            client = stack.enter_context(_client(address))
        stack.enter_context(parallel_config(_BACKEND, client=client))
        # Of a cluster of others, which may have more workers than that, no more than was asked for.
        most = jobs if jobs and address else kept_busy(sum(client.ncores().values()))
        yield _Workers(most, client)


def _client(address: str) -> Client:
    try:
        return Client(address, timeout=_PATIENCE, set_as_default=False)
    except (OSError, ValueError) as failure:
        raise FileError(
            f"no Dask scheduler answers at {address}; start one, or correct --address ({failure})"
        ) from None
