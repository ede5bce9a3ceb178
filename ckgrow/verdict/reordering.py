"""The same network with every sum taken in reverse order: what rounding looks like.

The difference between a network and its reordered self, both in one precision, measures rounding:
the functions are equal, only the order of the additions differs, and that is also what growing
changes (a duplicated channel splits one product into two).

A linear layer y = W x becomes R (R W R') (R' x) with reversals R and R'. Reversing rows and columns
alike keeps the groups of a grouped convolution together.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from ckgrow.graph import Constant, Graph, Node
from ckgrow.ops import rule

PREFIX = "\0reversed"
"""Before the names of what is added; no name of a checkpoint or an adapter starts like that."""

_TO_THE_START = -(2**62)


def reordered(graph: Graph) -> Graph:
    """The graph with the sums of all linear layers reversed; parameters keep their names."""
    rewriting = _Rewriting({value for node in graph.nodes for value in node.outputs})
    rewriting.values.update(graph.inputs)
    for node in graph.nodes:
        if rule(node.op).makes_channels and rewriting.has_weight(node, graph):
            rewriting.reverse(node)
        else:
            rewriting.nodes.append(node)
    constants = {**graph.constants, **rewriting.constants}
    return replace(graph, nodes=tuple(rewriting.nodes), constants=constants)


@dataclass
class _Rewriting:
    values: set[str]
    nodes: list[Node] = field(default_factory=list)
    constants: dict[str, Constant] = field(default_factory=dict)

    def has_weight(self, node: Node, graph: Graph) -> bool:
        """Whether the node multiplies a value by a parameter."""
        value, weight = node.inputs[:2]
        return value in self.values and weight not in self.values and weight not in graph.constants

    def reverse(self, node: Node) -> None:
        dim = rule(node.op).channel_dim
        x, weight, *bias = node.inputs
        made = f"{PREFIX} {node.output}"
        inputs = [self._flip(x, (dim,), node), self._flip(weight, (0, 1), node)]
        inputs += [self._flip(name, (-1,), node) for name in bias]
        self.nodes.append(replace(node, inputs=tuple(inputs), outputs=(made,)))
        self._slice(made, (dim,), f"{node.name} after", node.output)

    def _flip(self, name: str, dims: tuple[int, ...], node: Node) -> str:
        if not name:
            return name
        made = f"{PREFIX} {name} for {node.name}"
        if made not in self.values:
            self.values.add(made)
            self._slice(name, dims, f"{name} for {node.name}", made)
        return made

    def _slice(self, name: str, dims: tuple[int, ...], purpose: str, made: str) -> None:
        constants = {
            f"{PREFIX} starts {len(dims)}": Constant.of([-1] * len(dims)),
            f"{PREFIX} ends {len(dims)}": Constant.of([_TO_THE_START] * len(dims)),
            f"{PREFIX} axes {dims}": Constant.of(dims),
            f"{PREFIX} steps {len(dims)}": Constant.of([-1] * len(dims)),
        }
        self.constants.update(constants)
        self.nodes.append(Node("Slice", f"{PREFIX} {purpose}", (name, *constants), (made,)))
