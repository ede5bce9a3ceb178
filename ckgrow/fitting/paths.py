"""What a student's keys and graph say about module paths."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from ckgrow.graph import Node
from ckgrow.loading import Loaded
from ckgrow.naming import is_grown

if TYPE_CHECKING:
    from torch import nn

SUM = "/add"
"""Behind the path of a grown block or path: the node of its sum."""


def joined(path: str, name: str) -> str:
    """The path of a child; the root's path is ""."""
    return f"{path}.{name}" if path else name


def submodule(module: nn.Module, path: str) -> nn.Module | None:
    """The module at ``path``, None where there is none."""
    if "/" in path:  # a node inside a module, which may have the same start
        return None
    try:
        return module.get_submodule(path)
    except AttributeError:
        return None


@dataclass(frozen=True)
class Paths:
    """The modules of a student: those with tensors by their keys, others by their nodes."""

    student: Loaded

    @cached_property
    def nodes(self) -> Mapping[str, Node]:
        """Nodes by name, which is a module's path where there is a module."""
        return {node.name: node for node in self.student.network.graph.nodes}

    def suffixes(self, path: str) -> list[str]:
        """Keys inside the module at ``path``, without the path."""
        start = f"{path}." if path else ""
        return [name[len(start) :] for name in self._by_parent(path)]

    def numbers(self, container: str) -> set[int]:
        """Numbers of the children of a container that have tensors or a node of their own."""
        inside = (*self.suffixes(container), *self._node_suffixes(container))
        firsts = (name.partition(".")[0].partition("/")[0] for name in inside)
        return {int(first) for first in firsts if first.isdecimal()}

    def is_new(self, path: str) -> bool:
        """Whether the student's own metadata call every tensor of a module new."""
        made = self._new
        keys = [joined(path, suffix) for suffix in self.suffixes(path)]
        return bool(keys) and all(key in made for key in keys)

    def grown(self) -> list[Node]:
        """Layers that stand beside the one they follow, in the order of the graph."""
        keys = self.student.header
        return [node for node in self.nodes.values() if is_grown(node.name) and _reads(node, keys)]

    @cached_property
    def _new(self) -> frozenset[str]:
        provenance = self.student.provenance
        return frozenset(provenance.new_tensors if provenance is not None else ())

    @cached_property
    def _children(self) -> Mapping[str, list[str]]:
        """Keys by every path that they are inside of."""
        inside: dict[str, list[str]] = {}
        for key in self.student.header:
            for path in _ancestors(key):
                inside.setdefault(path, []).append(key)
        return inside

    def _by_parent(self, path: str) -> list[str]:
        return self._children.get(path, [])

    def _node_suffixes(self, container: str) -> Iterator[str]:
        start = f"{container}." if container else ""
        return (name[len(start) :] for name in self.nodes if name.startswith(start))


def _ancestors(key: str) -> Iterator[str]:
    path = key
    while path:
        path = path.rpartition(".")[0]
        yield path


def _reads(node: Node, keys: Mapping[str, object]) -> bool:
    return any(name in keys for name in node.inputs)
