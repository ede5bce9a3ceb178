"""Puts new nodes between a value and everything that reads it."""

from __future__ import annotations

from dataclasses import replace

from ckgrow.graph import Graph, Node


def spliced(graph: Graph, value: str, nodes: tuple[Node, ...]) -> Graph:
    """``nodes``, which read ``value``, stand between it and everything that read it."""
    last = nodes[-1]
    if value in graph.outputs:  # the interface keeps its name: the old value gets another
        inner = f"{value}/inner"
        while any(inner in node.outputs for node in graph.nodes):
            inner += "_"
        before = tuple(_making(node, value, inner) for node in graph.nodes)
        made = tuple(_reading(node, value, inner) for node in nodes)
        made = (*made[:-1], _making(made[-1], last.output, value))
        return replace(graph, nodes=_behind(before, inner, made)).check()
    after = tuple(_reading(node, value, last.output) for node in graph.nodes)
    return replace(graph, nodes=_behind(after, value, nodes)).check()


def _behind(nodes: tuple[Node, ...], value: str, new: tuple[Node, ...]) -> tuple[Node, ...]:
    position = next(index for index, node in enumerate(nodes) if value in node.outputs) + 1
    return (*nodes[:position], *new, *nodes[position:])


def _reading(node: Node, value: str, other: str) -> Node:
    return replace(node, inputs=tuple(other if name == value else name for name in node.inputs))


def _making(node: Node, value: str, other: str) -> Node:
    return replace(node, outputs=tuple(other if name == value else name for name in node.outputs))
