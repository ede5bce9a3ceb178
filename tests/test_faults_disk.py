"""Disks that are full, read-only or not there, and limits: an error, and nothing is left."""

from __future__ import annotations

import os
import subprocess
from contextlib import contextmanager
from pathlib import Path

import pytest
from commands import ckgrow, listing, python, saved, tensors, written
from fault_table import tried
from striking import STUDENTS, furnished, made

TEACHER, SPEC = "teacher.safetensors", "spec.yaml"

LIMITED = """
import resource, sys
from ckgrow.cli.main import run
limit = int(sys.argv.pop(1))
resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
run()
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return furnished(tmp_path)


@pytest.fixture(params=STUDENTS)
def form(request, monkeypatch):
    """A format by name; with data apart, small models have it as well."""
    if STUDENTS[request.param].before:
        monkeypatch.setattr("ckgrow.adapters.formats._onnx_writer.EMBEDDED", 0)
    return request.param


def old_student(folder, student):
    """What an earlier run left, of another teacher."""
    saved(folder / TEACHER, tensors(seed=9))
    assert ckgrow(*student.command).exit_code == 0
    saved(folder / TEACHER, tensors())
    return made(folder)


def test_file_size_limit(folder, amount, form):
    """Each file of the student is in turn the one that is too large."""
    student = STUDENTS[form]
    old = old_student(folder, student)
    sizes = sorted({len(data) for data in old.values()})
    before = listing(folder)
    with tried("a file is larger than is allowed (EFBIG), --force", form) as row:
        for limit in {20, *(size - 1 for size in sizes[-amount(1, 9) :])}:
            settings = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}
            code = student.before + LIMITED
            done = python(code, limit, *student.command, "--force", env=settings)
            assert done.returncode == 4, done.stderr
            assert "the file is larger than the file system or the limit of" in done.stderr
            assert listing(folder) == before
            row["exit 4; the old student whole, nothing else"] += 1


@contextmanager
def small_disk(place, size, *options):
    """A file system of its own of so many bytes, which only root can have."""
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", ",".join((f"size={size}", *options)), "tmpfs", place]
    try:
        done = subprocess.run(mount, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        pytest.skip("there is no mount command")
    if done.returncode:
        pytest.skip(f"a small disk cannot be mounted here: {done.stderr.strip()}")
    try:
        yield place
    finally:
        subprocess.run(["umount", place], check=True)
        place.rmdir()


@pytest.mark.parametrize("force", [False, True], ids=["new", "force"])
def test_full_disk(folder, monkeypatch, amount, form, force):
    """Disks of all sizes, from one that not even the first page of a file fits on."""
    student, options = STUDENTS[form], ("--force",) if force else ()
    wide = written(folder / "wide.yaml", "steps:\n  - widen: '0'\n    factor: 300\n")
    ends = set()
    with tried("the disk is full", f"{form}, over an old student" if force else form) as row:
        for pages in (1, 2, 6, 10, 14, 18, 22, 26, 34, 60)[:: amount(4, 1)]:
            with small_disk(folder / "disk", pages * os.sysconf("SC_PAGE_SIZE")) as disk:
                if force:
                    (disk / student.main).write_bytes(b"the old student")
                before = listing(disk)
                done = ckgrow(*student.grown(TEACHER, wide, disk), *options)
                ends.add(done.exit_code)
                if done.exit_code == 0:
                    row["there was room: written"] += 1
                    continue
                assert done.exit_code == 4, done.output
                assert "the disk is full" in done.stderr or "No space left" in done.stderr
                assert listing(disk) == before
                row["exit 4; the folder is as it was"] += 1
    assert ends == {0, 4}


def test_folder_of_a_disk_that_is_read_only(folder, form):
    student = STUDENTS[form]
    with (
        tried("the folder is read-only", form) as row,
        small_disk(folder / "disk", 1 << 20, "ro") as disk,
    ):
        done = ckgrow(*student.grown(TEACHER, SPEC, disk))
        assert done.exit_code == 4, done.output
        assert "cannot be written: Read-only file system; choose" in done.stderr
        assert listing(disk) == {}
        row["exit 4; nothing is written"] += 1


def test_missing_folder(folder, form):
    before = listing(folder)
    with tried("the folder is missing", form) as row:
        done = ckgrow(*STUDENTS[form].grown(TEACHER, SPEC, Path("nowhere")))
        assert done.exit_code == 4, done.output
        assert "nowhere does not exist; make it first" in done.stderr
        assert listing(folder) == before
        row["exit 4; nothing is written"] += 1
