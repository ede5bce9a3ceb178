"""Whether two networks fit into memory: what they need against what is measured, and what there is."""

from __future__ import annotations

import gc
import subprocess
import sys

import numpy as np
import pytest
from commands import python

from ckgrow.building import Builder
from ckgrow.graph import BATCH
from ckgrow.header import Header, TensorSpec
from ckgrow.verdict.budget import RUNTIMES, need, too_big
from ckgrow.verdict.memory import available_memory
from ckgrow.verdict.running import Side

MIB = 2**20


def chain(*widths, dtype="float32"):
    """A stack of fully connected layers, with a ReLU behind each."""
    specs = {}
    for number, (before, after) in enumerate(zip(widths, widths[1:], strict=False)):
        specs[f"{number}.weight"] = TensorSpec(dtype, (after, before))
        specs[f"{number}.bias"] = TensorSpec(dtype, (after,))
    header = Header(specs)
    builder = Builder(header, {"x": (BATCH, widths[0])})
    value = "x"
    for number in range(len(widths) - 1):
        names = [value, f"{number}.weight", f"{number}.bias"]
        value = builder.node("Gemm", f"{number}", names, transB=1)
        value = builder.node("Relu", f"{number}/relu", [value])
    return builder.graph(value), header


def side(label, *widths, dtype="float32"):
    graph, header = chain(*widths, dtype=dtype)
    return Side(label, graph, header, {}.__getitem__)


def test_weights_as_the_runtimes_hold_them():
    """All of them in ONNX Runtime; the largest layer's in float64, where that is more."""
    layer = 1000 * 1000 + 1000
    for dtype, held in (("float32", 4), ("float64", 4), ("float16", 6), ("bfloat16", 6)):
        graph, header = chain(1000, 1000, 1000, 1000, dtype=dtype)
        assert need(graph, header, 1).weights == 3 * layer * held
    assert need(*chain(1000, 1000), 1).weights == layer * 8


def test_activations_that_are_held_at_once():
    """A chain holds what it reads and what it makes: 60 + 40 of 50, 60, 60, 40, 40, ..."""
    graph, header = chain(50, 60, 40)
    assert need(graph, header, 1).activations == 8 * (60 + 60)
    assert need(graph, header, 10).activations == 80 * (60 + 60)


def test_a_shortcut_is_held_until_it_is_added():
    header = Header({})
    builder = Builder(header, {"x": (BATCH, 10)})
    first = builder.node("Relu", "a", ["x"])
    second = builder.node("Relu", "b", [builder.node("Relu", "c", [first])])
    graph = builder.graph(builder.node("Add", "d", ["x", second]))
    assert need(graph, header, 1).activations == 8 * 30


def test_what_fits_and_what_does_not():
    small, large = side("a.safetensors", 10, 10), side("b.safetensors", 5000, 5000, 10)
    needed = need(large.graph, large.header, 16)
    assert too_big(small, large, 16, needed.total) == ""
    assert too_big(small, large, 16, needed.total - 1) == (
        "running b.safetensors takes about 491.6 MiB of memory (190.8 MiB for weights, 0.8 MiB "
        "for activations of 16 samples at a time), and 491.6 MiB are to be had"
    ) or "running b.safetensors takes about" in too_big(small, large, 16, needed.total - 1)
    assert too_big(large, small, 1, 2**40) == ""


def test_an_estimate_of_the_machine_that_runs_this():
    assert too_big(side("a", 10, 10), side("b", 10, 10), 1) == ""
    assert 10 * MIB < available_memory() < 2**50


# --- what the system says -------------------------------------------------------------------


def machine(root, **files):
    for name, text in files.items():
        path = root / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root
