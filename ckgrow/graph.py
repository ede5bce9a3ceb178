"""A network as data: nodes in ONNX's vocabulary, parameters named by state-dict key, no weights.

Conventions that every adapter keeps:

- ``Node.op`` and attribute names are exactly ONNX's, opset 20 of the default domain. What ONNX
  passes as a constant input (``Slice`` starts, ``Pad`` pads, ``Reshape`` shape, ...) is an entry
  of ``Graph.constants``.
- ``Node.name`` is the module path where there is a module (``layer1.0.conv1``), so that the
  parameters of a layer are ``name.weight``, ``name.bias``. A node without a module of its own
  (a functional activation, a sum) is named ``<path>/<what>`` (``layer1.0/add``).
- Every input of a node is the name of a value, of a parameter (a key of the header), of a
  constant, or ``""`` for an omitted optional input.
- The batch is the string ``"N"`` in shapes; everything else is a whole number.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np

from ckgrow.errors import GraphError

Attribute = int | float | str | tuple[int, ...] | tuple[float, ...]
Shape = tuple[int | str, ...]

BATCH = "N"


@dataclass(frozen=True)
class Constant:
    """A small tensor that belongs to the graph rather than to the checkpoint."""

    dtype: str
    shape: tuple[int, ...]
    values: tuple[float, ...] | tuple[int, ...]

    @staticmethod
    def of(values: Any, dtype: str = "int64") -> Constant:
        """A constant from anything numpy understands."""
        array = np.asarray(values, dtype=dtype)
        return Constant(dtype, array.shape, tuple(array.ravel().tolist()))

    def array(self) -> np.ndarray:
        """The constant as a numpy array of its dtype and shape."""
        return np.array(self.values, dtype=self.dtype).reshape(self.shape)


@dataclass(frozen=True)
class Node:
    """One operation. ``inputs`` mix values, parameters and constants, as in ONNX."""

    op: str
    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, Attribute] = field(default_factory=dict)

    @property
    def output(self) -> str:
        """The first (mostly the only) output."""
        return self.outputs[0]

    def get(self, attribute: str, default: Any) -> Any:
        """An attribute, or ONNX's default for it."""
        return self.attributes.get(attribute, default)

    def input(self, index: int) -> str:
        """The name at ``index``, "" when the optional input is omitted or absent."""
        return self.inputs[index] if index < len(self.inputs) else ""

    def with_attributes(self, **attributes: Attribute) -> Node:
        """The same node with some attributes replaced."""
        return replace(self, attributes={**self.attributes, **attributes})


@dataclass(frozen=True)
class Graph:
    """A network: ``nodes`` in topological order, from ``inputs`` to ``outputs``."""

    inputs: Mapping[str, Shape]
    outputs: tuple[str, ...]
    nodes: tuple[Node, ...]
    constants: Mapping[str, Constant] = field(default_factory=dict)

    def producers(self) -> Mapping[str, Node]:
        """The node that makes each value."""
        return self._producers

    def consumers(self) -> Mapping[str, list[Node]]:
        """The nodes that read each value, parameter or constant, in order."""
        return self._consumers

    def parameters(self) -> list[str]:
        """Names read by nodes that are neither values nor constants, in order of first use."""
        return list(self._parameters)

    @cached_property
    def _producers(self) -> Mapping[str, Node]:
        return {value: node for node in self.nodes for value in node.outputs if value}

    @cached_property
    def _consumers(self) -> Mapping[str, list[Node]]:
        readers: dict[str, list[Node]] = {}
        for node in self.nodes:
            for name in dict.fromkeys(node.inputs):
                if name:
                    readers.setdefault(name, []).append(node)
        return readers

    @cached_property
    def _parameters(self) -> tuple[str, ...]:
        made = set(self.inputs) | set(self.constants)
        for node in self.nodes:
            made.update(node.outputs)
        names = (name for node in self.nodes for name in node.inputs if name)
        return tuple(name for name in dict.fromkeys(names) if name not in made)

    def ancestors(self, *values: str) -> set[str]:
        """``values``, and every value, graph inputs included, that they are computed from."""
        known = {*self.inputs, *self.producers()}
        found = set(values)
        for node in reversed(self.nodes):
            if not found.isdisjoint(node.outputs):
                found.update(known.intersection(node.inputs))
        return found

    def descendants(self, *values: str) -> set[str]:
        """``values``, and every value that is computed from one of them."""
        found = set(values)
        for node in self.nodes:
            if not found.isdisjoint(node.inputs):
                found.update(filter(None, node.outputs))
        return found

    def node(self, name: str) -> Node:
        """The node called ``name``; GraphError when there is none."""
        if name not in self._by_name:
            raise GraphError(f"the graph has no node {name!r}")
        return self._by_name[name]

    @cached_property
    def _by_name(self) -> Mapping[str, Node]:
        return {node.name: node for node in self.nodes}

    def check(self) -> Graph:
        """Itself, when names are unique and nodes in topological order; GraphError otherwise."""
        known = set(self.inputs) | set(self.constants) | set(self.parameters())
        names: set[str] = set()
        for node in self.nodes:
            if node.name in names:
                raise GraphError(f"two nodes are called {node.name!r}")
            names.add(node.name)
            for value in node.outputs:
                if value in known:
                    raise GraphError(f"{node.name!r} makes {value!r}, which exists already")
            known.update(value for value in node.outputs if value)
        made = {value for node in self.nodes for value in node.outputs} | set(self.inputs)
        seen = set(self.inputs)
        for node in self.nodes:
            for name in node.inputs:
                if name in made and name not in seen:
                    raise GraphError(f"{node.name!r} reads {name!r} before it is made")
            seen.update(node.outputs)
        for name in self.outputs:
            if name not in made:
                raise GraphError(f"the output {name!r} is made by no node")
        return self
