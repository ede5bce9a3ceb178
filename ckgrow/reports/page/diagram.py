"""The architecture before and after: a bar per layer, stage by stage, what grew in colour.

The teacher stands left, the student right; a layer and what became of it are level with each
other. A bar is as long as the square root of the layer's channels, so that 64 and 4,096 can be
seen in one picture. Layers that the data passes at the same depth stand beside each other.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from ckgrow.names import by, shown
from ckgrow.reports.page.figures import name, plural
from ckgrow.reports.page.layers import Change, Kind, Layer
from ckgrow.reports.page.markup import Markup, joined, tag
from ckgrow.reports.page.stages import Row, Stage

_WIDTH = 300.0
_GAP = 4.0
"""Between bars of one row, in the same units."""
_HEIGHT = 560.0
_BAR = (3.0, 14.0)
"""The height that all rows together should have, and the least and the largest of one bar."""
_BETWEEN_BLOCKS = 5.0

WORDS: dict[Kind, str] = {
    "same": "unchanged",
    "wider": "wider",
    "kernel": "other kernel",
    "new": "new",
    "gone": "not in the student",
    "other": "narrower",
}


def diagram(stages: Sequence[Stage]) -> Markup:
    """Both networks side by side."""
    rows = [row for stage in stages for block in stage.blocks for row in block.rows]
    scale = _scale(rows)
    bar = min(max(_HEIGHT / max(len(rows), 1), _BAR[0]), _BAR[1])
    head = tag(
        "div",
        tag("span", "stage", class_="stage-name"),
        tag("span", "teacher"),
        tag("span", "student"),
        class_="stage heads",
    )
    return tag("div", head, *(_stage(stage, scale, bar) for stage in stages), class_="stages")


def legend(changes: Sequence[Change]) -> Markup:
    """What the colours mean; only those that occur."""
    found = {change.kind for change in changes}
    said = [("kept", "the teacher's")]
    if "wider" in found:
        said.append(("wider", "channels added"))
    if "new" in found:
        said.append(("new", "layers added"))
    if "kernel" in found:
        said.append(("kernel", "larger kernel"))
    if found & {"gone", "other"}:
        said.append(("gone", "missing or narrower in the student"))
    return tag(
        "p",
        *(
            tag("span", tag("span", class_=f"swatch {kind}"), words, class_="key")
            for kind, words in said
        ),
        class_="legend",
    )


def _stage(stage: Stage, scale: float, bar: float) -> Markup:
    sides = (
        _drawing(stage, scale, bar, student=False),
        _drawing(stage, scale, bar, student=True),
    )
    label = joined(name(stage.name), tag("small", " · ".join(_summary(stage))))
    return tag("div", tag("div", label, class_="stage-name"), *sides, class_="stage")


def _summary(stage: Stage) -> Iterator[str]:
    """The depth of a stage, its width, and what grew."""
    blocks = [
        (any(each.teacher for each in block.changes), any(each.student for each in block.changes))
        for block in stage.blocks
    ]
    if len(blocks) > 1:
        before, after = (sum(side) for side in zip(*blocks, strict=True))
        yield _arrow(before, after, "block" if _has_real_blocks(stage) else "layer")
    elif len(stage.changes) > 1:
        before = sum(each.teacher is not None for each in stage.changes)
        after = sum(each.student is not None for each in stage.changes)
        yield _arrow(before, after, "layer")
    wider = [each for each in stage.changes if each.kind in ("wider", "other")]
    if wider:
        widths = {(_width(each.teacher), _width(each.student)) for each in wider}
        if len(widths) == 1:
            yield _arrow(*widths.pop(), "channel")
        else:
            yield f"{plural(len(wider), 'layer')} wider"
    elif len(stage.changes) == 1:
        yield plural(stage.changes[0].layer.width, "channel")
    for change in stage.changes:
        if change.kind == "kernel" and change.teacher and change.student:
            yield f"kernel {by(change.teacher.kernel)} → {by(change.student.kernel)}"
            break
    if all(each.kind == "new" for each in stage.changes):
        yield "new"


def _has_real_blocks(stage: Stage) -> bool:
    return any(len(block.changes) > 1 for block in stage.blocks)


def _arrow(before: int, after: int, what: str) -> str:
    return plural(after, what) if before == after else f"{before:,} → {plural(after, what)}"


def _drawing(stage: Stage, scale: float, bar: float, *, student: bool) -> Markup:
    shapes: list[Markup] = []
    top = 0.0
    for block in stage.blocks:
        height = len(block.rows) * bar
        is_new = all(change.kind == "new" for change in block.changes)
        if student or not is_new:
            kind = "block new-block" if is_new else "block"
            shapes.append(tag("rect", x=0, y=top, width=_WIDTH, height=height, class_=kind))
        for row in block.rows:
            shapes += _bars(row, scale, top, bar, student=student)
            top += bar
        top += _BETWEEN_BLOCKS
    height = max(top - _BETWEEN_BLOCKS, bar)
    side = "student" if student else "teacher"
    return tag(
        "svg",
        *shapes,
        viewBox=f"0 0 {_WIDTH:g} {height:g}",
        preserveAspectRatio="none",
        height=height,
        role="img",
        aria_label=f"{side}: {shown(stage.name)}",
    )


def _bars(row: Row, scale: float, top: float, bar: float, *, student: bool) -> Iterator[Markup]:
    """One row of layers. Where a layer is on both sides, it begins at the same place."""
    left = 0.0
    height = bar - (1 if bar < 8 else 2)
    for change in row:
        before = scale * math.sqrt(_width(change.teacher))
        after = scale * math.sqrt(_width(change.student))
        place = {"y": top + (bar - height) / 2, "height": height}
        if student and change.student:
            kept = min(before, after)
            parts = [(left, kept, "kernel" if change.kind == "kernel" else "kept")]
            parts.append((left + kept, after - kept, "wider" if change.teacher else "new"))
        elif not student and change.teacher:
            parts = [(left, before, "gone" if change.kind in ("gone", "other") else "kept")]
        else:
            parts = []
        title = tag("title", _words(change))
        for start, length, kind in parts:
            if length > 0:
                yield tag("rect", title, x=start, width=length, **place, class_=kind)
        left += max(before, after) + _GAP


def _words(change: Change) -> str:
    return f"{shown(change.layer.name)}: {facts(change.teacher)} → {facts(change.student)}"


def facts(layer: Layer | None) -> str:
    """A layer in a few words."""
    if layer is None:
        return "none"
    kernel = f", {by(layer.kernel)}" if layer.kernel else ""
    return f"{plural(layer.width, 'channel')}{kernel}"


def _scale(rows: Sequence[Row]) -> float:
    """Units per square root of a channel: the longest row fills the drawing."""
    return min(
        (
            (_WIDTH - _GAP * (len(row) - 1))
            / sum(math.sqrt(max(_width(each.teacher), _width(each.student))) for each in row)
            for row in rows
        ),
        default=1.0,
    )


def _width(layer: Layer | None) -> int:
    return layer.width if layer else 0
