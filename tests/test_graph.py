"""Walks along a graph: what a value is computed from, and what is computed from it."""

from __future__ import annotations

import pytest

from ckgrow.graph import Constant, Graph, Node

GRAPH = Graph(
    {"x": ("N", 4), "unread": ("N", 4)},
    ("d",),
    (
        Node("Gemm", "a", ("x", "a.w", ""), ("a",)),
        Node("Split", "s", ("a", "sizes"), ("left", "", "right")),
        Node("Relu", "b", ("left",), ("b",)),
        Node("Relu", "c", ("right",), ("c",)),
        Node("Clip", "d", ("c", "", "high"), ("d",)),
        Node("Add", "e", ("b", "x"), ("e",)),
    ),
    {"sizes": Constant.of([1, 2, 1]), "high": Constant.of(6.0, "float32")},
)


@pytest.mark.parametrize(
    ("values", "above"),
    [
        ("x", "x"),
        ("a", "a x"),
        ("left", "left a x"),
        ("d", "d c right a x"),
        ("b d", "b left d c right a x"),
    ],
)
def test_ancestors_are_values_only(values, above):
    """Neither parameters nor constants, nor "", by which inputs and outputs are left out."""
    assert GRAPH.ancestors(*values.split()) == set(above.split())


@pytest.mark.parametrize(
    ("values", "below"),
    [("x", "x a left right b c d e"), ("left", "left b e"), ("c b", "c d b e"), ("e", "e")],
)
def test_descendants(values, below):
    assert GRAPH.descendants(*values.split()) == set(below.split())


def test_nothing_leads_from_nothing():
    assert GRAPH.ancestors() == GRAPH.descendants() == set()
