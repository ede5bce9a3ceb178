"""What both networks cost."""

from __future__ import annotations

from dataclasses import dataclass

from ckgrow.loading import Loaded
from ckgrow.reports.describing import count_bytes, count_flops, count_parameters
from ckgrow.reports.documents import Amount
from ckgrow.reports.page.evidence import Evidence
from ckgrow.shapes import infer_shapes


@dataclass(frozen=True)
class Sizes:
    """Parameters, bytes, and FLOPs of one sample, of teacher and student."""

    parameters: Amount
    bytes: Amount
    flops: Amount


def sizes(evidence: Evidence) -> Sizes:
    """Counts both networks."""
    before, after = map(_counted, (evidence.teacher, evidence.student))
    return Sizes(*(Amount(old, new) for old, new in zip(before, after, strict=True)))


def _counted(side: Loaded) -> tuple[int, int, int]:
    graph, header = side.network.graph, side.header
    return (
        count_parameters(graph, header),
        count_bytes(header),
        count_flops(graph, infer_shapes(graph, header)),
    )
