"""Which weights a page shows: a few that tell how the student was made."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from ckgrow.loading import Loaded
from ckgrow.maps import ChannelMap
from ckgrow.names import shown
from ckgrow.ops import rule
from ckgrow.provenance import Provenance
from ckgrow.reports.page.evidence import Evidence
from ckgrow.reports.page.heatmap import Matrix
from ckgrow.reports.page.layers import Change, Kind, Layer
from ckgrow.reports.page.matrices import cropped, layout
from ckgrow.reports.page.sources import input_map, readers

_WAYS = 2
"""At most so many ways of widening, and so many of inserting, are shown."""
_LARGEST = 2**25
"""Entries of the largest tensor that is read for a picture."""


@dataclass(frozen=True)
class Shown:
    """Weights before and after, why they are shown and how they are laid out.

    ``teacher`` is None for a new layer.
    """

    layer: Layer
    why: str
    how: str
    teacher: Matrix | None
    student: Matrix


def chosen(evidence: Evidence, changes: Sequence[Change]) -> Iterator[Shown]:
    """The most telling weights; each is read when it is asked for.

    Where the verdict is no, the first layer that departs. Of each way in which channels were
    added, the smallest layer that makes them and the smallest that reads them. Of inserted layers
    the smallest with each certificate, of convolutions with another kernel the smallest.
    """
    seen: set[str] = set()
    for change, why in _wanted(evidence, changes):
        if change.student and change.student.name not in seen and _size(change) <= _LARGEST:
            seen.add(change.student.name)
            yield _shown(evidence, change.teacher, change.student, why)


def _wanted(evidence: Evidence, changes: Sequence[Change]) -> Iterator[tuple[Change, str]]:
    by_name = {each.student.name: each for each in changes if each.student}
    departing = [row.layer for row in evidence.deviations if row.departs and row.layer in by_name]
    if departing:
        yield by_name[departing[0]], "the first layer that departs"
    graph, record = evidence.student.network.graph, evidence.record
    for change in _smallest(changes, "wider", lambda each: _way(record, each), _WAYS):
        yield change, "makes more channels than before"
        found = [by_name[each] for each in readers(graph, change.layer.name) if each in by_name]
        known = [each for each in found if each.teacher]
        if known:
            yield min(known, key=_size), f"reads the channels of {shown(change.layer.name)}"
    for change in _smallest(changes, "new", lambda each: _certificate(record, each), _WAYS):
        certificate = _certificate(record, change)
        yield change, f"inserted ({certificate})" if certificate else "inserted"
    for change in _smallest(changes, "kernel", lambda _: "", 1):
        yield change, "has a larger kernel than before"


def _smallest(
    changes: Iterable[Change], kind: Kind, way: Callable[[Change], str], most: int
) -> list[Change]:
    """The smallest layer of each way of growing, in the order of the network."""
    best: dict[str, Change] = {}
    for change in changes:
        if change.kind == kind:
            known = best.get(way(change), change)
            best[way(change)] = min(known, change, key=_size)
    return list(best.values())[:most]


def _shown(evidence: Evidence, before: Layer | None, after: Layer, why: str) -> Shown:
    new = _weights(evidence.student, after)
    old = _weights(evidence.teacher, before) if before else None
    first = "" if before is None or before.kernel == after.kernel else "the first channels; "
    if first:
        new, old = cropped(new), None if old is None else cropped(old)
    how, lay_out = layout(new.shape)
    cells = lay_out(new)
    record = None if first else evidence.record
    rows = record.origins[after.name].map if record and after.name in record.origins else None
    columns = input_map(evidence.student.network.graph, record, after.name) if record else None
    return Shown(
        after,
        why,
        first + how,
        None if old is None else Matrix(lay_out(old)),
        Matrix(cells, _fitting(rows, cells.shape[0]), _fitting(columns, cells.shape[1])),
    )


def _weights(side: Loaded, layer: Layer) -> np.ndarray:
    """A layer's weights in float32, output channels first."""
    weights = side.tensor(layer.weight).astype(np.float32)
    node = side.network.graph.node(layer.name)
    return weights.swapaxes(0, 1) if rule(node.op).rows(node) == 1 else weights


def _fitting(known: ChannelMap | None, length: int) -> ChannelMap | None:
    """The map along an edge of so many cells: a channel may have several."""
    if known is None or not len(known) or length % len(known):
        return None
    return known.repeat(length // len(known))


def _size(change: Change) -> int:
    return math.prod(change.layer.shape)


def _way(record: Provenance | None, change: Change) -> str:
    """Which kinds of channels were added: layers grown alike are one way."""
    origin = record.origins.get(change.layer.name) if record else None
    if origin is None:
        return ""
    found = origin.map
    copies, fresh = bool((found.counts > 1).any()), found.fresh_count > 0
    return f"{copies} {fresh} {found.has_zeros}"


def _certificate(record: Provenance | None, change: Change) -> str:
    origin = record.origins.get(change.layer.name) if record else None
    return origin.certificate if origin else ""
