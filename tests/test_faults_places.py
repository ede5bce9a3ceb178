"""Outputs that are no free name for a file, odd names, and two runs onto one output."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from commands import TIMEOUT, ckgrow, listing, process
from fault_table import tried
from striking import SOURCES, STUDENTS, check_next_run, clear, furnished, made

from ckgrow.publishing import PartFile

NAMES = (
    "with space.",
    "'quoted' \"twice\".",
    "ünïcødé 学生.",
    "-leading-dash.",
    "line\nbreak.",
    "\x1b[31mred.",
    "[a]*?.",
    "{stem}.",
    "~.",
)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return furnished(tmp_path)


@pytest.fixture(params=STUDENTS)
def form(request, monkeypatch):
    if STUDENTS[request.param].before:
        monkeypatch.setattr("ckgrow.adapters.formats._onnx_writer.EMBEDDED", 0)
    return request.param


def refused(folder, arguments, said):
    """The command ends with exit code 4, and the folder is as it was."""
    before = listing(folder)
    done = ckgrow(*arguments)
    assert done.exit_code == 4, done.output
    assert said in done.stderr
    assert listing(folder) == before


def test_output_that_is_the_teacher(folder, form):
    student = STUDENTS[form]
    assert ckgrow(*student.command).exit_code == 0
    with tried("the output is the teacher", form) as row:
        for options in ((), ("--force",)):
            refused(folder, (*student.grown(student.main, "spec.yaml"), *options), "teacher itself")
            row["exit 4; the teacher is untouched"] += 1


def test_output_that_is_the_teacher_by_another_name(folder):
    os.symlink("teacher.safetensors", "link.safetensors")
    os.link("teacher.safetensors", "twin.safetensors")
    with tried("the output is a link to the teacher", "safetensors") as row:
        for name in ("link.safetensors", "twin.safetensors", "./teacher.safetensors"):
            command = ("apply", "teacher.safetensors", "spec.yaml", "-o", name, "--force")
            refused(folder, command, "teacher itself")
            row["exit 4; the teacher is untouched"] += 1


def test_output_that_is_a_folder(folder, form):
    """A folder asks for a checkpoint in parts, whatever it is called; nothing replaces it."""
    student = STUDENTS[form]
    (folder / student.main).mkdir()
    command = ("apply", "teacher.safetensors", "spec.yaml", "-o", student.main, "--force")
    with tried("the output is a folder", form) as row:
        done = ckgrow(*command)
        assert done.exit_code == 0, done.output
        assert "model.safetensors.index.json" in listing(folder / student.main)
        assert set(listing(folder)) == {*SOURCES, student.main}
        row["the student stands in it, in parts"] += 1


@pytest.mark.parametrize("kind", ["pipe", "device", "socket"])
def test_output_that_is_no_file(folder, form, kind):
    main = folder / STUDENTS[form].main
    if kind == "pipe":
        os.mkfifo(main)
    elif kind == "device":
        main.symlink_to("/dev/zero")
    else:
        import socket

        with socket.socket(socket.AF_UNIX) as made_by:
            made_by.bind(main.name)
    with tried(f"the output is a {kind}", form) as row:
        for options in ((), ("--force",)):
            refused(folder, (*STUDENTS[form].command, *options), "is no regular file")
            row["exit 4; nothing is written"] += 1


@pytest.mark.parametrize("kind", ["pipe", "device"])
def test_teacher_that_is_no_file(folder, kind):
    path = folder / "strange.safetensors"
    os.mkfifo(path) if kind == "pipe" else path.symlink_to("/dev/zero")
    with tried(f"the teacher is a {kind}", "safetensors") as row:
        command = STUDENTS["safetensors"].grown(path.name, "spec.yaml")
        refused(folder, command, "a checkpoint is a regular file")
        row["exit 4 at once"] += 1


def test_output_that_is_a_link(folder, form):
    """It is followed: the student takes the place of what it leads to, and the link stays."""
    student = STUDENTS[form]
    (folder / "elsewhere").mkdir()
    (folder / student.main).symlink_to(folder / "elsewhere" / student.main)
    with tried("the output is a link that leads nowhere yet", form) as row:
        done = ckgrow(*student.command)
        assert done.exit_code == 0, done.output
        assert (folder / student.main).is_symlink()
        assert (folder / "elsewhere" / student.main).is_file()
        done = ckgrow("verify", "teacher.safetensors", f"elsewhere/{student.main}")
        assert done.exit_code == 0, done.output
        row["the student is where it leads"] += 1


def test_odd_names(folder, form):
    student = STUDENTS[form]
    with tried("names with spaces, quotes, escapes, a leading dash", form) as row:
        for name in NAMES:
            named = name + student.main.partition(".")[2]
            output = f"--output={named.replace('.index.json', '')}"
            done = ckgrow(*student.command[:3], output, *student.options)
            assert done.exit_code == 0, done.output
            assert (folder / named).is_file()
            assert "\x1b" not in done.output
            done = ckgrow("inspect", "--", named)
            assert done.exit_code == 0, done.output
            assert "\x1b" not in done.output
            row["written, and read again"] += 1


def test_odd_names_of_a_process(folder):
    for name in NAMES[::3]:
        done = process("apply", "--", "teacher.safetensors", "spec.yaml", "-o", name)
        assert done.returncode == 2  # all behind the two dashes are names
        done = process("plan", "--", name + "safetensors", "spec.yaml")
        assert done.returncode == 4
        assert "no such file" in done.stderr
        assert done.stderr.count("\n") == 1
        assert "\x1b" not in done.stderr


def test_a_second_run_onto_one_output(folder, form):
    student = STUDENTS[form]
    with tried("another run is writing the output", form) as row:
        with PartFile(folder / student.main, force=False):
            before = listing(folder)
            for options in ((), ("--force",)):
                done = ckgrow(*student.command, *options)
                assert done.exit_code == 4
                assert "is being written by another run" in done.stderr
                assert listing(folder) == before
                row["exit 4; the first goes on"] += 1
        check_next_run(student, folder, made_by_one(student, folder))


def made_by_one(student, folder):
    assert ckgrow(*student.command).exit_code == 0
    files = made(folder)
    clear(folder)
    return files


def test_two_runs_at_once(folder, amount, form):
    student = STUDENTS[form]
    count = amount(1 if form == "safetensors" else 0, 10)
    if not count:
        pytest.skip("needs --full")
    new = made_by_one(student, folder)
    code = student.before + "from ckgrow.cli.main import run\nrun()"
    with tried("two runs onto one output at once", form) as row:
        for _ in range(count):
            clear(folder)
            runs = [
                subprocess.Popen(
                    [sys.executable, "-c", code, *student.command],
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.PIPE,
                )
                for _ in range(2)
            ]
            said = [run.communicate(timeout=TIMEOUT)[1].decode() for run in runs]
            codes = sorted(run.returncode for run in runs)
            assert codes in ([0, 0], [0, 4]), said
            assert made(folder) == new
            assert set(listing(folder)) == SOURCES | set(new)
            both = "the other finds it made" if codes == [0, 0] else "the other ends with 4"
            row[f"one writes it, {both}"] += 1
