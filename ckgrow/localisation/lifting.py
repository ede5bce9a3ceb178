"""A student's layers, each run on what it should be given.

Labels (``ckgrow.proof``) say which channels of a student's value are the teacher's, which are zero,
and which are equal to one another. Every node of the student is computed in float64 on inputs of
which all that is true; what it makes is compared with what it should, and then put right, for the
nodes that read it. So a fault shows where it is, wherever else there are others.

The teacher is computed along, as far as is needed. Values are dropped after their last use.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import torch

from ckgrow.graph import Graph, Node
from ckgrow.header import NUMBER_DTYPES
from ckgrow.labels import UNKNOWN, ZERO, Labels
from ckgrow.ops import rule

Read = Callable[[str], np.ndarray]


@dataclass(frozen=True)
class Traced:
    """A network with the labels of its values; ``read`` returns whole tensors."""

    graph: Graph
    read: Read
    labels: Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Departure:
    """What a node makes, beside what it should: per channel, relative to its scale.

    ``dim`` is the dimension of channels, None where the value is taken as a whole. ``compared``
    are the channels of which it is known what they should be.
    """

    node: Node
    dim: int | None
    deviation: np.ndarray
    compared: np.ndarray


class Running:
    """A graph that is computed node by node, in float64."""

    def __init__(self, network: Traced, inputs: Mapping[str, np.ndarray]) -> None:
        self._network = network
        self.values = {
            name: torch.from_numpy(np.asarray(inputs[name], np.float64))
            for name in network.graph.inputs
        }
        self._waiting = iter(network.graph.nodes)

    def compute(self, node: Node) -> None:
        """Its outputs, from the values as they are now."""
        made = rule(node.op).evaluate(node, [self._tensor(name) for name in node.inputs if name])
        self.values.update(zip(node.outputs, made, strict=True))

    def reach(self, value: str) -> torch.Tensor:
        """A value; all nodes up to the one that makes it are computed."""
        while value not in self.values:
            self.compute(next(self._waiting))
        return self.values[value]

    def size(self, node: Node) -> float:
        """How large what it makes can be expected to be, be it that all of it cancels."""
        tensors = [self._tensor(name) for name in node.inputs if name]
        sizes = [float(each.abs().max()) for each in tensors if each.numel()]
        return math.prod(sizes[:2]) if rule(node.op).makes_channels else max(sizes, default=0.0)

    def drop(self, names: set[str]) -> None:
        """Values that nobody needs any more."""
        for name in names:
            self.values.pop(name, None)

    def _tensor(self, name: str) -> torch.Tensor:
        if name in self.values:
            return self.values[name]
        constants = self._network.graph.constants
        array = constants[name].array() if name in constants else self._network.read(name)
        if array.dtype.name in NUMBER_DTYPES:
            return torch.from_numpy(array.astype(np.float64, order="C"))
        return torch.from_numpy(array.copy())


class Lifting:
    """The student on inputs that agree with the teacher's."""

    def __init__(self, teacher: Traced, student: Traced, table: Labels) -> None:
        self._teacher = teacher
        self._student = student
        self._table = table
        self._places: dict[int, tuple[str, int]] = {}
        for value, labels in teacher.labels.items():
            if np.count_nonzero(np.array(labels.shape) > 1) <= 1:
                for index, label in enumerate(labels.ravel().tolist()):
                    self._places.setdefault(label, (value, index))

    def run(
        self, inputs: Mapping[str, np.ndarray], of_student: Mapping[str, np.ndarray]
    ) -> Iterator[Departure]:
        """What every node of the student departs by, in order."""
        with torch.inference_mode():
            before = Running(self._teacher, inputs)
            after = Running(self._student, of_student)
            last = _last_uses(self._student.graph)
            for position, node in enumerate(self._student.graph.nodes):
                size = after.size(node)
                after.compute(node)
                known = all(
                    not (self._student.labels[name] == UNKNOWN).any()
                    for name in node.inputs
                    if name in after.values
                )
                for value in filter(None, node.outputs):
                    departure = self._compare(node, value, size, before, after)
                    if departure is not None and known:
                        yield departure
                after.drop({name for name in last if last[name] == position})

    def _compare(
        self, node: Node, value: str, size: float, before: Running, after: Running
    ) -> Departure | None:
        """What a value should be, put in its place; None where nothing is known of it."""
        labels, found = self._student.labels[value], after.values[value]
        spans = [dim for dim, size in enumerate(labels.shape) if size > 1]
        if len(spans) > 1:
            return None
        dim = spans[0] if spans else None
        channels = labels.ravel()
        parts = found.unbind(dim) if dim is not None else (found,)
        if len(parts) != len(channels):
            return None
        wanted: list[torch.Tensor | None] = []
        first: dict[int, int] = {}
        given = self._given(node, after)
        finite = torch.nan_to_num(found, 0.0, 0.0, 0.0)  # what is no number sets no scale
        scale = max(size, float(finite.abs().max()) if found.numel() else 0.0)
        for index, label in enumerate(channels.tolist()):
            expected = self._expected(label, parts[index], before)
            if expected is None and label in given and given[label].shape == parts[index].shape:
                expected = given[label]
            if expected is None and label != UNKNOWN:
                expected = parts[first.setdefault(label, index)]
            wanted.append(expected)
        for each in wanted:
            if each is not None and each.numel():
                scale = max(scale, float(each.abs().max()))
        deviation = np.zeros(len(parts))
        for index, (part, each) in enumerate(zip(parts, wanted, strict=True)):
            if each is not None and part.numel():
                off = float((part - each).abs().max()) / (scale or 1.0)
                like = first.get(int(channels[index]), index)  # either of two may be the wrong one
                deviation[[index, like]] = np.maximum(deviation[[index, like]], off)
        right = [part if each is None else each for part, each in zip(parts, wanted, strict=True)]
        whole = torch.stack(right, dim) if dim is not None else right[0]
        after.values[value] = torch.nan_to_num(whole, 0.0, 0.0, 0.0)  # and accuses nobody else
        compared = np.array([each is not None for each in wanted])
        return Departure(node, dim, np.nan_to_num(deviation, nan=np.inf), compared)

    def _given(self, node: Node, after: Running) -> dict[int, torch.Tensor]:
        """What the node reads, by labels: what keeps its label is passed on as it is."""
        given: dict[int, torch.Tensor] = {}
        for name in node.inputs:
            labels = self._student.labels.get(name)
            if labels is None or name not in after.values:
                continue
            spans = [dim for dim, size in enumerate(labels.shape) if size > 1]
            if len(spans) <= 1:
                whole = after.values[name]
                parts = whole.unbind(spans[0]) if spans else (whole,)
                given.update(zip(labels.ravel().tolist(), parts, strict=False))
        given.pop(UNKNOWN, None)
        return given

    def _expected(self, label: int, part: torch.Tensor, before: Running) -> torch.Tensor | None:
        """What the teacher has for a label, or zero; None where the teacher has nothing."""
        if label == ZERO:
            return torch.zeros_like(part)
        factor, base = self._table.parted(label)
        if base not in self._places:
            return None
        value, index = self._places[base]
        labels = self._teacher.labels[value]
        whole = before.reach(value)
        spans = [dim for dim, size in enumerate(labels.shape) if size > 1]
        made = whole.select(spans[0], index) if spans else whole
        if made.numel() != part.numel():
            return None
        return factor * made.reshape(part.shape)


def _last_uses(graph: Graph) -> dict[str, int]:
    """The position of the last node that reads each value."""
    return {
        name: position
        for position, node in enumerate(graph.nodes)
        for name in node.inputs
        if name and name not in graph.outputs
    }
