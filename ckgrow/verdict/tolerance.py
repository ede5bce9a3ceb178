r"""How much two outputs may differ, and where that comes from.

The *yardstick* of an output is how much rounding moves it. Where float64 was computed it is
measured: the larger of the teacher's and the student's own deviation between float32 and float64
over all samples, and never less than one ulp of the output's scale (the teacher's largest absolute
value). Without float64 it is bounded, see below.

- float32: at most 4 yardsticks. The student's own rounding counts because pairs of large weights
  that cancel round more than the teacher, and are sound.
- float64: at most 1e-12 of the scale, and 4 yardsticks scaled down to float64's precision.
- What rounded steps recorded widens both: by 4 times what defects of that size were measured to do
  (``ckgrow.verdict.disturbance``), or, where it is not known which layer has the defect, by 64
  times the defect in parts of the scale.

**The bound of a quick verdict.** Rounding is modelled as independent errors d of mean zero,
|d| <= u = eps / 2 (Higham and Mary, "A new approach to probabilistic rounding error analysis",
2019). A layer sums K products per output. Summation of terms of random sign and size s, one after
another, makes partial sums of the size sqrt(k) s; each is rounded, so errors add up to

    sqrt(sum over k of (u sqrt(k) s)^2) = u s K / sqrt(2)

beside a sum of the size sqrt(K) s: relative to it u sqrt(K / 2). Kernels sum up in blocks of about
128 products, and few blocks afterwards: K is 128 at most, and the layer's error is 8 u = 4 eps.
Behind the layer errors are carried along with the signal and new ones join them, independent of
the old: after L layers they have walked randomly to

    4 eps sqrt(L)     relative to the signal's size

and the output's largest absolute value stands for that size. L is the largest number of layers
that an input passes through. Weights stored in float64 are rounded to float32 when they are fed,
one more error per layer: 2 L. It is the yardstick of a quick verdict, and 4 of them its tolerance.
Among students of random and trained networks (``benchmarks/rounding.py``) rounding was 0.15 to 0.8
of the bound, up to 1.5 for twenty layers of r2wider. It bounds what is ordinary, not what is sound:
large weights that cancel round more, and then the float64 arbiter is asked.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from decimal import ROUND_CEILING, Context

import numpy as np

from ckgrow.errors import SpecError
from ckgrow.graph import Graph
from ckgrow.header import Header
from ckgrow.ops import rule

YARDSTICKS = 4.0
FLOAT64_RELATIVE = 1e-12
FLOAT32 = 2.0**-23
LAYER_ROUNDING = 4.0 * FLOAT32
"""Of one layer, relative to what it makes: sums of 128 products, see above."""
FLOAT64_OF_FLOAT32 = 2.0**-29
"""float64's precision in terms of float32's."""
DEFECTS = 64.0
"""For a defect in an unknown place: those behind it may enlarge it."""
DISTURBANCES = 4.0
"""Times what a random defect of the recorded size does: the real one is not that very one."""
RESOLUTION = 2.0
"""An output must vary by this many tolerances over the inputs, or agreement says nothing."""
QUICK_RESOLUTION = 100.0
"""The same without float64, which can be asked when float32 sees too little of the variation."""
TRUSTED = 1e-2
"""Rounding beyond this part of the scale means that the arithmetic itself cannot be trusted."""


@dataclass(frozen=True)
class Stated:
    """The user's own tolerance: ``rtol`` in parts of an output's scale, and ``atol``."""

    rtol: float | None = None
    atol: float | None = None

    def __post_init__(self) -> None:
        for name, value in (("rtol", self.rtol), ("atol", self.atol)):
            if value is not None and not 0.0 <= value < math.inf:
                raise SpecError(f"{name} must be a number of at least 0, not {value}")

    def of(self, scale: float) -> float | None:
        """In numbers of the output, None when nothing is stated."""
        if self.rtol is None and self.atol is None:
            return None
        return (self.atol or 0.0) + (self.rtol or 0.0) * scale


@dataclass(frozen=True)
class Allowance:
    """What one output may differ by: ``rounding`` bounds float32's, in parts of the output's scale.

    ``moved`` is what disturbing the layers with recorded defects did to the output, ``unplaced``
    the sum of the defects whose layers are not known, in parts of the scale.
    """

    rounding: float
    moved: float = 0.0
    unplaced: float = 0.0
    stated: Stated = Stated()

    def float32(self, scale: float, yardstick: float) -> float:
        """Tolerance between float32 outputs."""
        return YARDSTICKS * yardstick + self._widened(scale)

    def float64(self, scale: float, yardstick: float) -> float:
        """Tolerance between float64 outputs."""
        own = FLOAT64_RELATIVE * scale + YARDSTICKS * yardstick * FLOAT64_OF_FLOAT32
        return own + self._widened(scale)

    def _widened(self, scale: float) -> float:
        return DISTURBANCES * self.moved + DEFECTS * self.unplaced * scale


def rounding_bound(graph: Graph, header: Header) -> float:
    """What float32 arithmetic ordinarily does to the outputs, in parts of their scale."""
    depths: dict[str, int] = {}
    for node in graph.nodes:
        deepest = max((depths.get(name, 0) for name in node.inputs), default=0)
        weight = header.get(node.input(1)) if rule(node.op).makes_channels else None
        passed = 0 if weight is None else 2 if weight.dtype == "float64" else 1
        depths.update(dict.fromkeys(node.outputs, deepest + passed))
    deepest = max((depths.get(name, 0) for name in graph.outputs), default=0)
    return LAYER_ROUNDING * math.sqrt(max(deepest, 1))


def ulp(scale: float) -> float:
    """The distance between neighbouring float32 numbers at ``scale``."""
    return float(np.spacing(np.float32(scale)))


def rounded_up(number: float) -> float:
    """Three digits that are not less, so that they may be copied from where they are printed."""
    return float(Context(prec=3, rounding=ROUND_CEILING).create_decimal_from_float(number))


def explained(stated: Stated, disturbed: bool, unplaced: float, *, in_float64: bool) -> str:
    """Where the tolerances come from, for people."""
    if stated.of(1.0) is not None:
        return f"stated: atol {stated.atol or 0:g}, rtol {stated.rtol or 0:g} of the output's scale"
    widened = ""
    if disturbed:
        widened = ", plus 4 x what defects of the recorded sizes do to this student"
    if unplaced:
        widened += f", plus 64 x the recorded defect of {unplaced:.1e}"
    if in_float64:
        return (
            "float32: 4 x the yardstick (the larger of both sides' own deviation between "
            "float32 and float64, at least one ulp of the output's scale); "
            f"float64: 1e-12 of the scale{widened}"
        )
    return (
        "quick, float32 only: 4 x what rounding ordinarily does to a network so deep"
        f"{widened}; smaller differences, which float64 would show, are not seen"
    )
