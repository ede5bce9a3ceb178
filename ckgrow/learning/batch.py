"""The batch to train on: large enough to tell units apart, small enough to be quick."""

from __future__ import annotations

from dataclasses import dataclass

from ckgrow.errors import CheckpointError
from ckgrow.graph import Graph
from ckgrow.header import Header
from ckgrow.ops import Site, rule
from ckgrow.shapes import infer_shapes
from ckgrow.verdict.interface import Interface
from ckgrow.verdict.running import Side
from ckgrow.verdict.samples import Samples, seeded_samples

WORK = 10**9
"""Operations of one pass forward that float64 is quick with."""
WORK_SINGLE = 10**10
"""The same for float32, whose convolutions are many times as fast."""
FEWEST, MOST = 8, 64
LEAST = 2
"""BatchNorm has no statistics of a single sample."""


@dataclass(frozen=True)
class Batch:
    """Samples for both sides, and whether there is time to train on them in float64."""

    samples: Samples
    double: bool


def draw_batch(teacher: Side, student: Side, interface: Interface, seed: int) -> Batch:
    """Standard normal samples."""
    count, double = _affordable(student, MOST)
    drawn = seeded_samples(teacher.graph, count, seed)
    normal = Samples(f"{count} seeded normal samples", drawn.rows(0, count))
    return Batch(interface.shared(normal, teacher.graph, student.graph, seed), double)


def take_batch(samples: Samples, student: Side) -> Batch:
    """The first of a user's samples."""
    if samples.count < LEAST:
        raise CheckpointError(
            "one sample is not enough to train on: BatchNorm takes its statistics from the batch; "
            "give at least two"
        )
    count, double = _affordable(student, min(samples.count, MOST))
    if count == samples.count:
        return Batch(samples, double)
    return Batch(
        Samples(
            f"the first {count} of {samples.source}",
            samples.rows(0, count),
            samples.of_student and samples.for_student().rows(0, count),
        ),
        double,
    )


def _affordable(student: Side, most: int) -> tuple[int, bool]:
    """How many samples, ``most`` at most; and whether a few of them are quick in float64."""
    cost = max(_work(student.graph, student.header), 1)
    fewest = min(FEWEST, most)
    double = cost * fewest <= WORK
    return min(max((WORK if double else WORK_SINGLE) // cost, fewest), most), double


def _work(graph: Graph, header: Header) -> int:
    shapes = infer_shapes(graph, header)
    return sum(
        rule(node.op).flops(
            Site.of(node, shapes, graph.constants), [shapes[name] for name in node.outputs]
        )
        for node in graph.nodes
    )
