"""What is wrong with a student that was watched in training, and what would be better.

exploding: the loss doubles within steps each of which lowers the teacher's.
dead: new weights receive no gradient in any step, so they never will.
locked: most new units of a group still equal another unit after the steps.

The ranks of the gradients are reported, but decide nothing: they are small as well where a layer
has few inputs and outputs, or is fed copies itself.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ckgrow.graph import Graph
from ckgrow.learning.ancestry import Ancestry
from ckgrow.learning.cures import cure
from ckgrow.learning.report import (
    Finding,
    GroupLearning,
    Ill,
    Losses,
    Prospect,
    TensorLearning,
)
from ckgrow.names import first_few

EXPLODES = 2.0
"""Times the first loss. Sound students of every method stay below 1.3, exploding ones are above 4:
measured over the matrix of methods."""
SOURCES = 3
"""How many tensors are named as sources of an explosion."""
MOST = 0.5
"""Some new units begin silent, as some of the teacher's are; more than this part is no chance."""
ORDER: tuple[Ill, ...] = ("exploding", "dead", "locked")


@dataclass(frozen=True)
class Diagnosis:
    """The verdict, a sentence, and what it rests on."""

    verdict: Prospect
    reason: str
    findings: tuple[Finding, ...]


def diagnose(
    graph: Graph,
    losses: Losses,
    slopes: Mapping[str, float],
    tensors: Sequence[TensorLearning],
    groups: Sequence[GroupLearning],
    members: Mapping[str, frozenset[str]],
    ancestry: Ancestry | None,
) -> Diagnosis:
    """What all of it means.

    ``slopes`` are the lengths of the first step in lengths of the weights, ``members`` the tensors
    that follow the units of each group.
    """
    steps = ancestry.steps if ancestry else ()
    found = [
        *_exploding(losses, {each.name: slopes.get(each.name, 0.0) for each in tensors}),
        *_dead(graph, tensors, groups, members),
        *_locked(groups),
    ]
    findings = tuple(
        Finding(kind, layers, what, cure(kind, layers, steps)) for kind, layers, what in found
    )
    if not findings:
        return Diagnosis("learns", _praise(tensors), ())
    worst = min(findings, key=lambda each: ORDER.index(each.kind))
    more = f" (and {len(findings) - 1} more)" if len(findings) > 1 else ""
    return Diagnosis(worst.kind, f"{worst.what}{more}; {worst.cure}", findings)


_Found = tuple[Ill, tuple[str, ...], str]


def _exploding(losses: Losses, slopes: Mapping[str, float]) -> list[_Found]:
    first, highest = losses.student[0], max(map(_or_infinite, losses.student))
    if highest <= EXPLODES * first:
        return []
    sources = sorted(slopes, key=lambda name: -slopes[name])[:SOURCES]
    grown = f"{highest / first:.3g} times" if math.isfinite(highest) else "beyond all numbers"
    what = f"the loss grows {grown} in steps that lower the teacher's"
    if sources:
        changed = f"{slopes[sources[0]]:.2g} of its size"
        what += f"; the first changes {sources[0]} most, by {changed}"
    return [("exploding", _layers(sources), what)]


def _dead(
    graph: Graph,
    tensors: Sequence[TensorLearning],
    groups: Sequence[GroupLearning],
    members: Mapping[str, frozenset[str]],
) -> list[_Found]:
    dead = [group for group in groups if _is_dead(group)]
    found: list[_Found] = []
    for group in dead:
        what = f"{group.name}: {group.still} of {group.new} new units receive no gradient"
        found.append(("dead", (group.name,), what))
    explained = {name for group in dead for name in members[group.name]}
    still = [
        each.name
        for each in tensors
        if not each.moved and each.name not in explained and not _undone(graph, each.name)
    ]
    if still:
        what = f"no new weight of {first_few(still)} receives a gradient"
        found.append(("dead", _layers(still), what))
    return found


def _locked(groups: Sequence[GroupLearning]) -> list[_Found]:
    found: list[_Found] = []
    for group in groups:
        if group.new and group.identical > MOST * group.new:
            part = f"{group.identical} of {group.new} new units"
            found.append(
                ("locked", (group.name,), f"{group.name}: {part} are still copies of others")
            )
    return found


def _is_dead(group: GroupLearning) -> bool:
    return group.still > MOST * group.new


def _undone(graph: Graph, name: str) -> bool:
    """Whether a tensor is a bias in front of BatchNorms, which take it out again."""
    for node in graph.consumers().get(name, []):
        behind = graph.consumers().get(node.output, [])
        is_bias = len(node.inputs) > 2 and node.inputs[2] == name
        if not is_bias or {each.op for each in behind} != {"BatchNormalization"}:
            return False
    return True


def _or_infinite(loss: float) -> float:
    return loss if math.isfinite(loss) else math.inf


def _layers(tensors: Sequence[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(name.rpartition(".")[0] or name for name in tensors))


def _praise(tensors: Sequence[TensorLearning]) -> str:
    new, moved = sum(each.new for each in tensors), sum(each.moved for each in tensors)
    if not new:
        return "nothing is new, and training goes on as the teacher's"
    return f"{moved / new:.1%} of the new weights move within three steps"
