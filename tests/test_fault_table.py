"""The table of faults: rows of all processes, tests that are there, and failures that show."""

from __future__ import annotations

import ast
from pathlib import Path

import fault_table
import pytest

HERE = Path(__file__).parent


@pytest.mark.parametrize("test", fault_table.TESTS)
def test_tests_that_rows_speak_of_are_there(test):
    file, _, name = test.partition("::")
    tree = ast.parse((HERE / file).read_text(encoding="utf-8"))
    assert name in {each.name for each in tree.body if isinstance(each, ast.FunctionDef)}


def test_rows_become_a_table(tmp_path, monkeypatch):
    monkeypatch.setattr(fault_table, "RESULTS", tmp_path)
    monkeypatch.setenv(fault_table.ROWS, "")  # so that it is as it was afterwards
    fault_table.begin(tmp_path / "rows")
    for count in (2, 3):
        with fault_table.tried("kill -9", "npz") as row:
            row["no student"] += count
            row["whole"] += 1
    with pytest.raises(ZeroDivisionError), fault_table.tried("SIGTERM", "npz"):
        raise ZeroDivisionError
    fault_table.note("tests/test_remote_faults.py::test_slow_server[x]", "passed")
    fault_table.note("tests/test_remote_faults.py::test_silent_server", "failed")
    fault_table.note("tests/test_remote_faults.py::test_silent_server", "skipped")
    fault_table.note("tests/test_remote_faults.py::test_another", "passed")
    fault_table.finish()
    (made,) = tmp_path.iterdir()
    lines = made.read_text(encoding="utf-8").splitlines()
    assert lines[6:] == [
        "| S3 answers nothing | s3:// | 1 | FAILED |",
        "| S3 is slow | s3:// | 1 | written and verified |",
        "| SIGTERM | npz | 1 | FAILED |",
        "| kill -9 | npz | 7 | no student (5)<br>whole (2) |",
    ]


def test_without_a_full_run_rows_are_dropped(tmp_path, monkeypatch):
    monkeypatch.delenv(fault_table.ROWS, raising=False)
    with fault_table.tried("kill -9", "npz") as row:
        row["no student"] += 1
    assert list(tmp_path.iterdir()) == []
