"""What recipes ask for while they compute: rows of the teacher, and numbers that are measured."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from ckgrow.cancelling import CancelledError
from ckgrow.errors import CheckpointError
from ckgrow.names import shown
from ckgrow.recipes import Measurement, Reading, Recipe, Statistic, Taken
from ckgrow.tiles import tiles

SUMMED_BYTES = 1 << 21
"""Of a tensor that are summed up at a time; sums depend on it."""

_NO_DEVIATION = 1e-12
"""A deviation below this part of the mean is the rounding of a constant tensor's sum."""

Read = Callable[[str, int, int], np.ndarray]


class _Moments(NamedTuple):
    """Mean and standard deviation of all values of a tensor."""

    mean: float
    deviation: float


class _Once:
    """Keeps what is taken, each thing once; others wait for who takes the same thing."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._locks: dict[Any, threading.RLock] = {}
        self._taken: dict[Any, Any] = {}

    def take(self, key: Any, taking: Callable[[], Taken]) -> Taken:
        with self._lock:
            own = self._locks.setdefault(key, threading.RLock())
        with own:
            if key not in self._taken:
                self._taken[key] = taking()
            found: Taken = self._taken[key]
            return found


class Measuring(Reading):
    """Reads the teacher, and measures each thing once.

    Measurements that do not last belong to one tensor: to the one that ``tensor`` was called for.
    """

    def __init__(self, read: Read, stop: threading.Event) -> None:
        self._read = read
        self._stop = stop
        self._moments = _Once()
        self._lasting = _Once()
        self._passing = _Once()

    def tensor(self) -> Measuring:
        """For one tensor: what is measured for it alone is dropped with this."""
        own = Measuring(self._read, self._stop)
        own._moments, own._lasting = self._moments, self._lasting
        return own

    def read(self, name: str, start: int, stop: int) -> np.ndarray:
        """Rows of a teacher tensor; CancelledError when the run is being given up."""
        if self._stop.is_set():
            raise CancelledError
        return self._read(name, start, stop)

    def measure(self, statistic: Statistic) -> float:
        """Of moments that are measured once for each tensor, whoever asks for which of them.

        Raises CheckpointError where they are not finite.
        """
        tensor = statistic.of
        mean, deviation = self._moments.take(tensor, lambda: self._over_all(tensor))
        if not (math.isfinite(mean) and math.isfinite(deviation)):
            raise CheckpointError(
                f"{shown(statistic.label)} has no finite {statistic.kind}: it holds NaN, infinity "
                "or numbers too large to square; mend the teacher, or choose another fill or noise"
            )
        if statistic.kind == "mean":
            return mean
        return deviation if deviation > _NO_DEVIATION * abs(mean) else statistic.otherwise

    def once(self, measurement: Measurement[Taken]) -> Taken:
        """To the end of the run where it lasts, else as long as its tensor is made."""
        kept = self._lasting if measurement.lasting else self._passing
        return kept.take(measurement, lambda: measurement.take(self))

    def _over_all(self, tensor: Recipe) -> _Moments:
        """In one fixed order of tiles, so that the sum is the same in every run."""
        count, mean, spread = 0, 0.0, 0.0  # of what was seen so far (Chan, Golub, LeVeque, 1979)
        for start, stop in tiles(tensor.spec, SUMMED_BYTES):
            values = tensor.rows(np.arange(start, stop), self).astype(np.float64)
            with np.errstate(over="ignore", invalid="ignore"):
                own = float(values.mean())
                values -= own
                own_spread = float(np.square(values, out=values).sum())
            step, seen, count = own - mean, count, count + values.size
            mean += step * values.size / count
            spread += own_spread + step * step * seen * values.size / count
        return _Moments(mean, math.sqrt(spread / max(count, 1)))
