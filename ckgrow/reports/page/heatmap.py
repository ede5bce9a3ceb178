"""Weights as pictures, the teacher's and the student's side by side, one cell as large in both.

As the papers show them: rows are output channels, columns input channels, blue is negative, red
positive, nothing at all is exactly zero. Along the edges runs what each channel is.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np

from ckgrow.maps import ChannelMap
from ckgrow.reports.page.markup import Markup, tag
from ckgrow.reports.page.png import Colour, data_url, encode

MOST = 288
"""Cells along either side of a picture; larger matrices are drawn coarser."""
_LARGEST = (340.0, 640.0)
"""How high and wide the pictures of one layer are together at most, in pixels."""
_SMALLEST = (56.0, 150.0)
"""How high and wide they are at least, where the cells need not be larger than the next for it."""
_CELL = 12.0
"""The sides of a cell at most."""
_EDGE = 6.0
"""What the strip along an edge takes, with the gap to the picture."""
_STRIP = 4.0
_LEVELS = 127
_FAINTEST = 30
"""Opacity of the smallest weight that is not zero."""
_NEGATIVE, _POSITIVE = (45, 120, 230), (226, 74, 51)
_CLIP = 99.5
"""The percentile of the weights' size that is drawn at full strength."""


@dataclass(frozen=True)
class Matrix:
    """Weights as rows and columns, with what their channels are where that is known."""

    cells: np.ndarray
    rows: ChannelMap | None = None
    columns: ChannelMap | None = None


def heat_maps(sides: Sequence[tuple[str, Matrix]]) -> Markup:
    """Matrices side by side, each below its caption."""
    coarse = [
        max(1, -(-max(side.cells.shape[axis] for _, side in sides) // MOST)) for axis in (0, 1)
    ]
    drawn = [_coarsened(side.cells, coarse[0], coarse[1]) for _, side in sides]
    full = _full_strength([side.cells for _, side in sides])
    cell = _cell(max(each.shape[0] for each in drawn), sum(each.shape[1] for each in drawn))
    widths = [each.shape[1] * cell[1] + _EDGE for each in drawn]
    figures = (
        tag(
            "figure",
            tag("figcaption", caption),
            _drawing(side, cells, full, cell, aria=caption),
        )
        for (caption, side), cells in zip(sides, drawn, strict=True)
    )
    tracks = " ".join(f"minmax(0, {width:.4g}fr)" for width in widths)
    style = f"grid-template-columns: {tracks}; max-width: {max(sum(widths), 240):.0f}px"
    return tag("div", *figures, class_="maps", style=style)


def _cell(rows: int, columns: int) -> tuple[float, float]:
    """Height and width of a cell: a square, unless one side would be too thin to be seen."""
    square = min(_LARGEST[0] / rows, _LARGEST[1] / columns, _CELL)
    return (
        max(square, min(_SMALLEST[0] / rows, _CELL)),
        max(square, min(_SMALLEST[1] / columns, _CELL)),
    )


def _drawing(
    side: Matrix, cells: np.ndarray, full: float, cell: tuple[float, float], *, aria: str
) -> Markup:
    height, width = cells.shape[0] * cell[0], cells.shape[1] * cell[1]
    picture = tag(
        "image",
        href=data_url(encode(_pixels(cells, full), _palette())),
        x=_EDGE,
        y=_EDGE,
        width=width,
        height=height,
        preserveAspectRatio="none",
    )
    frame = tag("rect", x=_EDGE, y=_EDGE, width=width, height=height, class_="frame")
    return tag(
        "svg",
        picture,
        frame,
        *_strip(side.rows, height, upright=True),
        *_strip(side.columns, width, upright=False),
        viewBox=f"0 0 {width + _EDGE:.6g} {height + _EDGE:.6g}",
        role="img",
        aria_label=aria,
        class_="heat",
    )


def _strip(known: ChannelMap | None, length: float, *, upright: bool) -> Iterator[Markup]:
    if known is None:
        return
    step = length / len(known)
    start = 0
    for kind, run in groupby(kinds(known)):
        count = sum(1 for _ in run)
        place = _EDGE + start * step
        size = count * step
        if upright:
            yield tag("rect", x=0, y=place, width=_STRIP, height=size, class_=kind)
        else:
            yield tag("rect", x=place, y=0, width=size, height=_STRIP, class_=kind)
        start += count


def kinds(known: ChannelMap) -> list[str]:
    """What each channel is: the teacher's own, one more copy, a fresh unit, or zero."""
    named = np.full(len(known), "fresh", dtype=object)
    copied = known.sources >= 0
    named[copied & (known.ranks == 0)] = "kept"
    named[copied & (known.ranks > 0)] = "copy"
    named[~copied & (known.fresh_units < 0)] = "zero"
    return list(named)


def _coarsened(cells: np.ndarray, rows: int, columns: int) -> np.ndarray:
    """One cell for rows x columns of them: the largest, so that no diagonal is lost."""
    if rows == columns == 1:
        return cells
    padding = [(0, -size % step) for size, step in zip(cells.shape, (rows, columns), strict=True)]
    whole = np.pad(cells, padding)
    tiles = whole.reshape(whole.shape[0] // rows, rows, -1, columns).swapaxes(1, 2)
    flat = tiles.reshape(*tiles.shape[:2], -1)
    largest = np.abs(flat).argmax(-1)[..., None]
    return np.take_along_axis(flat, largest, -1)[..., 0]


def _full_strength(matrices: Sequence[np.ndarray]) -> float:
    """The size from which on colours are no stronger; the same for all that are compared."""
    sizes = np.concatenate([np.abs(each[np.isfinite(each) & (each != 0)]) for each in matrices])
    return float(np.percentile(sizes, _CLIP)) if sizes.size else 1.0


def _pixels(cells: np.ndarray, full: float) -> np.ndarray:
    """Indexes into the palette: 0 for zero, then negative ones, then positive ones."""
    size = np.nan_to_num(np.abs(cells) / full, nan=1.0, posinf=1.0)
    level = 1 + np.minimum(size * (_LEVELS - 1), _LEVELS - 1).astype(np.uint8)
    level[cells > 0] += _LEVELS
    level[cells == 0] = 0
    return level


def _palette() -> list[Colour]:
    """Two colours from faint to full, on whatever the page's background is."""
    strengths = [
        _FAINTEST + round((255 - _FAINTEST) * level / (_LEVELS - 1)) for level in range(_LEVELS)
    ]
    return [
        (0, 0, 0, 0),
        *((*_NEGATIVE, strength) for strength in strengths),
        *((*_POSITIVE, strength) for strength in strengths),
    ]
