"""Whether two networks fit into memory: what they need against what a process that runs them takes,
and what there is against what Linux says.
"""

from __future__ import annotations

from itertools import pairwise

import pytest
from commands import python

from ckgrow.building import Builder
from ckgrow.graph import BATCH
from ckgrow.header import Header, TensorSpec
from ckgrow.verdict.budget import RUNTIMES, Need, need, too_big
from ckgrow.verdict.memory import available_memory
from ckgrow.verdict.running import Side

MIB = 2**20


def chain(*widths, dtype="float32"):
    """A stack of fully connected layers without activations."""
    specs = {}
    for number, (before, after) in enumerate(pairwise(widths)):
        specs[f"{number}.weight"] = TensorSpec(dtype, (after, before))
        specs[f"{number}.bias"] = TensorSpec(dtype, (after,))
    header = Header(specs)
    builder, value = Builder(header, {"x": (BATCH, widths[0])}), "x"
    for number in range(len(widths) - 1):
        value = builder.linear(str(number), value)
    return builder.graph(value), header


def side(label, *widths):
    return Side(label, *chain(*widths), {}.__getitem__)


@pytest.mark.parametrize(
    ("dtype", "held", "cast"),
    [("float32", 4, 0), ("float64", 4, 0), ("float16", 2, 4), ("bfloat16", 2, 4)],
)
def test_weights_as_the_runtimes_hold_them(dtype, held, cast):
    """All of them in ONNX Runtime, or the largest layer in float64, whichever is more."""
    layer = 1000 * 1000 + 1000
    expected = 6 * layer * held + 1000 * 1000 * cast
    assert need(*chain(*[1000] * 7, dtype=dtype), 1).weights == expected
    assert need(*chain(1000, 1000, dtype=dtype), 1).weights == layer * 8


def test_activations_that_are_held_at_once():
    """A layer needs what it reads and what it makes."""
    graph, header = chain(50, 60, 40)
    assert need(graph, header, 1).activations == 8 * (50 + 60)
    assert need(graph, header, 10).activations == 80 * (50 + 60)


def test_a_shortcut_is_held_until_it_is_added():
    header = Header({})
    builder = Builder(header, {"x": (BATCH, 10)})
    inner = builder.node("Relu", "b", [builder.node("Relu", "a", ["x"])])
    graph = builder.graph(builder.node("Add", "c", ["x", inner]))
    assert need(graph, header, 1).activations == 8 * 30


def test_what_fits_and_what_does_not():
    small, large = side("a.safetensors", 10, 10), side("b.safetensors", 5000, 5000, 10)
    needed = need(large.graph, large.header, 16).total
    for pair in ((small, large), (large, small)):
        assert too_big(*pair, 16, needed) == ""
        assert too_big(*pair, 16, needed - 1) == (
            "running b.safetensors takes about 492.0 MiB of memory (190.8 MiB for weights, 1.2 MiB "
            "for activations of 16 samples at a time), and 492.0 MiB are to be had"
        )
    assert "of 1 sample at a time), and 0.0 MiB are" in too_big(small, large, 1, 0)
    assert "and 2.0 GiB are" in too_big(small, side("c", 200_000, 10_000), 1, 2 * 2**30)


def test_the_machine_that_runs_this_test():
    assert too_big(side("a", 10, 10), side("b", 10, 10), 1) == ""
    assert 10 * MIB < available_memory() < 2**50


# Runs a network of random weights in a runtime, and prints the most memory that it took.
RUN = """
import sys
from pathlib import Path
import numpy as np
from test_budget import {network}
from ckgrow.header import numpy_dtype
from ckgrow.registry import runtime
graph, header = {network}()
def read(name):
    spec = header[name]
    return np.ones(spec.shape, numpy_dtype(spec.dtype))
session = runtime({name!r}).Session(graph, header, read)
shape = next(iter(graph.inputs.values()))
session.run({{"x": np.ones((4, *shape[1:]), "f4")}})
(peak,) = (line for line in Path("/proc/self/status").read_text().splitlines() if "VmHWM" in line)
print(int(peak.split()[1]) * 1024)
"""


def heavy(dtype="float32"):
    """300 MB of weights in float32, and next to no activations."""
    return chain(*[4300] * 5, dtype=dtype)


def heavy_half():
    return heavy("bfloat16")


def wide():
    """Next to no weights; each sample has 16 channels of 384 x 384, and 9 times that in patches."""
    header = Header(
        {
            "0.weight": TensorSpec("float32", (16, 1, 3, 3)),
            "1.weight": TensorSpec("float32", (16, 16, 3, 3)),
        }
    )
    builder = Builder(header, {"x": (BATCH, 1, 384, 384)})
    value = builder.conv("0", "x", padding=1)
    return builder.graph(builder.node("Relu", "2", [builder.conv("1", value, padding=1)])), header


@pytest.mark.parametrize("network", [heavy, heavy_half, wide])
def test_the_estimate_against_what_a_process_takes(network):
    """The larger of two processes, one for each runtime."""
    estimate = need(*network(), 4).total
    peaks = []
    for name in ("onnxruntime", "torch_float64"):
        done = python(RUN.format(network=network.__name__, name=name), cwd="tests")
        assert done.returncode == 0, done.stderr
        peaks.append(int(done.stdout))
    assert 0.7 * estimate < max(peaks) < 1.2 * estimate, (estimate, peaks)


# --- what the system says -------------------------------------------------------------------

UNLIMITED = "9223372036854771712\n"
TOLD = {
    "machine": (
        {"proc/meminfo": "MemTotal: 9000 kB\nMemFree: 10 kB\nMemAvailable:     700 kB\n"},
        700 * 1024,
    ),
    "no Linux": ({}, None),
    "group of version 2": (
        {
            "proc/meminfo": "MemAvailable: 700 kB\n",
            "proc/self/cgroup": "0::/\n",
            "sys/fs/cgroup/memory.max": "500000\n",
            "sys/fs/cgroup/memory.current": "450000\n",
            "sys/fs/cgroup/memory.stat": "anon 9\ninactive_file 30000\nactive_file 7\n",
        },
        80_000,
    ),
    "group of version 2 without a limit": (
        {
            "proc/meminfo": "MemAvailable: 700 kB\n",
            "proc/self/cgroup": "0::/user/session\n",
            "sys/fs/cgroup/user/session/memory.max": "max\n",
            "sys/fs/cgroup/user/session/memory.current": "450000\n",
        },
        700 * 1024,
    ),
    "group above of version 2": (
        {
            "proc/self/cgroup": "0::/user/session/inner\n",
            "sys/fs/cgroup/user/session/inner/memory.max": "900000\n",
            "sys/fs/cgroup/user/session/inner/memory.current": "100000\n",
            "sys/fs/cgroup/user/memory.max": "600000\n",
            "sys/fs/cgroup/user/memory.current": "500000\n",
        },
        100_000,
    ),
    "group of version 1": (
        {
            "proc/meminfo": "MemAvailable: 700 kB\n",
            "proc/self/cgroup": "4:cpu,cpuacct:/x\n3:memory:/job/7\n0::/\n",
            "sys/fs/cgroup/memory/memory.limit_in_bytes": UNLIMITED,
            "sys/fs/cgroup/memory/memory.usage_in_bytes": "12345\n",
            "sys/fs/cgroup/memory/job/7/memory.limit_in_bytes": "400000\n",
            "sys/fs/cgroup/memory/job/7/memory.usage_in_bytes": "390000\n",
            "sys/fs/cgroup/memory/job/7/memory.stat": "inactive_file 1\ntotal_inactive_file 50\n",
        },
        10_050,
    ),
    "a group that is used up": (
        {
            "proc/self/cgroup": "0::/\n",
            "sys/fs/cgroup/memory.max": "500000\n",
            "sys/fs/cgroup/memory.current": "500001\n",
        },
        0,
    ),
    "ulimit -v": (
        {
            "proc/meminfo": "MemAvailable: 700 kB\n",
            "proc/self/limits": "Limit   Soft Limit   Hard Limit  Units\n"
            "Max address space         300000               unlimited            bytes\n",
            "proc/self/status": "Name: python\nVmPeak: 250 kB\nVmSize:     200 kB\nVmRSS: 3 kB\n",
        },
        300_000 - 200 * 1024,
    ),
    "no ulimit -v": (
        {
            "proc/meminfo": "MemAvailable: 700 kB\n",
            "proc/self/limits": "Max address space     unlimited     unlimited     bytes\n",
            "proc/self/status": "VmSize:     200 kB\n",
        },
        700 * 1024,
    ),
}


@pytest.mark.parametrize("what", TOLD)
def test_what_the_system_says(tmp_path, what):
    files, expected = TOLD[what]
    for name, text in files.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    assert available_memory(tmp_path) == expected


def test_need_adds_up():
    assert Need(3, 4).total == 7 + RUNTIMES
