"""A teacher that does not keep still, and checkpoints of which something is missing."""

from __future__ import annotations

import os
from contextlib import nullcontext

import numpy as np
import pytest
from commands import ckgrow, listing, process
from fault_table import tried
from striking import SOURCES, STUDENTS, furnished

from ckgrow.cli import making
from ckgrow.watching import Unwatched

PLAIN = STUDENTS["safetensors"]

# A teacher of each format, and its file that changes, which is not always the one to open.
TEACHERS = {
    "safetensors": ("a.safetensors", "a.safetensors"),
    "sharded": ("a.safetensors.index.json", "a-00002-of-00004.safetensors"),
    "sharded, its index": ("a.safetensors.index.json", "a.safetensors.index.json"),
    "torch": ("a.pt", "a.pt"),
    "npz": ("a.npz", "a.npz"),
    "onnx": ("a.onnx", "a.onnx"),
    "onnx with data": ("a.onnx", "a.onnx.data"),
}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return furnished(tmp_path)


def shortened(path):
    os.truncate(path, path.stat().st_size - 30)


def replaced(path):
    """By a copy of itself: what was read may have been either's."""
    copy = path.with_name("copy")
    copy.write_bytes(path.read_bytes())
    copy.replace(path)


def rewritten(path):
    """The same size, other bytes."""
    with path.open("r+b") as file:
        file.seek(-4, os.SEEK_END)
        file.write(b"abcd")


def removed(path):
    path.unlink()


CHANGES = [shortened, replaced, rewritten, removed]
STAGES = ("reading the teacher", "growing", "verifying")


@pytest.fixture(params=TEACHERS)
def form(request, tmp_path, monkeypatch):
    if request.param == "onnx with data":
        monkeypatch.setattr("ckgrow.adapters.formats._onnx_writer.EMBEDDED", 0)
    return request.param


class Struck(Unwatched):
    """Changes a file when a stage of applying begins."""

    def __init__(self, stage, change, path):
        self.stage, self.change, self.path = stage, change, path

    def begin(self, what, total):
        if what == self.stage:
            self.stage = None
            self.change(self.path)


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
def test_teacher_changes_while_it_is_read(folder, monkeypatch, form, change):
    main, changing = TEACHERS[form]
    parts = ("--shard-size", "50") if main.endswith(".json") else ()
    output = main.replace(".index.json", "")
    with tried(f"the teacher is {change.__name__} while it is read", form) as row:
        for stage in STAGES:
            done = ckgrow("convert", "teacher.safetensors", output, *parts, "--force")
            assert done.exit_code == 0, done.output
            before = set(listing(folder))

            struck = Struck(stage, change, folder / changing)
            with monkeypatch.context() as inside:
                inside.setattr(making, "watching", lambda struck=struck: nullcontext(struck))
                done = ckgrow("apply", main, "spec.yaml", "-o", "student.safetensors")
            assert struck.stage is None
            assert done.exit_code in (3, 4), done.output
            assert "run again when nothing writes to it" in done.stderr
            assert before - {changing} <= set(listing(folder)) <= before
            row[f"exit {done.exit_code}; nothing is written"] += 1


def test_a_shard_is_missing(folder):
    done = ckgrow("convert", "teacher.safetensors", "a.safetensors", "--shard-size", "50")
    assert done.exit_code == 0, done.output
    (folder / "a-00002-of-00004.safetensors").unlink()
    before = listing(folder)
    with tried("a shard is missing", "sharded") as row:
        done = ckgrow("apply", "a.safetensors.index.json", "spec.yaml", "-o", "student.safetensors")
        assert done.exit_code == 4, done.output
        assert "a-00002-of-00004.safetensors" in done.stderr
        assert listing(folder) == before
        row["exit 4; the message names it"] += 1


@pytest.mark.parametrize("number", [3, 7, 11])
@pytest.mark.parametrize("change", CHANGES)
def test_teacher_changes_between_two_reads(folder, monkeypatch, change, number):
    real, count = os.preadv, 0

    def reading(*arguments):
        nonlocal count
        count += 1
        if count == number:
            change(folder / "teacher.safetensors")
        return real(*arguments)

    monkeypatch.setattr(os, "preadv", reading)
    done = ckgrow(*PLAIN.command)
    assert count >= number
    assert done.exit_code in (3, 4), done.output
    assert "teacher.safetensors" in done.stderr
    assert "run again when nothing writes to it" in done.stderr
    assert set(listing(folder)) <= SOURCES


def test_teacher_replaced_between_apply_and_verify(folder):
    assert ckgrow(*PLAIN.command).exit_code == 0
    rewritten(folder / "teacher.safetensors")
    assert ckgrow("verify", "teacher.safetensors", "student.safetensors").exit_code == 1


@pytest.mark.parametrize("form", STUDENTS)
def test_student_cut_short(folder, monkeypatch, amount, form):
    """A student that another program, or the network, cut short at any byte is refused."""
    student = STUDENTS[form]
    if student.before:
        monkeypatch.setattr("ckgrow.adapters.formats._onnx_writer.EMBEDDED", 0)
    assert ckgrow(*student.command).exit_code == 0
    path = folder / (f"{student.main}.data" if student.before else student.main)
    whole = path.read_bytes()
    with tried("a student that was cut short is verified", form) as row:
        last = len(whole.rstrip(b"\n")) - 1  # JSON is whole without the end of its line
        for length in np.linspace(0, last, amount(7, 100), dtype=int):
            path.write_bytes(whole[:length])
            done = ckgrow("verify", "teacher.safetensors", student.main)
            assert done.exit_code == 3, done.output
            assert f"{path.name} " in done.stderr
            row["exit 3"] += 1
    assert process("inspect", student.main).returncode == 3
