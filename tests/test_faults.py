"""Killed, interrupted: a student is whole or not there, and the next run is clean."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
import time

import pytest
from commands import TIMEOUT, ckgrow, listing, python, saved, tensors
from fault_table import tried
from striking import (
    LAUNCHER,
    READY,
    SOURCES,
    STUDENTS,
    calls,
    check_next_run,
    clear,
    furnished,
    launched,
    made,
    outcome,
    spread,
)

from ckgrow.header import TensorSpec
from ckgrow.publishing import PartFile
from ckgrow.tiles import digest_tiles

PLAIN = STUDENTS["safetensors"]
NAMES = {signal.SIGKILL: "kill -9", signal.SIGTERM: "SIGTERM", signal.SIGINT: "Ctrl-C"}
CODES = {signal.SIGTERM: (143, "terminated"), signal.SIGINT: (130, "interrupted")}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return furnished(tmp_path)


@pytest.fixture(params=STUDENTS)
def form(request, monkeypatch):
    """A format by name; what it does in other processes to small files it does in this one."""
    if STUDENTS[request.param].before:
        monkeypatch.setattr("ckgrow.adapters.formats._onnx_writer.EMBEDDED", 0)
    return request.param


def tries(amount, form, sample, full):
    """How often, which is less often for formats that others stand for; none is for --full."""
    count = amount(sample if form == "safetensors" else min(sample, 1), full)
    if not count:
        pytest.skip("needs --full")
    return count


def made_undisturbed(student, folder):
    """The files of the student that an undisturbed run makes, and how many calls that takes."""
    total = calls(launched(student, 0, 0))
    files = made(folder)
    clear(folder)
    return files, total


@pytest.mark.parametrize("force", [False, True], ids=["new", "force"])
def test_killed_at_every_step_of_writing(form, folder, amount, force):
    student, options = STUDENTS[form], ("--force",) if force else ()
    rare = force and form != "safetensors"  # killed among changes of names: test_sharded_faults.py
    most = tries(amount, form, 0 if rare else 2, 1000)
    new, total = made_undisturbed(student, folder)
    assert total > 10
    old = {}
    if force:
        saved(folder / "teacher.safetensors", tensors(seed=9))
        assert ckgrow(*student.command).exit_code == 0
        old = made(folder)
        saved(folder / "teacher.safetensors", tensors())
        total = calls(launched(student, 0, 0, *options))
        assert made(folder) == new
    sources = {name: listing(folder)[name] for name in SOURCES}
    where = f"{form}, over an old student" if force else form
    with tried("kill -9 at a write, a flush or a change of names", where) as row:
        for number in spread(min(most, total), total):
            clear(folder)
            for name, data in old.items():
                (folder / name).write_bytes(data)
            done = launched(student, number, signal.SIGKILL, *options)
            assert done.returncode == -signal.SIGKILL
            row[outcome(student, folder, old, new) + "; the next run is clean"] += 1
            assert {name: listing(folder)[name] for name in SOURCES} == sources
            check_next_run(student, folder, new, *options)


@pytest.mark.parametrize("blow", CODES, ids=NAMES.get)
def test_stopped_at_every_step_of_writing(form, folder, amount, blow):
    student, (code, said) = STUDENTS[form], CODES[blow]
    most = tries(amount, form, 2 if form in ("safetensors", "torch") else 0, 25)
    new, total = made_undisturbed(student, folder)
    with tried(f"{NAMES[blow]} at a write, a flush or a change of names", form) as row:
        for number in spread(min(most, total), total):
            clear(folder)
            done = launched(student, number, blow)
            assert done.returncode == code, done.stderr
            assert done.stderr == f"error: {said}; no unfinished file was left behind\n"
            came = outcome(student, folder, {}, new)
            assert came.endswith("nothing else")
            assert made(folder) in ({}, new)
            row[f"{came}; exit {code}"] += 1
            check_next_run(student, folder, new)


@pytest.mark.parametrize("blow", NAMES, ids=NAMES.get)
def test_struck_at_a_random_moment(form, folder, amount, blow):
    student = STUDENTS[form]
    most = amount(1, 60) if form == "safetensors" else tries(amount, form, 0, 20)
    draw = random.Random(int(blow))
    ends = {  # before and after the command, a signal ends the process as it always does
        signal.SIGKILL: {-9},
        signal.SIGTERM: {143, -15},
        signal.SIGINT: {130, -2},
    }[blow]
    command = [sys.executable, "-c", student.before + READY, *student.command]
    begun = time.monotonic()
    assert subprocess.run(command, capture_output=True, timeout=TIMEOUT, check=True)
    longest = time.monotonic() - begun
    new = made(folder)
    with tried(f"{NAMES[blow]} at a random moment", form) as row:
        for _ in range(most):
            clear(folder)
            with subprocess.Popen(
                command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
            ) as run:
                assert run.stdout.readline() == "ready\n"
                time.sleep(draw.uniform(0, longest))
                run.send_signal(blow)
                _, complaint = run.communicate(timeout=TIMEOUT)
            assert run.returncode in {0, *ends}, complaint
            assert "Traceback" not in complaint
            came = outcome(student, folder, {}, new)
            assert came.endswith("nothing else") or blow == signal.SIGKILL
            row[f"{came}; the next run is clean"] += 1
            check_next_run(student, folder, new)


@pytest.mark.parametrize(("blow", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_more_signals_do_not_stop_the_cleaning(folder, blow, code):
    launcher = LAUNCHER.replace("calls == number", "calls >= number")
    command = [sys.executable, "-c", launcher, "3", str(int(blow)), *PLAIN.command]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == code
    assert set(listing(folder)) == SOURCES


IMPORTING = """
import enum, os, signal, sys, traceback
from ckgrow.cli.main import run

def struck(name, real=enum._is_dunder):
    loaders = [each.f_locals.get("self") for each, _ in traceback.walk_stack(None)]
    if any("onnx_cpp2py" in str(getattr(each, "path", "")) for each in loaders):
        enum._is_dunder = real
        os.kill(os.getpid(), blow)
    return real(name)

enum._is_dunder = struck
blow = int(sys.argv.pop())
run()
"""


@pytest.mark.parametrize("blow", CODES, ids=NAMES.get)
def test_stopped_while_a_compiled_module_is_loaded(folder, blow):
    """C++ that calls Python while onnx is imported, and that knows no exceptions."""
    before = listing(folder)
    done = python(IMPORTING, *PLAIN.command, int(blow))
    assert (done.returncode, "terminate called" in done.stderr) == (CODES[blow][0], False)
    assert listing(folder) == before


def test_interrupted_while_threads_start(monkeypatch):
    """A pool does not know of such a thread; what it writes after the end would stay behind."""
    real, at_work = threading.Thread.start, []

    def starting(thread):
        real(thread)
        time.sleep(0.05)
        raise KeyboardInterrupt

    def work(name, start, stop):
        at_work.append(name)
        time.sleep(0.3)
        at_work.remove(name)
        return memoryview(bytes(4 * (stop - start)))

    monkeypatch.setattr(threading.Thread, "start", starting)
    specs = {name: TensorSpec("float32", (8,)) for name in "abc"}
    with pytest.raises(KeyboardInterrupt):
        digest_tiles(specs, 8, work, lambda name: None, 2, threading.Event())
    assert at_work == []


DROPPING = """
class Dropping:
    def __del__(self):  # an exception in here goes nowhere
        os.kill(os.getpid(), blow)

"""


@pytest.mark.parametrize(("blow", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_signal_inside_a_destructor_is_not_lost(folder, blow, code):
    launcher = LAUNCHER.replace("os.kill(os.getpid(), blow)", "Dropping()")
    launcher = launcher.replace("def counted", DROPPING + "def counted")
    command = [sys.executable, "-c", launcher, "3", str(int(blow)), *PLAIN.command]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == code
    assert "Traceback" not in done.stderr
    assert set(listing(folder)) == SOURCES


def test_a_run_killed_between_its_two_names_does_no_harm(folder):
    """Then part file and student are one file, and a new run takes another."""
    assert ckgrow(*PLAIN.command).exit_code == 0
    student, part = folder / "student.safetensors", folder / ".student.safetensors.ckgrow-part"
    before = student.read_bytes()
    os.link(student, part)
    with PartFile(student, force=True) as taken:
        taken.path.write_bytes(b"what a failing run leaves")
    assert student.read_bytes() == before
    assert not part.exists()
