"""Runs one side of the comparison in a runtime, a few samples at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from ckgrow.graph import Graph
from ckgrow.header import Header
from ckgrow.ops.rule import elements
from ckgrow.registry import runtime
from ckgrow.shapes import infer_shapes
from ckgrow.verdict.samples import Samples

VALUE_BYTES = 2**27
"""What the largest float64 activation of a batch may take; samples are run in parts beyond it."""


@dataclass(frozen=True)
class Side:
    """One of the two networks. ``read(name)`` returns a whole tensor in its stored dtype."""

    label: str
    graph: Graph
    header: Header
    read: Callable[[str], np.ndarray]


Outputs = Mapping[str, np.ndarray]


def batch_rows(sides: Iterable[Side]) -> int:
    """How many samples are run at a time: the same for all sides, or rounding would differ."""
    largest = max(
        elements(shape)
        for side in sides
        for name, shape in infer_shapes(side.graph, side.header).items()
        if name not in side.header
    )
    return max(1, VALUE_BYTES // (8 * max(largest, 1)))


def run(name: str, side: Side, samples: Samples, rows: int) -> Outputs:
    """The outputs of a side in the runtime called ``name``."""
    session = runtime(name).Session(side.graph, side.header, side.read)
    parts = [
        session.run(samples.rows(start, start + rows)) for start in range(0, samples.count, rows)
    ]
    return {name: np.concatenate([part[name] for part in parts]) for name in side.graph.outputs}
