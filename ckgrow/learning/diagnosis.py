"""What is wrong with a student that was watched in training, and what would be better.

exploding: the loss grows tenfold within steps that lower the teacher's in each.
dead: new weights receive no gradient in any step, so they never will.
locked: new units equal others after the steps, or move no more independently than the teacher's
units do, though sizes and batch would let them.
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

EXPLODES = 10.0
"""Times the first loss."""
SOURCES = 3
"""How many tensors are named as sources of an explosion."""
MOST = 0.5
"""Some new units start out silent, as some of the teacher's are; more than this part is no chance."""
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
    new = [each.name for each in tensors]
    found = [
        *_exploding(graph, losses, {name: slopes.get(name, 0.0) for name in new}),
        *_dead(graph, tensors, groups, members),
        *_locked([each for each in groups if not _is_dead(each)]),
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


def _exploding(graph: Graph, losses: Losses, slopes: Mapping[str, float]) -> list[_Found]:
    first, highest = losses.student[0], max(losses.student, key=_or_infinite)
    if _or_infinite(highest) <= EXPLODES * first:
        return []
    sources = sorted(slopes, key=lambda name: -slopes[name])[:SOURCES]
    layers = tuple(dict.fromkeys(_layer(name) for name in sources))
    grown = f"{highest / first:.3g} times" if math.isfinite(highest) else "beyond all numbers"
    return [
        (
            "exploding",
            layers,
            f"the loss grows {grown} in steps that lower the teacher's; the first changes "
            f"{sources[0]} by {slopes[sources[0]]:.2g} of its size"
            if sources
            else "",
        )
    ]


def _dead(
    graph: Graph,
    tensors: Sequence[TensorLearning],
    groups: Sequence[GroupLearning],
    members: Mapping[str, frozenset[str]],
) -> list[_Found]:
    found: list[_Found] = []
    for group in groups:
        if _is_dead(group):
            found.append(
                (
                    "dead",
                    (group.name,),
                    f"{group.name}: {group.still} of {group.new} new units receive no gradient",
                )
            )
    explained = {name for _, layers, _ in found for group in layers for name in members[group]}
    still = [
        each.name
        for each in tensors
        if not each.moved and each.name not in explained and not _undone(graph, each.name)
    ]
    if still:
        layers = tuple(dict.fromkeys(map(_layer, still)))
        found.append(("dead", layers, f"no new weight of {first_few(still)} receives a gradient"))
    return found


def _locked(groups: Sequence[GroupLearning]) -> list[_Found]:
    found: list[_Found] = []
    for each in groups:
        if each.new and each.identical > MOST * each.new:
            found.append(
                (
                    "locked",
                    (each.name,),
                    f"{each.name}: {each.identical} of {each.new} new units are still copies of "
                    "others",
                )
            )
        elif _of_low_rank(each):
            found.append(
                (
                    "locked",
                    (each.name,),
                    f"{each.name}: its {each.width} channels move like {each.rank_after} "
                    f"independent ones, and so do the teacher's {each.teacher_width}",
                )
            )
    return found


def _is_dead(group: GroupLearning) -> bool:
    return group.still > MOST * group.new


def _of_low_rank(group: GroupLearning) -> bool:
    """Whether units move together though the batch and the sizes would let them part."""
    teacher, rank, attainable = group.teacher_rank, group.rank_after, group.attainable
    if teacher is None or rank is None or attainable is None:
        return False
    return rank <= teacher < attainable


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


def _layer(tensor: str) -> str:
    return tensor.rpartition(".")[0] or tensor


def _praise(tensors: Sequence[TensorLearning]) -> str:
    new, moved = sum(each.new for each in tensors), sum(each.moved for each in tensors)
    if not new:
        return "nothing is new, and training goes on as the teacher's"
    return f"{moved / new:.1%} of the new weights move within three steps"
