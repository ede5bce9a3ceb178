"""Compares one output of both networks: whether it can be compared at all, then by numbers."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ckgrow.verdict.tolerance import (
    QUICK_RESOLUTION,
    RESOLUTION,
    TRUSTED,
    Allowance,
    rounded_up,
    ulp,
)


@dataclass(frozen=True)
class Pair:
    """The same output of the teacher and of the student, "samples ..."."""

    teacher: np.ndarray
    student: np.ndarray


@dataclass(frozen=True)
class OutputVerdict:
    """What is said of one output; numbers are None where nothing could be measured.

    ``max_abs`` and ``max_rel`` are the largest difference in float32, absolute and relative to the
    output's scale, ``ratio`` is ``max_abs`` in yardsticks, ``passing`` the least absolute tolerance
    that the output passes with (None where none would do), ``weaker`` how many times smaller
    float64's tolerance is where only float32 was computed. ``top1`` is the part of the samples
    whose largest entry is the same, where there is a class axis.
    """

    name: str
    preserved: bool
    reason: str
    max_abs: float | None = None
    max_rel: float | None = None
    tolerance: float | None = None
    yardstick: float | None = None
    ratio: float | None = None
    passing: float | None = None
    weaker: float | None = None
    top1: float | None = None
    float64_max_abs: float | None = None
    float64_tolerance: float | None = None


def compare(name: str, single: Pair, double: Pair | None, allowance: Allowance) -> OutputVerdict:
    """The verdict on one output, computed in float32 and perhaps in float64 as well.

    Where both were computed, both must agree.
    """
    flaw = _flaw(single, "float32") or ("" if double is None else _flaw(double, "float64"))
    if flaw:
        return OutputVerdict(name, False, flaw)
    best = single if double is None else double
    scale = float(np.abs(best.teacher).max())
    yardstick = _yardstick(single, double, scale, allowance.rounding)
    own = allowance.float32(scale, yardstick), allowance.float64(scale, yardstick)
    stated = allowance.stated.of(scale)
    tolerance, double_tolerance = own if stated is None else (stated, stated)
    max_abs = largest_difference(single.teacher, single.student)
    double_abs = None if double is None else largest_difference(double.teacher, double.student)
    resolution = QUICK_RESOLUTION * own[0] if double is None else RESOLUTION * own[1]
    unjudgeable = _unjudgeable(best.teacher, scale, yardstick, max(resolution, stated or 0.0))
    problem = unjudgeable or _departure(max_abs, tolerance, double_abs, double_tolerance)
    passing = rounded_up(max(max_abs, double_abs or 0.0))
    hopeless = _unjudgeable(best.teacher, scale, yardstick, max(resolution, passing))
    return OutputVerdict(
        name,
        not problem,
        problem or f"the largest difference {max_abs:.2e} is within the tolerance {tolerance:.2e}",
        max_abs,
        max_abs / scale if scale else None,
        tolerance,
        yardstick,
        max_abs / yardstick,
        None if hopeless else passing,
        own[0] / own[1] if double is None and stated is None else None,
        _top1(single),
        double_abs,
        None if double is None else double_tolerance,
    )


def _yardstick(single: Pair, double: Pair | None, scale: float, rounding: float) -> float:
    """How much rounding moves the output: measured against float64, or bounded."""
    if double is None:
        return max(rounding * scale, ulp(scale))
    teacher = largest_difference(single.teacher, double.teacher)
    return max(teacher, largest_difference(single.student, double.student), ulp(scale))


def largest_difference(a: np.ndarray, b: np.ndarray) -> float:
    """The largest absolute difference, computed in float64."""
    return float(np.abs(a.astype(np.float64) - b.astype(np.float64)).max())


def _flaw(pair: Pair, precision: str) -> str:
    """Why two arrays cannot be compared, "" when they can."""
    teacher, student = pair.teacher, pair.student
    if teacher.shape != student.shape:
        shapes = f"{list(teacher.shape)} in the teacher and {list(student.shape)} in the student"
        return f"its shape differs: {shapes}"
    if teacher.dtype != student.dtype:
        dtypes = f"{teacher.dtype} in the teacher and {student.dtype} in the student"
        return f"its dtype differs: {dtypes}"
    if not teacher.size:
        return f"it is empty: shape {list(teacher.shape)}"
    for who, array in (("teacher", teacher), ("student", student)):
        broken = int(array.size - np.isfinite(array).sum())
        if broken:
            count = f"{broken} of {array.size} values"
            return f"the {who} computes NaN or infinity in {precision} ({count})"
    return ""


def _unjudgeable(teacher: np.ndarray, scale: float, yardstick: float, needed: float) -> str:
    """Why agreement says nothing unless outputs vary by ``needed``; "" when it says something."""
    if len(teacher) < 2:
        return "one sample cannot show that it depends on the input: give at least two"
    if scale and yardstick > TRUSTED * scale:
        return (
            f"rounding alone moves it by {yardstick:.1e} at a scale of {scale:.1e}: "
            "the arithmetic is too inexact for a verdict"
        )
    variation = float(np.ptp(teacher.astype(np.float64), axis=0).max())
    if variation > 1e-3 * scale and variation <= needed:
        return (
            f"the tolerance is so wide that no two of its values could be told apart: it varies by "
            f"{variation:.1e} over the inputs, and {needed:.1e} would be needed"
        )
    if variation <= needed:
        return (
            f"it does not vary over the inputs (by {variation:.1e} at a scale of {scale:.1e}), "
            "so it cannot be judged: try other inputs"
        )
    return ""


def _departure(
    max_abs: float, tolerance: float, double_abs: float | None, double_tolerance: float
) -> str:
    # "not <=" rather than ">": no number passes that is not one
    if not max_abs <= tolerance:
        return f"the largest difference {max_abs:.2e} exceeds the tolerance {tolerance:.2e}"
    if double_abs is not None and not double_abs <= double_tolerance:
        return (
            f"in float64 the largest difference {double_abs:.2e} exceeds the tolerance "
            f"{double_tolerance:.2e}: too small to show in float32, but no rounding"
        )
    return ""


def _top1(pair: Pair) -> float | None:
    if pair.teacher.ndim != 2 or pair.teacher.shape[-1] < 2:
        return None
    return float((pair.teacher.argmax(-1) == pair.student.argmax(-1)).mean())
