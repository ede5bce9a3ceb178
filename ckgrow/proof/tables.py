"""What was checked, group by group and tensor by tensor."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from ckgrow.coupling import couple
from ckgrow.groups import Grouping, group_channels
from ckgrow.loading import Loaded
from ckgrow.proof.certificate import Check, Finding, GroupCheck
from ckgrow.proof.claims import Claims
from ckgrow.proof.student import Seen

WORST = ("refuted", "not checked", "holds")
_NOTHING = np.empty(0, dtype=np.int64)


def tabulate(
    student: Loaded, claims: Claims, seen: Sequence[Seen], findings: Sequence[Finding]
) -> tuple[tuple[GroupCheck, ...], tuple[Check, ...]]:
    """A row for every group that has channels of a layer, and one for every tensor."""
    graph = student.network.graph
    grouping = group_channels(graph, couple(graph, student.header))
    group_of: dict[str, str] = {}
    for group in grouping.groups.values():
        for axis in group.axes:
            group_of.setdefault(axis.rpartition("[")[0], group.name)
    tensors = tuple(_tensors(student, group_of, seen, findings))
    return tuple(_groups(grouping, claims, tensors)), tensors


def _tensors(
    student: Loaded, group_of: dict[str, str], seen: Sequence[Seen], findings: Sequence[Finding]
) -> Iterator[Check]:
    known = {each.tensor: each for each in seen}
    wrong: dict[str, Finding] = {}
    for each in findings:
        wrong.setdefault(each.tensor, each)
    for name, spec in student.header.items():
        looked, finding = known.get(name), wrong.get(name)
        found = finding or looked
        sources = looked.sources if looked else _NOTHING
        yield Check(
            name,
            found.layer if found else "",
            group_of.get(name, ""),
            spec.shape,
            "refuted" if finding else "holds" if looked else "not checked",
            int((sources >= 0).sum()),
            int((sources < -1).sum()),
            int((sources == -1).sum()),
            found.defect if found else 0.0,
            found.equation if found else "no layer reads it",
        )


def _groups(grouping: Grouping, claims: Claims, tensors: Sequence[Check]) -> Iterator[GroupCheck]:
    members: dict[str, list[Check]] = {}
    for check in tensors:
        members.setdefault(check.group, []).append(check)
    for group in grouping.groups.values():
        rows = members.get(group.name)
        if not rows or not group.layers:
            continue
        origin = claims.origins.get(group.layers[0])
        sources = np.arange(group.width) if origin is None else origin.map.sources
        teacher = group.width if origin is None else origin.map.width if origin.of else 0
        yield GroupCheck(
            group.name,
            teacher,
            group.width,
            int((sources >= 0).sum()),
            int((sources < -1).sum()),
            int((sources == -1).sum()),
            len(rows),
            min((row.result for row in rows), key=WORST.index),
            max(row.defect for row in rows),
        )
