"""Workers of Ray: those of a cluster that runs already, or of one on this machine.

joblib's backend for Ray takes a list and returns when the last of it is done. It is given short
lists, so that records come early. A worker that dies takes the results of its list along; those
jobs then find their students made.
"""

from __future__ import annotations

import itertools
import logging
import signal
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from joblib import Parallel, cpu_count, parallel_config

from ckgrow.batches.pools import Call
from ckgrow.batches.surroundings import deaf, environment
from ckgrow.errors import FileError, SpecError

_LIST = 8
"""Calls per worker in one list."""

_ALONE = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0", "RAY_USAGE_STATS_ENABLED": "0"}
"""A cluster of this machine alone listens on loopback alone, as it does on other systems, and
tells nobody that it is used. Ray reads this when it is imported."""


class _Workers:
    """Workers of a Ray cluster, as a pool that stays open from list to list."""

    def __init__(self, size: int, deaths: tuple[type[BaseException], ...], ray: Any) -> None:
        self.size = size
        self.deaths = deaths
        self._ray = ray

    def run(self, calls: Iterable[Call], most: int) -> Iterator[Any]:
        """As in :class:`ckgrow.batches.pools.Pool`, list by list."""
        waiting = iter(calls)
        length = 1 if most == 1 else _LIST * self.size
        with Parallel(n_jobs=self.size, batch_size=1, pre_dispatch="all") as parallel:
            while several := list(itertools.islice(waiting, length)):
                yield from parallel(several)

    def kill(self) -> None:
        """Ends the workers at once."""
        self._ray.shutdown()


@contextmanager
def ray_pool(jobs: int | None, address: str | None) -> Iterator[_Workers]:
    """Workers of the cluster at ``address``, or of one that ends with the context."""
    with ExitStack() as stack:
        if address is None:
            stack.enter_context(deaf((signal.SIGINT,)))
            stack.enter_context(environment(_ALONE))
        try:
            import ray
            from ray.util.joblib import register_ray
        except ImportError as missing:
            raise SpecError(
                f"--backend ray needs a package that is not installed ({missing.name}); "
                "run: pip install 'ckgrow[ray]'"
            ) from None
        quiet = {"log_to_driver": False, "logging_level": logging.ERROR}
        try:
            if address is None:
                here = {"num_cpus": jobs or cpu_count(), "include_dashboard": False}
                ray.init(address="local", **here, **quiet)
            else:
                ray.init(address=address, **quiet)
        except (OSError, ValueError) as failure:
            raise FileError(
                f"no Ray cluster answers at {address}; start one, or correct --address ({failure})"
            ) from None
        stack.callback(ray.shutdown)
        register_ray()
        stack.enter_context(parallel_config("ray"))
        size = jobs or int(ray.cluster_resources().get("CPU", 1))
        yield _Workers(size, (ray.exceptions.RayError,), ray)
