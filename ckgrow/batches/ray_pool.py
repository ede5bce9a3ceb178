"""Workers of Ray: those of a cluster that runs already, or of one on this machine."""

from __future__ import annotations

import logging
import signal
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from joblib import Parallel, cpu_count, parallel_config, register_parallel_backend

from ckgrow.batches.pools import Call, kept_busy
from ckgrow.batches.surroundings import deaf, environment
from ckgrow.errors import FileError, SpecError

_BACKEND = "ckgrow-ray"

_LEAST = 2
"""Workers: with one, joblib would run everything in this very process. The other is idle then."""

_ALONE = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0", "RAY_USAGE_STATS_ENABLED": "0"}
"""A cluster of this machine alone listens on loopback alone, as it does on other systems, and
tells nobody that it is used. Ray reads this when it is imported."""


class _Workers:
    """Workers of a Ray cluster."""

    def __init__(self, workers: int, ray: Any) -> None:
        self.most = kept_busy(workers)
        self.deaths: tuple[type[BaseException], ...] = (ray.exceptions.RayError,)
        self._workers = workers
        self._ray = ray
        self._open = ExitStack()  # from one run to the next: a pool takes a second to start
        self._parallel: Parallel | None = None

    def run(self, calls: Iterable[Call], most: int) -> Iterator[Any]:
        """As in :class:`ckgrow.batches.pools.Pool`."""
        if self._parallel is None:
            parallel = Parallel(
                n_jobs=max(_LEAST, self._workers), return_as="generator_unordered", batch_size=1
            )
            self._parallel = self._open.enter_context(parallel)
        self._parallel.pre_dispatch = most
        try:
            yield from self._parallel(calls)
        except self.deaths:
            self.close()  # what it still has under way would come out of the next run
            raise

    def close(self) -> None:
        """Gives the workers back."""
        self._parallel = None
        self._open.close()

    def kill(self) -> None:
        """Ends the workers at once."""
        self._ray.shutdown()


@contextmanager
def ray_pool(jobs: int | None, address: str | None) -> Iterator[_Workers]:
    """Workers of the cluster at ``address``, or of one that ends with the context."""
    with ExitStack() as stack:
        if address is None:
            stack.enter_context(deaf((signal.SIGINT, signal.SIGTERM)))
            stack.enter_context(environment(_ALONE))
        try:
            import ray
            from ray.util.joblib.ray_backend import RayBackend
        except ImportError as missing:
            raise SpecError(
                f"--backend ray needs a package that is not installed ({missing.name}); "
                "run: pip install 'ckgrow[ray]'"
            ) from None
        quiet = {"log_to_driver": False, "logging_level": logging.ERROR}
        try:
            if address is None:
                here = {"num_cpus": max(_LEAST, jobs or cpu_count()), "include_dashboard": False}
                ray.init(address="local", **here, **quiet)
            else:
                ray.init(address=address, **quiet)
        except (OSError, ValueError) as failure:
            raise FileError(
                f"no Ray cluster answers at {address}; start one, or correct --address ({failure})"
            ) from None
        stack.callback(ray.shutdown)
        register_parallel_backend(_BACKEND, _streaming(RayBackend))
        stack.enter_context(parallel_config(_BACKEND))
        processors = int(ray.cluster_resources().get("CPU", 0))
        if processors < _LEAST:
            raise FileError(f"the Ray cluster at {address} has less than {_LEAST} CPUs; add some")
        workers = min(jobs or processors, processors)
        made = _Workers(workers, ray)
        stack.callback(made.close)
        yield made


def _streaming(backend: type) -> type:
    """Ray's backend for joblib, which promises lists only, but tells every result as it comes."""
    return type("Streaming", (backend,), {"supports_return_generator": True})
