"""Where jobs run: pools of workers behind joblib, on this machine or on a cluster.

Each module of a pool is imported only when that pool is asked for.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from typing import Any, Protocol, runtime_checkable

from ckgrow.errors import FileError, SpecError
from ckgrow.names import guess, quoted
from ckgrow.version import VERSION

PATIENCE = 60.0
"""Seconds that what runs has to stop in, before its workers are killed."""

Call = tuple[Callable[..., Any], tuple[Any, ...], dict[str, Any]]
"""A function, its arguments and its keywords, as joblib takes them."""


@runtime_checkable
class Pool(Protocol):
    """Workers that are ready. ``most`` is how many calls should be out at once.

    ``deaths`` are the exceptions that ``run`` raises when a worker died: all calls that were
    handed out and gave no result are lost then, and the next ``run`` begins with new workers.
    """

    most: int
    deaths: tuple[type[BaseException], ...]

    def run(self, calls: Iterable[Call], most: int) -> Iterator[Any]:
        """Results in the order in which they come.

        Calls are taken from ``calls`` as workers become free; no more than ``most`` are taken and
        without a result.
        """
        ...

    def kill(self) -> None:
        """Ends the workers at once, from another thread than ``run``."""
        ...


def kept_busy(workers: int) -> int:
    """How many calls to hand out: one waits at each worker, unless they are to run one by one."""
    return 2 * workers if workers > 1 else 1


_HOMES = {
    "loky": "ckgrow.batches.local_pools",
    "threading": "ckgrow.batches.local_pools",
    "dask": "ckgrow.batches.dask_pool",
    "ray": "ckgrow.batches.ray_pool",
}
BACKENDS = tuple(_HOMES)
"""Names of pools; the first is the one that runs unless another is asked for."""

CLUSTERS = ("dask", "ray")
"""Those that may have an address; without one they start on this machine."""


def check_backend(backend: str, jobs: int | None, address: str | None) -> None:
    """SpecError for a backend that there is not, and for what it cannot do."""
    if backend not in _HOMES:
        raise SpecError(
            f"there is no backend {quoted(backend)}{guess(backend, BACKENDS)}; "
            f"there are {', '.join(BACKENDS)}"
        )
    if jobs is not None and jobs < 1:
        raise SpecError(f"{jobs} jobs at once are none; --jobs is 1 at least")
    if address is not None and backend not in CLUSTERS:
        raise SpecError(
            f"--address belongs to --backend {' or '.join(CLUSTERS)}; {backend} runs here"
        )


def open_pool(
    backend: str, jobs: int | None, address: str | None, calls: int
) -> AbstractContextManager[Pool]:
    """The pool called ``backend`` with ``jobs`` workers, or as many as there are cores.

    On this machine there are no more workers than ``calls`` to run. It has to be entered and left
    by the thread that runs it. Raises SpecError where its package is not installed, FileError
    where nothing answers at ``address``.
    """
    from joblib import cpu_count  # slow to import, and of no use before anything runs

    opening = getattr(importlib.import_module(_HOMES[backend]), f"{backend}_pool")
    workers = min(jobs or cpu_count(), calls) if address is None else jobs
    made: AbstractContextManager[Pool] = (
        opening(workers, address) if backend in CLUSTERS else opening(workers)
    )
    return made


def unimportable(failure: ImportError) -> FileError:
    """What to say where a worker lacks a module that this process has."""
    return FileError(
        f"a worker cannot import {failure.name}; install ckgrow {VERSION} where the workers are"
    )
