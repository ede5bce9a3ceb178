"""Puts new nodes between a value and everything that reads it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType

from ckgrow.drafts.draft import Draft, Origin
from ckgrow.graph import Graph, Node
from ckgrow.ops import Site, rule
from ckgrow.recipes import Recipe
from ckgrow.shapes import Shapes


def inserted(
    draft: Draft,
    value: str,
    nodes: tuple[Node, ...],
    recipes: Mapping[str, Recipe],
    origins: Mapping[str, Origin],
    defects: Mapping[str, float] = MappingProxyType({}),
) -> Draft:
    """The draft with ``nodes`` between a value and its readers, and what is new in them."""
    return draft.with_changes(
        graph=spliced(draft.graph, value, nodes),
        recipes={**draft.recipes, **recipes},
        origins={**draft.origins, **origins},
        defects={**draft.defects, **defects},
        known=_carried(draft, value, nodes, recipes),
    )


def _carried(
    draft: Draft, value: str, nodes: tuple[Node, ...], recipes: Mapping[str, Recipe]
) -> Shapes | None:
    """The shapes after an insertion, None where they are to be inferred anew.

    What is inserted has the shape of what it reads, so that no other shape changes. Inferring all
    of them behind each of many insertions would take longer than everything else.
    """
    if value in draft.graph.outputs:  # names are exchanged there
        return None
    shapes = {**draft.shapes, **{key: recipe.spec.shape for key, recipe in recipes.items()}}
    for node in nodes:
        made = rule(node.op).shapes(Site.of(node, shapes, draft.graph.constants))
        shapes.update(zip(node.outputs, made, strict=True))
    return shapes if shapes[nodes[-1].output] == shapes[value] else None


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
    if value not in node.inputs:
        return node
    return replace(node, inputs=tuple(other if name == value else name for name in node.inputs))


def _making(node: Node, value: str, other: str) -> Node:
    if value not in node.outputs:
        return node
    return replace(node, outputs=tuple(other if name == value else name for name in node.outputs))
