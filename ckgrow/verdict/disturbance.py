r"""What recorded defects can do: the student with weights that are off by as much as was recorded.

A rounded step records of a layer how far its stored weights are from keeping the function,
relative to what passes through it. What that does to the outputs depends on all that comes behind,
so it is measured: the weights w of just these layers are changed to

    w (1 + d s)             s = +1 or -1 at random for every weight of a layer that sums up
    w (1 + d (1 + s / 2))   for a gain per channel

d being the recorded defect, and the outputs compared with those of the undisturbed student. Signs
of rounding errors are random, and so are these. A gain, though, may be off by the same in every
channel and every layer (BatchNorms that are all the identity in the same stored numbers are), and
one common factor moves an output much further than factors that differ: gains change in common,
and by half as much at random, should something behind them undo a common factor.

Where a layer is one factor of a product, what was rounded is the other factor, the layer before it:
its weights are disturbed as well.

The change is proportional to d as long as it is small, but rounding would drown it where d is near
the precision of the arithmetic. So all d are enlarged to about the square root of that precision,
where neither rounding nor curvature shows, and the change is divided by as much. In a network of
few weights random signs may happen to cancel; there several draws are made.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from ckgrow.graph import Graph, Node
from ckgrow.header import FLOAT_DTYPES, Header, TensorSpec
from ckgrow.ops import rule
from ckgrow.random import Stream
from ckgrow.verdict.running import Side

MANY_WEIGHTS = 2**18
"""So many signs do not cancel by chance."""
MOST_DRAWS = 8


@dataclass(frozen=True)
class Disturbance:
    """What of a student's weights is disturbed: the relative change by tensor.

    ``common`` are those whose entries change in common. ``unplaced`` is the sum of the defects of
    which it is not known what weights have them.
    """

    side: Side
    sizes: Mapping[str, float]
    common: frozenset[str]
    unplaced: float

    @staticmethod
    def of(defects: Mapping[str, float], side: Side) -> Disturbance:
        """Of the weights of the layers that ``defects`` names."""
        nodes = {node.name: node for node in side.graph.nodes}
        sizes: dict[str, float] = {}
        common: set[str] = set()
        unplaced = 0.0
        for name, defect in defects.items():
            weights = _weights(nodes[name], side) if name in nodes else []
            unplaced += 0.0 if weights else defect
            if weights and not rule(nodes[name].op).makes_channels:
                common.update(weights)
            sizes |= {weight: max(defect, sizes.get(weight, 0.0)) for weight in weights}
        placed = {name: size for name, size in sizes.items() if size > 0.0}
        return Disturbance(side, placed, frozenset(common), unplaced)

    def enlarged(self, precision: float) -> float:
        """How many times the recorded size is disturbed by, in arithmetic of that precision."""
        return max(1.0, math.sqrt(precision) / max(self.sizes.values()))

    def draws(self, times: float) -> Iterator[Side]:
        """Sides that are disturbed by ``times`` the recorded sizes.

        Changed tensors are held in float64, so that no rounding of theirs joins in.
        """
        header = self.side.header
        changed = {name: TensorSpec("float64", header.shape(name)) for name in self.sizes}
        weights = sum(spec.size for spec in changed.values())
        for draw in range(min(MOST_DRAWS, math.ceil(MANY_WEIGHTS / weights))):
            yield replace(
                self.side,
                header=Header({**header, **changed}),
                read=partial(self._read, times=times, draw=draw),
            )

    def _read(self, name: str, times: float, draw: int) -> np.ndarray:
        stored = self.side.read(name)
        if name not in self.sizes:
            return stored
        signs = np.where(Stream("disturbance", draw, name).uniform(0, stored.size) < 0.5, -1.0, 1.0)
        changes = 1.0 + signs / 2.0 if name in self.common else signs
        factors = 1.0 + times * self.sizes[name] * changes
        made: np.ndarray = stored.astype(np.float64) * factors.reshape(stored.shape)
        return made


def _weights(node: Node, side: Side) -> list[str]:
    """The tensors in which a defect of ``node`` lies."""
    names = [node.input(1)]
    if rule(node.op).makes_channels:
        layers = [node, *_before(node, side.graph)]
        names = [name for layer in layers for name in layer.inputs[1:3]]
    header = side.header
    return [name for name in names if name in header and header[name].dtype in FLOAT_DTYPES]


def _before(node: Node, graph: Graph) -> list[Node]:
    """The layer whose output, or what was made of it, is the layer's input."""
    producers = graph.producers()
    before = producers.get(node.inputs[0])
    while before is not None and not rule(before.op).makes_channels:
        before = producers.get(before.inputs[0])
    return [] if before is None else [before]
