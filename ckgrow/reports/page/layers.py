"""The layers of both networks side by side: which is which, and what became of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

from ckgrow.graph import Graph, Node
from ckgrow.header import Header
from ckgrow.ops import rule
from ckgrow.provenance import Provenance
from ckgrow.reports.page.evidence import Evidence
from ckgrow.shapes import infer_shapes

Kind = Literal["same", "wider", "kernel", "new", "gone", "other"]


@dataclass(frozen=True)
class Layer:
    """A node that makes channels, ``width`` of them, with the tensor ``weight``.

    ``rank`` is the longest way to it from a graph input, in layers: layers of one rank stand
    beside each other.
    """

    name: str
    op: str
    weight: str
    shape: tuple[int, ...]
    width: int
    rank: int

    @property
    def kernel(self) -> tuple[int, ...]:
        """The kernel's sizes; () for a dense layer."""
        return self.shape[2:]


@dataclass(frozen=True)
class Change:
    """A layer before and after; at least one of the two is there."""

    teacher: Layer | None
    student: Layer | None

    @property
    def layer(self) -> Layer:
        """The student's layer, or the teacher's where the student has none."""
        found = self.student or self.teacher
        if found is None:
            raise ValueError("a change of no layer")
        return found

    @property
    def kind(self) -> Kind:
        """What became of the layer."""
        before, after = self.teacher, self.student
        if before is None:
            return "new"
        if after is None:
            return "gone"
        if after.kernel != before.kernel:
            return "kernel"
        if after.width == before.width:
            return "same"
        return "wider" if after.width > before.width else "other"


def changes(evidence: Evidence) -> tuple[Change, ...]:
    """Every layer of the student in order, then what only the teacher has.

    The student's record says which tensor was which. Without it equal names are taken for the
    same layer.
    """
    before, after = (
        list(layers(side.network.graph, side.header))
        for side in (evidence.teacher, evidence.student)
    )
    origin = _origins(evidence.record)
    by_weight = {each.weight: each for each in before}
    found = [Change(by_weight.get(origin(each.weight)), each) for each in after]
    used = {change.teacher.weight for change in found if change.teacher}
    return (*found, *(Change(each, None) for each in before if each.weight not in used))


def _origins(record: Provenance | None) -> Callable[[str], str]:
    """What a student's tensor is called in the teacher; "" for a new one."""
    if record is None:
        return lambda name: name
    called = {new: old for old, new in record.renames.items()}
    new = frozenset(record.new_tensors)
    return lambda name: "" if name in new else called.get(name, name)


def layers(graph: Graph, header: Header) -> Iterator[Layer]:
    """The layers of a network, in the graph's order."""
    shapes = infer_shapes(graph, header)
    ranks: dict[str, int] = {}
    for node in graph.nodes:
        weight = _weight(node, header)
        rank = max((ranks.get(name, 0) for name in node.inputs), default=0) + bool(weight)
        ranks.update(dict.fromkeys(node.outputs, rank))
        if weight:
            width = shapes[node.output][rule(node.op).channel_dim]
            yield Layer(node.name, node.op, weight, header.shape(weight), int(width), rank)


def _weight(node: Node, header: Header) -> str:
    """The tensor with a layer's weights, "" for a node that is no layer."""
    if not rule(node.op).makes_channels:
        return ""
    return next(
        (name for name in node.inputs if name in header and len(header.shape(name)) > 1), ""
    )
