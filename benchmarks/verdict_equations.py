"""Whether a change to one tensor, or to one recorded map, breaks an equation: naively, in numpy.

The sound student satisfies the equations of every layer. So a changed weight W' = W + D violates
one where D does, with the classes of channels that the record says: D's sums over the columns of
one class vanish in rows that are copies or zero, and are equal in the rows of one fresh unit. Of
parameters by channel: those of copies stay as they are, those of one fresh unit stay equal.

These are the equations of single layers. That an inserted block as a whole adds zero, or is the
identity, is not looked into here: whatever is lost there shows in the outputs.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from ckgrow.graph import Graph, Node
from ckgrow.header import Header, TensorSpec
from ckgrow.maps import ZERO, ChannelMap
from ckgrow.ops.rule import elements
from ckgrow.provenance import Provenance
from ckgrow.shapes import infer_shapes

ROUNDING = 1e-12
"""Relative to the largest number in the tensor: what sums in float64 may be off by."""
DEFECTS = 64.0
"""What a recorded defect is multiplied by before it is exceeded, as in the tolerance."""
LAYERS = ("Conv", "Gemm")
POINTWISE = ("Relu", "MaxPool", "GlobalAveragePool", "Dropout")

Arrays = Mapping[str, np.ndarray]


class Class(NamedTuple):
    """Channels that are equal for every input. ``fresh`` ones are none of the teacher's."""

    fresh: bool
    of: Hashable


Classes = list[Class]
NULL = Class(False, "zero")


@dataclass(frozen=True)
class Equations:
    """The classes of every value's channels in a sound student."""

    graph: Graph
    record: Provenance
    tensors: Arrays
    classes: Mapping[str, Classes]

    @staticmethod
    def of(graph: Graph, record: Provenance, tensors: Arrays) -> Equations:
        """Follows the recorded maps through the graph, operation by operation."""
        known: dict[str, Classes] = {
            name: [Class(False, (name, channel)) for channel in range(int(shape[1]))]
            for name, shape in graph.inputs.items()
        }
        header = Header(
            {name: TensorSpec(each.dtype.name, each.shape) for name, each in tensors.items()}
        )
        shapes = infer_shapes(graph, header)
        for node in graph.nodes:
            inner = elements(shapes[node.inputs[0]][2:])
            known[node.output] = _classes(node, known, record, tensors, inner)
        return Equations(graph, record, tensors, known)

    def broken_by(self, name: str, changed: np.ndarray) -> bool:
        """Whether an equation of a layer that reads ``name`` is violated by its new content."""
        return any(
            self._broken(node, node.inputs.index(name), name, changed)
            for node in self.graph.consumers()[name]
        )

    def broken_map(self, layer: str, wrong: ChannelMap) -> bool:
        """Whether the rows of ``layer`` contradict a map that is put in the place of its own."""
        node, right = self.graph.node(layer), self.record.origins[layer].map
        weight = self.tensors[node.inputs[1]].astype(np.float64)
        rows = self._sums(node, weight).reshape(len(weight), -1)
        bias = self.tensors[node.inputs[2]] if node.input(2) else np.zeros(len(weight))
        rows = np.concatenate([rows, bias.astype(np.float64)[:, None]], axis=1)
        close = 1e-6 * np.abs(rows).max()  # rows of different units differ by more
        for source in np.unique(wrong.sources):
            is_now = rows[wrong.sources == source]
            was = rows[right.sources == source] if source >= 0 else is_now[:1]
            expected = np.zeros_like(is_now[:1]) if source == ZERO else was[:1]
            if not len(expected) or (np.abs(is_now - expected) > close).any():
                return True
        return False

    def _broken(self, node: Node, position: int, name: str, changed: np.ndarray) -> bool:
        old = self.tensors[name].astype(np.float64)
        delta = changed.astype(np.float64) - old
        beyond = (ROUNDING + DEFECTS * self.record.defects.get(node.name, 0.0)) * np.abs(old).max()
        if node.op in LAYERS:
            sums = self._sums(node, delta) if position == 1 else delta
            return _breaks(sums.reshape(len(sums), -1), self.classes[node.output], beyond)
        if node.op == "BatchNormalization":
            classes = self.classes[node.inputs[0]]
            null = np.array([each == NULL for each in classes])
            at_zero = self._at_zero(node, {}) - self._at_zero(node, {name: changed})
            return _breaks(np.where(null, at_zero, delta)[:, None], classes, beyond)
        return bool(np.abs(delta).max() > beyond)  # a slope that must be what it is

    def _at_zero(self, node: Node, changes: Arrays) -> np.ndarray:
        """What a BatchNorm makes of zeros."""
        tensors = {**self.tensors, **changes}
        gamma, beta, mean, var = (tensors[n].astype(np.float64) for n in node.inputs[1:5])
        made: np.ndarray = beta - gamma * mean / np.sqrt(var + node.get("epsilon", 1e-5))
        return made

    def _sums(self, node: Node, weight: np.ndarray) -> np.ndarray:
        """Sums over the columns of every class but zero: "rows classes *kernel"."""
        columns = self.classes[node.inputs[0]]
        numbers: dict[Class, int] = {}
        for each in columns:
            if each != NULL:
                numbers.setdefault(each, len(numbers))
        sums = np.zeros((weight.shape[0], len(numbers), *weight.shape[2:]))
        for column, each in enumerate(columns):
            if each != NULL:
                sums[:, numbers[each]] += weight[:, column]
        return sums


def _breaks(delta: np.ndarray, rows: Classes, beyond: float) -> bool:
    """Whether rows of copies or zero change, or rows of one fresh unit change differently."""
    fresh: dict[Class, np.ndarray] = {}
    for each, row in zip(rows, delta, strict=True):
        expected = fresh.setdefault(each, row) if each.fresh else np.zeros_like(row)
        if np.abs(row - expected).max(initial=0.0) > beyond:
            return True
    return False


def _classes(
    node: Node, known: Mapping[str, Classes], record: Provenance, arrays: Arrays, inner: int
) -> Classes:
    if node.op in LAYERS:
        sources = record.origins[node.name].map.sources.tolist()
        return [NULL if s == ZERO else Class(s < ZERO, (node.name, s)) for s in sources]
    inputs = [known[name] for name in node.inputs if name in known]
    if node.op == "Concat":
        return [each for part in inputs for each in part]
    if node.op == "Add":
        return [_sum(a, b) for a, b in zip(*inputs, strict=True)]
    if node.op == "BatchNormalization":
        gamma, beta = (arrays[name] for name in node.inputs[1:3])
        dead = (gamma == 0) & (beta == 0)
        return [NULL if null else each for null, each in zip(dead, inputs[0], strict=True)]
    if node.op == "Flatten":
        return [
            NULL if each == NULL else Class(each.fresh, (each.of, place))
            for each in inputs[0]
            for place in range(inner)
        ]
    if node.op in POINTWISE:
        return inputs[0]
    raise AssertionError(f"it is not known what becomes of channels in {node.op}")


def _sum(a: Class, b: Class) -> Class:
    """Zero adds nothing; otherwise sums of the same classes are the same."""
    if NULL in (a, b):
        return b if a == NULL else a
    return Class(a.fresh or b.fresh, (a.of, b.of))
