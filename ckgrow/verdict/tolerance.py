"""How much two outputs may differ, and where that comes from.

The yardstick of an output is the rounding that was measured: the larger of the teacher's and the
student's own deviation between float32 and float64 over all samples, and never less than one ulp
of the output's scale (the teacher's largest absolute value). Without float64, the deviation
between a network and its reordered self (``ckgrow.verdict.reordering``) stands in for it.

- float32: at most 4 yardsticks. The student's own rounding counts because pairs of large weights
  that cancel round more than the teacher, and are sound.
- float64: at most 1e-12 of the scale, and 4 yardsticks scaled down to float64's precision.
- What rounded steps recorded (``defect``, relative) widens both by 64 times as much, since a defect
  in one layer is carried through those behind it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from ckgrow.errors import SpecError

YARDSTICKS = 4.0
FLOAT64_RELATIVE = 1e-12
FLOAT64_OF_FLOAT32 = 2.0**-29
"""float64's precision in terms of float32's."""
DEFECTS = 64.0
RESOLUTION = 2.0
"""An output must vary by this many tolerances over the inputs, or agreement says nothing."""
QUICK_RESOLUTION = 100.0
"""The same without float64, which can be asked when float32 sees too little of the variation."""
TRUSTED = 1e-2
"""Rounding beyond this part of the scale means that the arithmetic itself cannot be trusted."""


@dataclass(frozen=True)
class Allowance:
    """What widens the tolerance: recorded defects, or what the user states (``rtol``, ``atol``)."""

    defect: float = 0.0
    rtol: float | None = None
    atol: float | None = None

    def __post_init__(self) -> None:
        for name, value in (("rtol", self.rtol), ("atol", self.atol)):
            if value is not None and not 0.0 <= value < math.inf:
                raise SpecError(f"{name} must be a number of at least 0, not {value}")

    def stated(self, scale: float) -> float | None:
        """The user's own tolerance, None when none is stated; ``rtol`` is of the scale."""
        if self.rtol is None and self.atol is None:
            return None
        return (self.atol or 0.0) + (self.rtol or 0.0) * scale

    def float32(self, scale: float, yardstick: float) -> float:
        """Tolerance between float32 outputs."""
        return YARDSTICKS * yardstick + DEFECTS * self.defect * scale

    def float64(self, scale: float, yardstick: float) -> float:
        """Tolerance between float64 outputs."""
        relative = FLOAT64_RELATIVE + DEFECTS * self.defect
        return scale * relative + YARDSTICKS * yardstick * FLOAT64_OF_FLOAT32

    def text(self, *, measured_in_float64: bool) -> str:
        """Where the tolerance comes from, for people."""
        if self.rtol is not None or self.atol is not None:
            return f"stated: atol {self.atol or 0:g}, rtol {self.rtol or 0:g} of the output's scale"
        widened = f", plus 64 x the recorded defect of {self.defect:.1e}" if self.defect else ""
        if measured_in_float64:
            return (
                "float32: 4 x the yardstick (the larger of both sides' own deviation between "
                "float32 and float64, at least one ulp of the output's scale); "
                f"float64: 1e-12 of the scale{widened}"
            )
        return (
            "quick, float32 only: 4 x the yardstick (the larger of both sides' own change when "
            "all sums are reordered, at least one ulp of the output's scale)"
            f"{widened}; differences below it, which float64 would show down to 1e-12 of the "
            "scale, are not seen"
        )


def ulp(scale: float) -> float:
    """The distance between neighbouring float32 numbers at ``scale``."""
    return float(np.spacing(np.float32(scale)))
