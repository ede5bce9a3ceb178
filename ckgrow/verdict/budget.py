"""Whether two networks can be run in the memory that there is.

One network runs at a time. ONNX Runtime holds all weights as they are stored (float64 as float32;
float16 and bfloat16 are cast one by one, when they are read) and the activations that are still to
be read. The float64 arbiter holds one layer's weights and those activations in float64, and for
a convolution the patches of its input, unfolded, for all samples at once. What is estimated is the
larger of the two, on top of what the process holds already.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from ckgrow.graph import Graph, Node
from ckgrow.header import Header, TensorSpec
from ckgrow.ops.rule import elements
from ckgrow.shapes import Shapes, infer_shapes
from ckgrow.verdict.memory import available_memory
from ckgrow.verdict.running import Side

SINGLE, DOUBLE = 4, 8
"""Bytes of a number in either runtime."""
RUNTIMES = 300 * 2**20
"""What the libraries of both runtimes take when they are imported, whatever they run."""


@dataclass(frozen=True)
class Need:
    """Bytes that running one network takes."""

    weights: int
    activations: int

    @property
    def total(self) -> int:
        """Both together, and the runtimes themselves."""
        return self.weights + self.activations + RUNTIMES


def too_big(teacher: Side, student: Side, rows: int, available: int | None = None) -> str:
    """Why the two cannot be run, ``rows`` samples at a time; "" when they can.

    ``available`` are bytes; the memory that is there now where they are not given.
    """
    free = available_memory() if available is None else available
    side = max((teacher, student), key=lambda each: need(each.graph, each.header, rows).total)
    needed = need(side.graph, side.header, rows)
    if free is None or needed.total <= free:
        return ""
    return (
        f"running {side.label} takes about {_size(needed.total)} of memory "
        f"({_size(needed.weights)} for weights, {_size(needed.activations)} for activations of "
        f"{rows} sample{'s' * (rows != 1)} at a time), and {_size(free)} are to be had"
    )


def need(graph: Graph, header: Header, rows: int) -> Need:
    """What running ``graph`` takes, in the runtime that takes more."""
    stored = [header[name] for name in graph.parameters()]
    single = sum(map(_held, stored)) + max(map(_cast, stored), default=0)
    double = max(
        (
            sum(DOUBLE * header[name].size for name in node.inputs if name in header)
            for node in graph.nodes
        ),
        default=0,
    )
    shapes = infer_shapes(graph, header)
    patches = {node.name: _patches(node, shapes) for node in graph.nodes}
    in_single = Need(single, SINGLE * rows * _most_alive(graph, header, shapes, {}))
    in_double = Need(double, DOUBLE * rows * _most_alive(graph, header, shapes, patches))
    return max(in_single, in_double, key=lambda each: each.total)


def _held(spec: TensorSpec) -> int:
    return spec.size * min(spec.itemsize, SINGLE)


def _cast(spec: TensorSpec) -> int:
    return spec.size * SINGLE if spec.itemsize < SINGLE else 0


def _patches(node: Node, shapes: Shapes) -> int:
    """Numbers per sample in the patches [C / groups * k * k, H * W] that a convolution multiplies.

    0 for every other op.
    """
    if node.op != "Conv":
        return 0
    kernel, made = shapes[node.inputs[1]], shapes[node.outputs[0]]
    return elements(kernel[1:]) * elements(made[2:])


def _most_alive(graph: Graph, header: Header, shapes: Shapes, working: Mapping[str, int]) -> int:
    """The most numbers per sample that are held at once: made, and not read for the last time.

    ``working`` are those that a node needs while it computes.
    """
    last = {name: index for index, node in enumerate(graph.nodes) for name in node.inputs}
    last |= dict.fromkeys(graph.outputs, len(graph.nodes))
    alive = sum(elements(shape) for shape in graph.inputs.values())
    most = alive
    for index, node in enumerate(graph.nodes):
        alive += sum(elements(shapes[name]) for name in node.outputs)
        most = max(most, alive + working.get(node.name, 0))
        read = {*node.inputs, *node.outputs} - header.keys() - graph.constants.keys() - {""}
        alive -= sum(elements(shapes[name]) for name in read if last.get(name, index) == index)
    return most


def _size(count: int) -> str:
    """Bytes in the unit that leaves few digits before the point."""
    power = min(max(int(math.log2(max(count, 1)) // 10), 2), 4)
    return f"{count / 2 ** (10 * power):.1f} {('MiB', 'GiB', 'TiB')[power - 2]}"
