"""Makes every student tensor from the teacher's, as a stream: tile by tile, several at once.

A worker makes one tensor at a time, in tiles of rows, and hashes what it writes. Random draws are
addressed by row, and no row depends on what is made with it, so the bytes do not depend on the
number of workers or on the tiles that are made; statistics are summed over tiles of a fixed size.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from typing import Any, NamedTuple

import numpy as np
from blake3 import blake3

from ckgrow.cancelling import CancelledError, follow
from ckgrow.checkpoint import Sink
from ckgrow.errors import CheckpointError
from ckgrow.header import Header, TensorSpec, common_prefix
from ckgrow.names import shown
from ckgrow.recipes import Measurement, Reading, Recipe, Statistic, Taken

TILE_BYTES = 1 << 21
"""Size of a tile of the result; a worker holds a few times this."""

_NO_DEVIATION = 1e-12
"""A deviation below this part of the mean is the rounding of a constant tensor's sum."""

Read = Callable[[str, int, int], np.ndarray]
Advance = Callable[[int], None]


class _Moments(NamedTuple):
    """Mean and standard deviation of all values of a tensor."""

    mean: float
    deviation: float


class Measuring(Reading):
    """Reads the teacher, and measures each thing once.

    Measurements that do not last belong to the tensor that a worker is making.
    """

    def __init__(self, read: Read, stop: threading.Event) -> None:
        self._read = read
        self._stop = stop
        self._lock = threading.RLock()
        self._moments: dict[Recipe, _Moments] = {}
        self._lasting: dict[Measurement[Any], Any] = {}
        self._passing = threading.local()

    def read(self, name: str, start: int, stop: int) -> np.ndarray:
        """Rows of a teacher tensor; CancelledError when the run is being given up."""
        if self._stop.is_set():
            raise CancelledError
        return self._read(name, start, stop)

    def measure(self, statistic: Statistic) -> float:
        """Of moments that are measured once for each tensor, whoever asks for which of them.

        Raises CheckpointError where they are not finite.
        """
        with self._lock:
            if statistic.of not in self._moments:
                self._moments[statistic.of] = self._over_all(statistic.of)
            mean, deviation = self._moments[statistic.of]
        if not (math.isfinite(mean) and math.isfinite(deviation)):
            raise CheckpointError(
                f"{shown(statistic.label)} has no finite {statistic.kind}: it holds NaN, infinity "
                "or numbers too large to square; mend the teacher, or choose another fill or noise"
            )
        if statistic.kind == "mean":
            return mean
        return deviation if deviation > _NO_DEVIATION * abs(mean) else statistic.otherwise

    def once(self, measurement: Measurement[Taken]) -> Taken:
        """Others wait for a lasting one, which is taken once in a run."""
        if not measurement.lasting:
            return self._kept(vars(self._passing).setdefault("taken", {}), measurement)
        with self._lock:
            return self._kept(self._lasting, measurement)

    def _kept(self, taken: dict[Any, Any], measurement: Measurement[Taken]) -> Taken:
        if measurement not in taken:
            taken[measurement] = measurement.take(self)
        found: Taken = taken[measurement]
        return found

    def forget(self) -> None:
        """The worker's tensor is made: what was taken for it alone is dropped."""
        vars(self._passing).clear()

    def _over_all(self, tensor: Recipe) -> _Moments:
        """In one fixed order of tiles, so that the sum is the same in every run."""
        count, mean, spread = 0, 0.0, 0.0  # of what was seen so far (Chan, Golub, LeVeque, 1979)
        for index in tiles(tensor.spec):
            values = tensor.rows(index, self).astype(np.float64)
            with np.errstate(over="ignore", invalid="ignore"):
                own = float(values.mean())
                own_spread = float(np.square(values - own).sum())
            step, seen, count = own - mean, count, count + values.size
            mean += step * values.size / count
            spread += own_spread + step * step * seen * values.size / count
        return _Moments(mean, math.sqrt(spread / max(count, 1)))


def tiles(spec: TensorSpec) -> Iterator[np.ndarray]:
    """Row numbers of successive tiles of a tensor; a scalar has the one row 0."""
    rows = spec.shape[0] if spec.shape else 1
    if not spec.size:
        return
    step = max(1, TILE_BYTES // max(spec.nbytes // rows, 1))
    for start in range(0, rows, step):
        yield np.arange(start, min(start + step, rows))


def execute(
    recipes: Mapping[str, Recipe],
    read: Read,
    writer: Sink,
    workers: int,
    advance: Advance = lambda _: None,
) -> dict[str, str]:
    """Writes every tensor of ``recipes`` and returns BLAKE3 hashes of their bytes by name.

    ``advance`` is told the bytes written so far by each tile. The first failure stops the others
    and is raised; so is an interrupt, after the workers have stopped.
    """
    stop = threading.Event()
    reading = Measuring(read, stop)

    def make(name: str) -> str:
        digest = blake3()
        recipe = recipes[name]
        for index in tiles(recipe.spec):
            rows = np.ascontiguousarray(recipe.rows(index, reading))
            writer.write(name, int(index[0]), rows)
            digest.update(_bytes(rows))
            advance(rows.nbytes)
        reading.forget()
        return str(digest.hexdigest())

    largest_first = sorted(recipes, key=lambda name: (-recipes[name].spec.nbytes, name))
    return _in_parallel(make, largest_first, workers, stop)


def hash_tensors(header: Header, read: Read, workers: int) -> dict[str, str]:
    """BLAKE3 hashes of the bytes of every tensor, by name."""
    stop = threading.Event()

    def digest_of(name: str) -> str:
        digest = blake3()
        for index in tiles(header[name]):
            if stop.is_set():
                raise CancelledError
            rows = np.ascontiguousarray(read(name, int(index[0]), int(index[-1]) + 1))
            digest.update(_bytes(rows))
        return str(digest.hexdigest())

    return _in_parallel(digest_of, sorted(header), workers, stop)


def content_hash(header: Header, digests: Mapping[str, str]) -> str:
    """One hash over sorted (name, dtype, shape, hash of the tensor).

    Formats do not matter, nor does a wrapper's prefix that all names share.
    """
    total, prefix = blake3(), common_prefix(header)
    for name in sorted(header):
        spec = header[name]
        total.update(
            repr((name.removeprefix(prefix), spec.dtype, spec.shape, digests[name])).encode()
        )
    return str(total.hexdigest())


def _bytes(rows: np.ndarray) -> memoryview:
    return rows.reshape(-1).view(np.uint8).data


def _in_parallel(
    work: Callable[[str], str], names: Iterable[str], workers: int, stop: threading.Event
) -> dict[str, str]:
    with ThreadPoolExecutor(max(1, workers), "ckgrow", follow, (stop,)) as pool:
        futures: dict[str, Future[str]] = {name: pool.submit(work, name) for name in names}
        try:
            finished, _ = wait(futures.values(), return_when=FIRST_EXCEPTION)
            failures = (future.exception() for future in finished)
            failure = next((each for each in failures if each is not None), None)
            if failure is not None:
                raise failure
        except BaseException:
            stop.set()
            pool.shutdown(wait=True, cancel_futures=True)
            raise
        return {name: future.result() for name, future in futures.items()}
