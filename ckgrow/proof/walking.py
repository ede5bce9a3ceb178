"""Leads labels through a graph: what is the same for teacher and student."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass

import numpy as np

from ckgrow.graph import Graph, Node, Shape
from ckgrow.header import Header
from ckgrow.labels import ZERO, Labels
from ckgrow.ops import Site, rule
from ckgrow.ops.tracing import Linear, Tracing, signature
from ckgrow.proof.reading import Read
from ckgrow.shapes import Shapes, infer_shapes


@dataclass(frozen=True)
class Network:
    """A graph and its tensors, which are read by rows."""

    graph: Graph
    header: Header
    read: Read

    def vector(self, name: str) -> np.ndarray:
        """A whole small tensor in float64."""
        shape = self.header.shape(name)
        return self.read(name, 0, shape[0] if shape else 1).astype(np.float64).reshape(shape)


@dataclass(frozen=True)
class Followed:
    """A node that treats every channel by itself: labels before and behind it, "channels".

    ``entries`` are its parameters per channel, as ``tensors`` are called, in float64.
    """

    node: Node
    before: np.ndarray
    behind: np.ndarray
    tensors: tuple[str, ...]
    entries: tuple[np.ndarray, ...]


class Walk(Tracing):
    """A graph while labels are led through it; ``values`` has those of all values so far."""

    def __init__(self, network: Network, table: Labels) -> None:
        self.network = network
        self.table = table
        self.values: dict[str, np.ndarray] = {}
        self.shapes: Shapes = {}
        self.layers: dict[str, Linear] = {}
        self.followed: dict[str, Followed] = {}
        self._node: Node

    def walk(self) -> None:
        """Asks the rule of every node, in order."""
        graph, header = self.network.graph, self.network.header
        shapes = self.shapes = infer_shapes(graph, header)
        for name, shape in graph.inputs.items():
            self.values[name] = self.input(name, shape)
        for node in graph.nodes:
            self._node = node
            made = rule(node.op).trace(Site.of(node, shapes, graph.constants), self)
            self.values.update(zip(node.outputs, made, strict=True))
            self.passed(node)

    def labels(self, index: int) -> np.ndarray:
        name = self._node.inputs[index]
        if name in self.values:
            return self.values[name]
        if name in self.network.graph.constants:
            array = self.network.graph.constants[name].array()
            made = [self.table.of("constant", each) for each in array.ravel().tolist()]
            return np.array(made, dtype=np.int64).reshape(array.shape)
        rank = len(self.network.header.shape(name))
        return np.full((1,) * rank, self.parameter(name), dtype=np.int64)

    def is_parameter(self, index: int) -> bool:
        name = self._node.input(index)
        return bool(name) and name not in self.values and name not in self.network.graph.constants

    def follow(self, site: Site, index: int, dim: int, tensors: tuple[int, ...]) -> np.ndarray:
        node, labels = site.node, self.labels(index)
        if not all(self.is_parameter(each) for each in tensors):
            return self.opaque(site)[0]
        size = site.shape(index)[dim]
        names = tuple(node.inputs[each] for each in tensors)
        stored = [self.network.vector(name).ravel() for name in names]
        if not isinstance(size, int) or any(each.size not in (1, size) for each in stored):
            return self.opaque(site)[0]
        labels = self.table.at(labels, dim, size)
        if labels.size != size:
            return self.opaque(site)[0]
        entries = tuple(np.broadcast_to(each, size) for each in stored)
        behind = self.channels(site, labels.ravel(), names, entries)
        self.followed[node.name] = Followed(node, labels.ravel(), behind, names, entries)
        return behind.reshape(labels.shape)

    def added(self, site: Site, first: np.ndarray, second: np.ndarray) -> np.ndarray:
        table = self.table

        def add(a: int, b: int) -> int:
            if ZERO in (a, b):
                return a or b
            (left, one), (right, other) = table.parted(a), table.parted(b)
            if left == right:
                return table.times(left, table.of("Add", parts=(min(one, other), max(one, other))))
            return table.of("Add", parts=(min(a, b), max(a, b)))

        return table.combined(add, first, second)

    def opaque(self, site: Site) -> tuple[np.ndarray, ...]:
        arrays = [self.labels(index) for index, name in enumerate(site.node.inputs) if name]
        held = tuple((array.shape, tuple(array.ravel().tolist())) for array in arrays)
        shapes = rule(site.node.op).shapes(site)
        return tuple(
            np.full((1,) * len(shape), self.unlooked(site, (output, signature(site), held)))
            for output, shape in enumerate(shapes)
        )

    def affine(self, node: Node, entries: tuple[np.ndarray, ...]) -> tuple[np.ndarray, np.ndarray]:
        """(scale, shift) of every channel; the scale is NaN where the op is no such function.

        The shift is NaN where there is nothing to compute with.
        """
        found = rule(node.op).affine(node, entries)
        if found is None:
            return np.full(len(entries[0]), np.nan), np.zeros(len(entries[0]))
        return found

    def passed(self, node: Node) -> None:
        """Called behind every node."""

    @abstractmethod
    def input(self, name: str, shape: Shape) -> np.ndarray:
        """Labels of a graph input."""

    @abstractmethod
    def parameter(self, name: str) -> int:
        """The label of a tensor as a whole."""

    @abstractmethod
    def unlooked(self, site: Site, key: tuple[object, ...]) -> int:
        """The label of what an op makes that is only known to be a function of its inputs."""

    @abstractmethod
    def channels(
        self,
        site: Site,
        before: np.ndarray,
        names: tuple[str, ...],
        entries: tuple[np.ndarray, ...],
    ) -> np.ndarray:
        """Labels behind a node with parameters per channel."""


def input_dim(shape: Shape) -> int:
    """The dimension of a graph input that holds channels: behind the batch, or the last one."""
    return 1 if len(shape) in (2, 4, 5) else len(shape) - 1


def simplified(label: int, scale: float, shift: float) -> int | None:
    """What x -> scale x + shift makes of a label, by what is plain from the numbers; else None."""
    if scale == 0.0 and shift == 0.0:
        return ZERO
    if label == ZERO and shift == 0.0:
        return ZERO
    return label if scale == 1.0 and shift == 0.0 else None


class TeacherWalk(Walk):
    """The teacher: every row of a layer has a label of its own."""

    def input(self, name: str, shape: Shape) -> np.ndarray:
        dim = input_dim(shape)
        size = shape[dim]
        made = np.full((1,) * len(shape), self.table.of("input", name), dtype=np.int64)
        return self.table.at(made, dim, size) if isinstance(size, int) else made

    def parameter(self, name: str) -> int:
        return self.table.of("parameter", name)

    def unlooked(self, site: Site, key: tuple[object, ...]) -> int:
        return self.table.of(*key)

    def layer(self, linear: Linear) -> np.ndarray:
        name = linear.node.name
        self.layers[name] = linear
        return np.array([self.table.of("row", name, row) for row in range(linear.width)])

    def channels(
        self,
        site: Site,
        before: np.ndarray,
        names: tuple[str, ...],
        entries: tuple[np.ndarray, ...],
    ) -> np.ndarray:
        made = []
        for channel, (label, scale, shift) in enumerate(
            zip(before.tolist(), *self.affine(site.node, entries), strict=True)
        ):
            plain = simplified(label, scale, shift)
            own = self.table.of("channel", site.node.name, channel, parts=(label,))
            made.append(own if plain is None else plain)
        return np.array(made, dtype=np.int64)
