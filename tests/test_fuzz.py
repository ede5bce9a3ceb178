"""Damaged files of every format: an error of ours or what the bytes say, in little time.

Each seed is a file; ``python -m fuzzing.worker npz 4711 1 /tmp/fuzz`` (in this folder) reads one.
"""

from __future__ import annotations

import pytest
from fault_table import tried
from fuzzing import worker
from fuzzing.driving import fuzzed
from fuzzing.samples import KINDS, samples

from ckgrow.errors import CheckpointError
from ckgrow.registry import formats

SAID = {
    "refused": "refused with an error of one line",
    "right": "read, as another library reads it",
    "plain": "read, and its bytes stand in the file, which another library refuses",
    "unconfirmed": "read, and another library refuses it",
}


@pytest.mark.parametrize("kind", KINDS)
def test_damaged_files(kind, amount, tmp_path):
    with tried("damaged file is read", kind) as row:
        tally = fuzzed(kind, amount(150, 10_000), tmp_path / "files")
        row.update({SAID.get(each, each): count for each, count in tally.outcomes.items()})
        assert not tally.faults, "\n\n".join(tally.faults[:5])
    assert min(tally.outcomes["refused"], tally.outcomes["right"]) > tally.outcomes.total() / 20
    assert tally.outcomes["unconfirmed"] < tally.outcomes.total() / 50


def test_every_format_is_damaged():
    assert set(formats()) <= set(KINDS)


def raising(error):
    def function(*arguments, **settings):
        raise error

    return function


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (CheckpointError("the file is damaged"), "refused"),
        (CheckpointError("the file is damaged\n"), "WRONG"),
        (CheckpointError("\x1b[31m"), "WRONG"),
        (KeyError("dtype"), "WRONG"),
        (MemoryError(), "WRONG"),
    ],
)
def test_errors_are_told_apart(tmp_path, monkeypatch, error, outcome):
    monkeypatch.setattr(worker, "open_source", raising(error))
    sample = samples("safetensors")[0]
    assert worker.tried("safetensors", sample, tmp_path / "files", thorough=False)[0] == outcome


def test_other_numbers_are_seen(tmp_path, monkeypatch):
    real = worker.said

    def saying(*arguments):
        name, (dtype, shape, data) = next(iter(real(*arguments).items()))
        return {**real(*arguments), name: (dtype, shape, data[::-1])}

    monkeypatch.setattr(worker, "said", saying)
    sample = samples("safetensors")[0]
    outcome, fault = worker.tried("safetensors", sample, tmp_path / "files", thorough=True)
    assert outcome == "WRONG"
    assert "here" in fault


@pytest.mark.full
@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ("while True: pass", "Timeout"),
        ("bytearray(1 << 30)", "MemoryError"),
        ("os.abort()", "the process ended with -6"),
    ],
)
def test_processes_that_hang_or_die_or_take_too_much(tmp_path, fault, said):
    """A module that Python imports by itself has the process do that once its limits are set."""
    code = f"""
import os, resource

def faulty(event, arguments, inside=[]):
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)[0]
    reads = event == "open" and str(arguments[0]).endswith(".safetensors")
    if reads and limit == {worker.MEMORY} and not inside:
        inside.append(True)
        {fault}

import sys
sys.addaudithook(faulty)
"""
    (tmp_path / "sitecustomize.py").write_text(code)
    tally = fuzzed("safetensors", 1, tmp_path / "files", tmp_path)
    assert len(tally.faults) == 1
    assert said in tally.faults[0]
