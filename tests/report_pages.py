"""Evidence for report pages: students of small teachers, judged and run like any other."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from shipped import TEACHERS

import ckgrow
from ckgrow.architecture import Network
from ckgrow.graph import Graph
from ckgrow.header import Header
from ckgrow.loading import Loaded, Wish, load
from ckgrow.memory import MemoryReader
from ckgrow.registry import runtime
from ckgrow.reports.documents import VerifyDocument
from ckgrow.reports.page.evidence import Evidence, LayerDeviation
from ckgrow.reports.page.layers import layers
from ckgrow.verdict.comparison import Pair
from ckgrow.verdict.samples import seeded_samples

HOSTILE = "</style><script>alert('1')</script>\0\u202eevil\"&amp;\ud800"
"""What a name in a file may be: markup, NUL, a mark that turns the text round, half a character."""


def grown(folder: Path, name: str, spec: Mapping[str, Any]) -> Evidence:
    """All that is known of a student of one of the shipped teachers."""
    student = folder / "student.safetensors"
    ckgrow.apply(TEACHERS / f"{name}.safetensors", spec, student)
    return evidence(TEACHERS / f"{name}.safetensors", student)


def evidence(teacher: Path, student: Path) -> Evidence:
    """The verdict on two files, with what both compute and made-up deviations of every layer."""
    document = ckgrow.verify(teacher, student)
    after = load(student, Wish())
    known = after.provenance
    stated = Wish(known.architecture, known.teacher_options, binding=False) if known else Wish()
    before = load(teacher, stated)
    return Evidence(
        document,
        before,
        after,
        _pairs(before, after, document, "onnxruntime"),
        _pairs(before, after, document, "torch_float64"),
        tuple(
            LayerDeviation(each.name, 1e-16 * (index + 1), 1e-12, False)
            for index, each in enumerate(layers(after.network.graph, after.header))
        ),
    )


def _pairs(
    teacher: Loaded, student: Loaded, document: VerifyDocument, name: str
) -> dict[str, Pair]:
    made = []
    for side in (teacher, student):
        session = runtime(name).Session(side.network.graph, side.header, side.tensor)
        samples = seeded_samples(side.network.graph, document.samples, 0)
        made.append(session.run(samples.rows(0, samples.count)))
    return {output: Pair(made[0][output], made[1][output]) for output in made[0]}


def renamed(evidence: Evidence, mark: str) -> Evidence:
    """The same with ``mark`` in every name of both networks, and in everything that is said."""

    def marked(name: str) -> str:
        return f"{name}{mark}" if name else name

    def network(side: Loaded) -> Loaded:
        graph = side.network.graph
        nodes = tuple(
            replace(
                node,
                name=marked(node.name),
                inputs=tuple(map(marked, node.inputs)),
                outputs=tuple(map(marked, node.outputs)),
            )
            for node in graph.nodes
        )
        inputs = {marked(name): shape for name, shape in graph.inputs.items()}
        constants = {marked(name): each for name, each in graph.constants.items()}
        told = Graph(inputs, tuple(map(marked, graph.outputs)), nodes, constants)
        tensors = {marked(name): side.tensor(name) for name in side.header}
        return replace(
            side,
            label=marked(side.label),
            reader=MemoryReader(tensors),
            prefix="",
            header=Header({marked(name): spec for name, spec in side.header.items()}),
            network=Network(told, side.network.assumptions),
            provenance=None,
        )

    document = evidence.document
    assumptions = tuple(
        replace(each, fact=marked(each.fact), value=marked(each.value))
        for each in document.assumptions
    )
    outputs = tuple(
        replace(each, name=marked(each.name), reason=marked("it differs"), preserved=False)
        for each in document.outputs
    )
    return Evidence(
        replace(
            document,
            teacher=marked("teacher"),
            student=marked("student"),
            reason=marked("why"),
            inputs=marked("inputs"),
            runtimes=(marked("runtime"),),
            tolerance=marked("tolerance"),
            outputs=outputs,
            assumptions=assumptions,
            notes=(marked("note"),),
        ),
        network(evidence.teacher),
        network(evidence.student),
        {marked(name): pair for name, pair in evidence.pairs.items()},
        {marked(name): pair for name, pair in evidence.double_pairs.items()},
        tuple(replace(each, layer=marked(each.layer)) for each in evidence.deviations),
    )


def refuted(evidence: Evidence, size: float = 1e-2) -> Evidence:
    """The same where one layer departs and every output differs by ``size``."""
    departing = [
        replace(each, departs=each is evidence.deviations[1]) for each in evidence.deviations
    ]
    outputs = tuple(
        replace(each, preserved=False, reason="it differs", max_abs=size)
        for each in evidence.document.outputs
    )
    return replace(
        evidence,
        document=replace(
            evidence.document, preserved=False, reason="the outputs differ", outputs=outputs
        ),
        pairs={
            name: Pair(pair.teacher, pair.teacher + np.float32(size))
            for name, pair in evidence.pairs.items()
        },
        deviations=tuple(departing),
    )
