"""How large the differences of one output are, against what it may differ by.

The horizontal axis is logarithmic, so that rounding and a fault can be told apart in one picture:
what is exactly zero stands in a bar of its own at the left.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from ckgrow.reports.page.figures import number, plural, power
from ckgrow.reports.page.markup import Markup, joined, tag
from ckgrow.verdict.comparison import Pair

_LEFT, _RIGHT, _TOP, _BOTTOM = 42.0, 328.0, 28.0, 130.0
_ZERO = (8.0, 24.0)
"""Where the bar of exact zeros stands."""
_SIZE = (340, 152)
_LABELS = {"tolerance": 9.0, "yardstick": 20.0}
"""The lines of text above the bars."""
_ROOM = 50.0
"""What such a word takes."""
_BINS = 48
_DECADES = 12
"""No more powers of ten than these below the largest: what is smaller counts into the first bar."""
_BELOW = 1e-4
"""This part of the tolerance is always in the picture."""


@dataclass(frozen=True)
class Marks:
    """What an output may differ by, and the rounding that was measured; None where it was not."""

    tolerance: float
    yardstick: float | None = None


def histogram(pair: Pair, marks: Marks, precision: str) -> Markup:
    """The drawing with a caption; words alone where two arrays cannot be subtracted."""
    differences = _differences(pair)
    if differences is None:
        return tag("p", f"In {precision} there is nothing to draw: see the reason above.")
    zeros = int(np.count_nonzero(differences == 0))
    over = int(np.count_nonzero(differences > marks.tolerance))
    said = joined(
        tag("b", precision),
        f": {plural(differences.size, 'value')}, ",
        f"{zeros:,} without any difference, " if zeros else "",
        "none" if not over else f"{over:,}",
        " above the tolerance of ",
        number(marks.tolerance),
    )
    drawing = tag(
        "svg",
        *_parts(differences, marks),
        viewBox=f"0 0 {_SIZE[0]} {_SIZE[1]}",
        role="img",
        aria_label=f"histogram of the differences in {precision}",
        class_="histogram",
    )
    return tag("figure", drawing, tag("figcaption", said))


def _differences(pair: Pair) -> np.ndarray | None:
    if pair.teacher.shape != pair.student.shape or not pair.teacher.size:
        return None
    difference = np.abs(pair.teacher.astype(np.float64) - pair.student.astype(np.float64)).ravel()
    return difference if np.isfinite(difference).all() else None


def _parts(differences: np.ndarray, marks: Marks) -> Iterator[Markup]:
    low, high = _range(differences, marks.tolerance)
    nonzero = differences[differences > 0]
    edges = np.linspace(low, high, _BINS + 1)
    counts, _ = np.histogram(np.clip(np.log10(nonzero), low, high), edges)
    zeros = len(differences) - len(nonzero)
    tallest = max(int(counts.max(initial=0)), zeros, 1)
    limit = math.log10(marks.tolerance) if marks.tolerance > 0 else low
    step = (_RIGHT - _LEFT) / _BINS

    def bar(left: float, width: float, count: int, kind: str) -> Markup:
        height = max((_BOTTOM - _TOP) * count / tallest, 1.0)
        place = {"x": left, "y": _BOTTOM - height, "width": width, "height": height}
        return tag("rect", tag("title", plural(count, "value")), **place, class_=kind)

    if zeros:
        yield bar(_ZERO[0], _ZERO[1] - _ZERO[0], zeros, "within")
    for index, count in enumerate(counts.tolist()):
        if count:
            kind = "over" if edges[index] >= limit else "within"
            yield bar(_LEFT + index * step, step * 0.9, count, kind)
    yield tag("line", x1=_ZERO[0], x2=_ZERO[1], y1=_BOTTOM, y2=_BOTTOM, class_="axis")
    yield tag("line", x1=_LEFT, x2=_RIGHT, y1=_BOTTOM, y2=_BOTTOM, class_="axis")
    yield tag("text", "0", x=sum(_ZERO) / 2, y=_BOTTOM + 14, text_anchor="middle")
    for exponent in range(low, high + 1, 1 + (high - low) // 7):
        place = _place(exponent, low, high)
        yield tag("line", x1=place, x2=place, y1=_BOTTOM, y2=_BOTTOM + 3, class_="axis")
        yield tag("text", power(exponent), x=place, y=_BOTTOM + 14, text_anchor="middle")
    if marks.yardstick:
        yield from _mark("yardstick", marks.yardstick, low, high)
    if marks.tolerance > 0:
        yield from _mark("tolerance", marks.tolerance, low, high)


def _mark(word: str, value: float, low: int, high: int) -> Iterator[Markup]:
    place, line = _place(math.log10(value), low, high), _LABELS[word]
    anchor, side = ("end", -3) if place > _RIGHT - _ROOM else ("start", 3)
    yield tag("line", x1=place, x2=place, y1=line - 7, y2=_BOTTOM, class_=word)
    yield tag("text", word, x=place + side, y=line, text_anchor=anchor, class_=word)


def _place(exponent: float, low: int, high: int) -> float:
    part = min(max((exponent - low) / (high - low), 0.0), 1.0)
    return _LEFT + part * (_RIGHT - _LEFT)


def _range(differences: np.ndarray, tolerance: float) -> tuple[int, int]:
    """Powers of ten between which everything is drawn."""
    largest = max(float(differences.max()), tolerance)
    if largest <= 0:
        return -1, 0
    nonzero = differences[differences > 0]
    smallest = float(np.percentile(nonzero, 1)) if len(nonzero) else largest
    high = math.floor(math.log10(largest)) + 1
    low = math.floor(math.log10(min(smallest, (tolerance or largest) * _BELOW)))
    return max(low, high - _DECADES), high
