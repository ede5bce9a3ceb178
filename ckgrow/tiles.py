"""Work on tensors tile by tile, several at once, and hashes of what comes out in order."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait

import numpy as np
from blake3 import blake3

from ckgrow.cancelling import CancelledError, follow
from ckgrow.header import TensorSpec

WAITING_BYTES = 1 << 22
"""For each worker, of tiles that wait to be hashed while an earlier one is made; one may wait."""


_RETURNED_BYTES = (1 << 25) - (1 << 16)
"""An array that large, given back, moves glibc's limits: see :func:`_keep_freed_memory`."""


def tiles(spec: TensorSpec, size: int) -> Iterator[tuple[int, int]]:
    """Successive tiles of at most ``size`` bytes (but whole rows) as (first row, row after)."""
    rows = spec.shape[0] if spec.shape else 1
    if not spec.size:
        return
    step = max(1, size // max(spec.nbytes // rows, 1))
    for start in range(0, rows, step):
        yield start, min(start + step, rows)


class _Hashed:
    """A tensor whose tiles come from several workers, hashed in order as they come."""

    def __init__(self, name: str, count: int, ahead: int, stop: threading.Event) -> None:
        self.name = name
        self._count = count
        self._ahead = ahead
        self._stop = stop
        self._digest = blake3()
        self._turn = threading.Condition()
        self._hashed = 0
        self._hashing = False
        self._waiting: dict[int, memoryview] = {}

    def add(self, number: int, data: memoryview) -> bool:
        """Tile ``number``; whether it was the last that was missing.

        Waits while too many earlier ones are missing: whoever makes the first of them never waits.
        """
        with self._turn:
            while number > self._hashed + self._ahead:
                self._turn.wait(0.1)
                if self._stop.is_set():
                    raise CancelledError
            self._waiting[number] = data
            if self._hashing:
                return False
            self._hashing = True
            while (following := self._waiting.pop(self._hashed, None)) is not None:
                self._turn.release()
                try:
                    self._digest.update(following)
                finally:
                    self._turn.acquire()
                self._hashed += 1
                self._turn.notify_all()
            self._hashing = False
            return self._hashed == self._count

    def hexdigest(self) -> str:
        """Once all tiles are there."""
        return str(self._digest.hexdigest())


class _Queue:
    """Tiles of all tensors in order, for several workers to take."""

    def __init__(
        self, specs: Mapping[str, TensorSpec], size: int, workers: int, stop: threading.Event
    ) -> None:
        self.tensors: list[_Hashed] = []
        self._tiles = self._all(specs, size, WAITING_BYTES * workers, stop)
        self._lock = threading.Lock()
        self._stop = stop

    def take(self) -> tuple[_Hashed, int, int, int] | None:
        """The next tile: tensor, number, first row, row after the last; None after all."""
        if self._stop.is_set():
            raise CancelledError
        with self._lock:
            return next(self._tiles, None)

    def _all(
        self, specs: Mapping[str, TensorSpec], size: int, waiting: int, stop: threading.Event
    ) -> Iterator[tuple[_Hashed, int, int, int]]:
        for name, spec in specs.items():
            ranges = list(tiles(spec, size))
            largest = -(-spec.nbytes // max(len(ranges), 1))
            tensor = _Hashed(name, len(ranges), max(1, waiting // max(largest, 1)), stop)
            self.tensors.append(tensor)
            for number, (first, last) in enumerate(ranges):
                yield tensor, number, first, last


class _AtWork:
    """How many workers are at work, each inside this context.

    A pool does not know, and does not wait for, a thread whose start an interrupt fell into.
    """

    def __init__(self) -> None:
        self._number = 0
        self._changed = threading.Condition()

    def __enter__(self) -> None:
        with self._changed:
            self._number += 1

    def __exit__(self, *_: object) -> None:
        with self._changed:
            self._number -= 1
            self._changed.notify_all()

    def wait_for_none(self) -> None:
        """Returns when nobody is at work."""
        with self._changed:
            self._changed.wait_for(lambda: not self._number)


Work = Callable[[str, int, int], memoryview]


def digest_tiles(
    specs: Mapping[str, TensorSpec],
    size: int,
    work: Work,
    done: Callable[[str], object],
    workers: int,
    stop: threading.Event,
) -> dict[str, str]:
    """BLAKE3 hashes by name of what ``work`` returns for the tiles of every tensor, in order.

    ``work`` is given a name, the first row and the row after the last. ``done`` is told when a
    tensor has all of its tiles. The first failure sets ``stop`` and is raised, once the others
    have stopped; so is an interrupt.
    """
    _keep_freed_memory()
    queue, at_work = _Queue(specs, size, workers, stop), _AtWork()

    def run() -> None:
        with at_work:
            while (taken := queue.take()) is not None:
                tensor, number, first, last = taken
                if tensor.add(number, work(tensor.name, first, last)):
                    done(tensor.name)

    with ThreadPoolExecutor(max(1, workers), "ckgrow", follow, (stop,)) as pool:
        try:
            finished, _ = wait(
                [pool.submit(run) for _ in range(max(1, workers))], return_when=FIRST_EXCEPTION
            )
            for future in finished:
                future.result()
        except BaseException:
            stop.set()
            at_work.wait_for_none()
            raise
    return {tensor.name: tensor.hexdigest() for tensor in queue.tensors}


def _keep_freed_memory() -> None:
    """So that the arrays of a tile use the memory of the tile before.

    glibc gives large arrays back to the system at once, and getting them again costs a page fault
    for each 4 KiB. What counts as large follows the largest array that was freed, up to 32 MiB.
    """
    np.empty(_RETURNED_BYTES, np.uint8)
