"""Names the layers at which a student goes wrong."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ckgrow.graph import Node
from ckgrow.loading import Loaded
from ckgrow.proof import Claims, Finding, Proof, Traces, traced_proof
from ckgrow.proof.describing import described
from ckgrow.verdict.running import batch_rows
from ckgrow.verdict.samples import Samples

AGREES = 1e-10
"""Of the scale of what a layer makes: rounding of one layer in float64 is a thousandth of it."""
DEFECTS = 64.0
"""How many recorded defects a layer may be off by."""
SAMPLES = 16
LISTED = 16
"""Of how many channels the sources are named."""


@dataclass(frozen=True)
class Source:
    """A layer whose output departs while its inputs agree: a source of failure.

    ``tensors`` are those that are wrong, or all of the layer's where that is not known;
    ``channels`` those of its output that depart, ``sources`` what the first of them should be,
    ``deviation`` the largest departure, relative to the scale of what the layer makes.
    """

    layer: str
    tensors: tuple[str, ...]
    channels: tuple[int, ...]
    sources: tuple[str, ...]
    deviation: float


@dataclass(frozen=True)
class NodeDeviation:
    """How far a node of the student departs by itself, relative to the scale of its output."""

    name: str
    op: str
    deviation: float
    tolerance: float


@dataclass(frozen=True)
class Localisation:
    """All sources of failure; ``compared`` counts nodes, ``skipped`` have unknown labels."""

    sources: tuple[Source, ...]
    compared: int
    skipped: tuple[str, ...]


def locate(
    teacher: Loaded,
    student: Loaded,
    samples: Samples,
    claims: Claims | None = None,
    progress: Callable[[str], None] = lambda _: None,
) -> tuple[Localisation, tuple[NodeDeviation, ...]]:
    """Runs every layer of the student on what it should be given, in float64.

    The sources of failure, and how far every node departs by itself.

    ``samples`` are those of both sides; a few of them do. ``claims`` are those of the student's
    record if not given.
    """
    from ckgrow.localisation.lifting import Lifting, Traced  # imports torch

    claims = claims or Claims.of(teacher, student)
    progress("locating the difference")
    proof, traces = traced_proof(teacher, student, claims)
    before = Traced(teacher.network.graph, teacher.tensor, traces.teacher)
    after = Traced(student.network.graph, student.tensor, traces.student)
    lifting = Lifting(before, after, traces.table)
    sources: list[Source] = []
    nodes: dict[str, NodeDeviation] = {}
    rows = min(SAMPLES, batch_rows((teacher.side, student.side)))
    for departure in lifting.run(samples.rows(0, rows), samples.for_student().rows(0, rows)):
        node = departure.node
        tolerance = AGREES + DEFECTS * claims.defects.get(node.name, 0.0)
        wrong = np.flatnonzero(departure.compared & ~(departure.deviation <= tolerance))
        if departure.compared.any():
            largest = float(departure.deviation[departure.compared].max())
            nodes[node.name] = NodeDeviation(node.name, node.op, largest, tolerance)
        if len(wrong):
            sources.append(_source(student, node, wrong, departure.deviation, proof, traces))
    every = student.network.graph.nodes
    skipped = tuple(node.name for node in every if node.name not in nodes)
    return Localisation(tuple(sources), len(nodes), skipped), tuple(nodes.values())


def _source(
    student: Loaded,
    node: Node,
    wrong: np.ndarray,
    deviation: np.ndarray,
    proof: Proof,
    traces: Traces,
) -> Source:
    """A node that departs, in the names of the checkpoint; the proof may know the tensor."""
    known = _findings(node, proof)
    layer = known[0].layer if known else node.name
    own = tuple(name for name in node.inputs if name in student.header)
    labels = traces.student[node.output].ravel()
    said = [described(traces.table, int(labels[each])) for each in wrong[:LISTED]]
    return Source(
        layer,
        tuple(dict.fromkeys(each.tensor for each in known if each.tensor)) or own,
        tuple(wrong.tolist()),
        tuple(said),
        float(deviation[wrong].max()),
    )


def _findings(node: Node, proof: Proof) -> list[Finding]:
    """What the proof found at a node's tensors, or at those of a factor it is a product with."""
    return [
        each
        for each in proof.findings
        if each.layer == node.name or each.tensor in node.inputs or each.product == node.name
    ]
