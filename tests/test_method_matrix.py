"""Every method on every network preserves, or is refused for the reason that mathematics gives.

The long form runs every cell; otherwise every network and every method is met at least once.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from method_matrix import Cell, cells, measure, teacher
from proof_oracles import proof_of
from refusals import REASONS, expected

ROOT = Path(__file__).parents[1]
EVERY = tuple(cells())
BASELINE = ("approximate", "no")
HEAVY = ("googlenet", "inception_v3")
DOUBLE = 1e-12
"""Of the output's scale: what exact methods may differ by in float64."""
PLAIN = 1e-3
"""What those that do not preserve differ by at least."""


def sampled(number: int, cell: Cell) -> bool:
    """Every seventh cell, which is coprime to the number of methods, fewer of large networks."""
    return number % (35 if cell.network in HEAVY else 7) == 0


def parameters():
    for number, cell in enumerate(EVERY):
        marks = () if sampled(number, cell) else (pytest.mark.full,)
        yield pytest.param(cell, id=cell.name, marks=marks)


@pytest.mark.parametrize("cell", tuple(parameters()))
def test_a_cell_preserves_or_is_refused_for_its_reason(cell):
    reason, outcome = expected(cell), measure(cell)
    if reason is not None:
        assert outcome.refused, f"not refused, though {reason.why}"
        assert re.search(reason.says, outcome.refused), outcome.refused
        return
    assert not outcome.refused, outcome.refused
    assert outcome.preserved, cell.name
    proof = proof_of(outcome.student, teacher(cell.network)[1])
    if outcome.promised in BASELINE:
        assert outcome.double > PLAIN, "it says that it does not preserve, but does"
        assert proof.result == "refuted"
        return
    assert proof.result == "proven", proof.reason
    assert (proof.defect == 0) == (outcome.defect == 0)
    bound = DOUBLE + 64 * outcome.defect
    assert outcome.double <= bound
    assert outcome.torch is None or outcome.torch <= bound


def test_the_sample_meets_every_method_and_network():
    chosen = [cell for number, cell in enumerate(EVERY) if sampled(number, cell)]
    assert {cell.network for cell in chosen} == {cell.network for cell in EVERY}
    assert {(c.verb, c.method) for c in chosen} == {(c.verb, c.method) for c in EVERY}


def test_every_method_has_its_row_in_the_table():
    page = (ROOT / "docs" / "methods.md").read_text(encoding="utf-8")
    for verb, method in {(cell.verb, cell.method) for cell in EVERY}:
        assert f"| {verb} `{method}` |" in page


@pytest.mark.full
def test_the_table_is_what_is_measured():
    script = [sys.executable, str(ROOT / "benchmarks" / "methods.py"), "--check"]
    assert subprocess.run(script, check=False).returncode == 0


def test_refusals_are_counted():
    counted = Counter(reason.why if (reason := expected(cell)) else "" for cell in EVERY)
    assert all(counted[reason.why] for reason in REASONS), "a reason that no cell needs"
    refused = sum(count for why, count in counted.items() if why)
    assert (refused, len(EVERY)) == (100, 643)
