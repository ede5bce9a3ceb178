"""What rows are off by, beside what they may be off by."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from ckgrow.header import last_place
from ckgrow.proof.effective import Effective
from ckgrow.proof.reading import Taps


@dataclass
class Extent:
    """The largest deviations so far, in units of rounding: of rows that hold, and of others."""

    held: float = 0.0
    wrong: float = 0.0

    def note(self, units: np.ndarray, wrong: np.ndarray) -> None:
        """Counts what rows are off by."""
        if wrong.any():
            self.wrong = max(self.wrong, float(np.nan_to_num(units[wrong], nan=np.inf).max()))
        if not wrong.all():
            self.held = max(self.held, float(units[~wrong].max()))


def beyond(
    layer: Effective,
    off: np.ndarray,
    rows: np.ndarray,
    group: int,
    classes: np.ndarray,
    extent: Extent | None = None,
) -> np.ndarray:
    """The rows whose sums are ``off``, "rows classes taps", by more than they may be."""
    wrong = np.zeros(len(rows), dtype=bool)
    suspects = np.flatnonzero((off != 0).reshape(len(rows), -1).any(axis=1))
    if len(suspects):
        size, slack = layer.sizes(rows[suspects], group, classes)
        size, slack = (each.max(axis=2, keepdims=True) for each in (size, slack))
        part = np.abs(off[suspects])
        wrong[suspects] = ~(part <= slack).reshape(len(suspects), -1).all(axis=1)
        if extent is not None:
            extent.note(_units(layer, part, size), wrong[suspects])
    return wrong


def biases_beyond(
    layer: Effective, off: np.ndarray, rows: np.ndarray, extent: Extent | None = None
) -> np.ndarray:
    """The rows whose biases are ``off`` by more than they may be."""
    wrong = np.zeros(len(rows), dtype=bool)
    suspects = np.flatnonzero(off != 0)
    if len(suspects):
        size, slack = layer.bias_sizes(rows[suspects])
        part = np.abs(off[suspects])
        wrong[suspects] = ~(part <= slack)
        if extent is not None:
            extent.note(_units(layer, part, size), wrong[suspects])
    return wrong


def _units(layer: Effective, off: np.ndarray, size: np.ndarray) -> np.ndarray:
    last = np.maximum(size, off) * last_place(layer.weights.dtype)
    finite = np.isfinite(off)
    return np.where(finite, off, np.inf) / np.where(finite & (last > 0), last, 1.0)


Row = tuple[np.ndarray, np.ndarray]
"""The sums of one row, and its bias."""


def multiple(ours: Row, theirs: Row) -> tuple[float, Row]:
    """The power of two by which one row is another, most likely; and what it is off by then."""
    factor = power_of_two(*(np.append(*row) for row in (ours, theirs)))
    return factor, (ours[0] - factor * theirs[0], ours[1] - factor * theirs[1])


def power_of_two(ours: np.ndarray, theirs: np.ndarray) -> float:
    """The positive power of two nearest to the ratio of the largest entries; 0 for no ratio."""
    place = int(np.abs(theirs).argmax())
    below = float(theirs.ravel()[place])
    ratio = float(ours.ravel()[place]) / below if below else 0.0
    return 2.0 ** round(math.log2(ratio)) if 0.0 < ratio < math.inf else 0.0


def aligned(
    ours: np.ndarray, our_taps: Taps, theirs: np.ndarray, their_taps: Taps
) -> tuple[np.ndarray, np.ndarray]:
    """Both on the same taps; where a kernel has none it reads nothing."""
    if our_taps == their_taps:
        return ours, theirs
    place = {tap: index for index, tap in enumerate(dict.fromkeys((*our_taps, *their_taps)))}

    def spread(values: np.ndarray, taps: Taps) -> np.ndarray:
        made = np.zeros((*values.shape[:2], len(place)))
        made[:, :, [place[tap] for tap in taps]] = values
        return made

    return spread(ours, our_taps), spread(theirs, their_taps)
