"""The benchmark of batches, with few jobs: that it measures, and that nothing grows with them."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest


@pytest.fixture(scope="module")
def benchmark():
    place = Path(__file__).parents[1] / "benchmarks" / "batch.py"
    found = importlib.util.spec_from_file_location("benchmark_of_batches", place)
    module = importlib.util.module_from_spec(found)
    sys.modules[found.name] = module  # dataclasses look their module up
    found.loader.exec_module(module)
    return module


def test_a_job_in_a_worker_costs_little_more_than_in_a_loop(benchmark, tmp_path, amount):
    """The 50 ms hold with a machine to itself; others may have it, so ten times that is checked."""
    measured = benchmark.small_jobs(tmp_path, amount(60, 2000))
    assert measured.pooled - measured.alone < 0.5
    assert len(measured.parts) == 10
    assert measured.memory[0] > 20
    assert measured.memory[-1] < 1.2 * measured.memory[0]


def test_two_workers_are_compared_with_one(benchmark, tmp_path, monkeypatch, amount):
    monkeypatch.setattr(benchmark, "LARGE", amount(300, 2000))
    monkeypatch.setattr(benchmark, "ROUNDS", 1)
    one, two, alone = benchmark.speed_up(tmp_path, 4)
    assert min(one, two, alone) > 0
    table = benchmark.report(60, benchmark.Small(0.02, 0.01, (0.02,), (80.0,)), one, two, alone)
    assert "| overhead per job | 10.0 ms |" in table
    assert f"| speed-up | {one / two:.2f} |" in table
