"""The batch to train on: large enough to tell units apart, small enough to be quick."""

from __future__ import annotations

from dataclasses import replace

from ckgrow.errors import CheckpointError
from ckgrow.graph import Graph
from ckgrow.header import Header
from ckgrow.ops import Site, rule
from ckgrow.shapes import infer_shapes
from ckgrow.verdict.interface import Interface
from ckgrow.verdict.running import Side
from ckgrow.verdict.samples import Samples, seeded_samples

WORK = 2 * 10**9
"""Operations of one pass forward that a batch may take, unless it is of the fewest samples."""
FEWEST, MOST = 8, 128
LEAST = 2
"""BatchNorm has no statistics of a single sample."""


def draw_batch(teacher: Side, student: Side, interface: Interface, seed: int) -> Samples:
    """Standard normal samples for both sides."""
    cost = max(_work(student.graph, student.header), 1)
    count = min(max(WORK // cost, FEWEST), MOST)
    drawn = seeded_samples(teacher.graph, count, seed)
    normal = Samples(f"{count} seeded normal samples", drawn.rows(0, count))
    return interface.shared(normal, teacher.graph, student.graph, seed)


def take_batch(samples: Samples, teacher: Side, student: Side) -> Samples:
    """The first of a user's samples, as many as are quick to train on."""
    if samples.count < LEAST:
        raise CheckpointError(
            "one sample is not enough to train on: BatchNorm takes its statistics from the batch; "
            "give at least two"
        )
    cost = max(_work(student.graph, student.header), 1)
    count = min(samples.count, max(WORK // cost, FEWEST), MOST)
    if count == samples.count:
        return samples
    cut = {name: array[:count] for name, array in samples.arrays.items()}
    of_student = samples.of_student
    return replace(
        samples,
        source=f"the first {count} of {samples.source}",
        arrays=cut,
        of_student=of_student and {name: array[:count] for name, array in of_student.items()},
    )


def _work(graph: Graph, header: Header) -> int:
    shapes = infer_shapes(graph, header)
    return sum(
        rule(node.op).flops(
            Site.of(node, shapes, graph.constants), [shapes[name] for name in node.outputs]
        )
        for node in graph.nodes
    )
