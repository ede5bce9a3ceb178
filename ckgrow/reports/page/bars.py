"""How far every layer's activations are from the teacher's: a column per layer, logarithmic."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from ckgrow.names import shown
from ckgrow.reports.page.evidence import LayerDeviation
from ckgrow.reports.page.figures import name, number, plural, power
from ckgrow.reports.page.markup import Markup, joined, tag
from ckgrow.reports.page.tables import folded, table

_HEIGHT = 160.0
_COLUMN = 10.0
_WIDEST = 40
"""Pixels of a column at most, where a network has few layers."""
_LEAST = 1e-18
"""Nothing smaller is told from zero."""


def deviations(rows: Sequence[LayerDeviation]) -> Markup:
    """The drawing, the layers that depart by name, and all of them when asked for."""
    low, high = _range(rows)
    drawing = tag(
        "svg",
        *_columns(rows, low, high),
        viewBox=f"0 0 {len(rows) * _COLUMN:g} {_HEIGHT:g}",
        preserveAspectRatio="none",
        style=f"max-width: {len(rows) * _WIDEST}px",
        role="img",
        aria_label="deviation of every layer, relative to its scale",
        class_="columns",
    )
    scale = tag("div", tag("span", power(high)), tag("span", power(low)), class_="scale")
    ends = tag(
        "div",
        name(rows[0].layer),
        name(rows[-1].layer),
        class_="ends",
        style=f"max-width: {len(rows) * _WIDEST}px",
    )
    departing = [row for row in rows if row.departs]
    words = (
        joined(
            tag("b", plural(len(departing), "layer")),
            " whose activations depart though what goes in agrees: ",
            *_between([name(row.layer) for row in departing]),
        )
        if departing
        else "No layer departs from its teacher's by more than its tolerance."
    )
    return joined(
        tag("p", words),
        tag("div", scale, tag("div", drawing, ends), class_="plot"),
        folded(f"Every layer ({len(rows):,})", _table(rows)),
    )


def _columns(rows: Sequence[LayerDeviation], low: int, high: int) -> Iterator[Markup]:
    for index, row in enumerate(rows):
        height = max(_part(row.deviation, low, high) * _HEIGHT, 1.5)
        left = index * _COLUMN
        kind = "departs" if row.departs else "over" if row.deviation > row.tolerance else "within"
        title = tag("title", f"{shown(row.layer)}: {row.deviation:.2e} of its scale")
        place = {"x": left + 1, "y": _HEIGHT - height, "width": _COLUMN - 2, "height": height}
        yield tag("rect", title, **place, class_=kind)
        level = _HEIGHT - _part(row.tolerance, low, high) * _HEIGHT
        yield tag("line", x1=left, x2=left + _COLUMN, y1=level, y2=level, class_="tolerance")


def _table(rows: Sequence[LayerDeviation]) -> Markup:
    return table(
        ("layer", "deviation", "tolerance", ""),
        (
            (
                name(row.layer),
                number(row.deviation),
                number(row.tolerance),
                "departs" if row.departs else "",
            )
            for row in rows
        ),
    )


def _range(rows: Sequence[LayerDeviation]) -> tuple[int, int]:
    values = [
        value
        for row in rows
        for value in (row.deviation, row.tolerance)
        if _LEAST < value < math.inf
    ] or [1.0]
    return math.floor(math.log10(min(values))) - 1, math.floor(math.log10(max(values))) + 1


def _part(value: float, low: int, high: int) -> float:
    """How high in the drawing a value is, 0 to 1."""
    if not value > _LEAST:
        return 0.0
    return min(max((math.log10(min(value, 10.0**high)) - low) / (high - low), 0.0), 1.0)


def _between(parts: Sequence[Markup]) -> Iterator[str]:
    for index, part in enumerate(parts):
        yield ", " if index else ""
        yield part
