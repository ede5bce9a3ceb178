"""Numbers as people read them."""

from __future__ import annotations

import math

from ckgrow.names import shown
from ckgrow.reports.page.markup import Markup, tag, text

_PLAIN = (1e-2, 1e6)
"""Magnitudes between these need no power of ten."""


def number(value: float | None) -> Markup:
    """Three digits: ``0.25``, ``1.2 × 10⁻⁷``; a dash for what was not measured."""
    if value is None:
        return text("–")
    if value == 0 or not math.isfinite(value) or _PLAIN[0] <= abs(value) < _PLAIN[1]:
        return text(
            f"{value:.3g}" if abs(value) < 1000 or not math.isfinite(value) else f"{value:,.0f}"
        )
    mantissa, exponent = f"{value:.1e}".split("e")
    return tag("span", mantissa, " × 10", tag("sup", _signed(int(exponent))), class_="whole")


def power(exponent: int) -> str:
    """A power of ten in plain text, for the axes of drawings."""
    digits = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
    return "10" + str(exponent).translate(digits)


def amount(count: int) -> Markup:
    """``11.7 M``, on one line."""
    for size, prefix in ((10**12, "T"), (10**9, "G"), (10**6, "M"), (10**3, "k")):
        if count >= size:
            return tag("span", f"{count / size:.3g} {prefix}", class_="whole")
    return text(str(count))


def times(teacher: int, student: int) -> str:
    """How much more the student has: ``× 1.52``."""
    return f"× {student / teacher:.2f}" if teacher else "–"


def plural(count: int, what: str) -> str:
    """``1 layer``, ``2 layers``."""
    return f"{count:,} {what}{'' if count == 1 else 's'}"


def name(foreign: str) -> Markup:
    """A name of a file's, as code."""
    return tag("code", shown(foreign))


def _signed(exponent: int) -> str:
    return f"−{-exponent}" if exponent < 0 else str(exponent)
