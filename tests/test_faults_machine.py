"""Disks that are full, broken or not to be written, and limits: an error, and nothing is left."""

from __future__ import annotations

import errno
import os
import subprocess
from contextlib import contextmanager

import pytest
from commands import ckgrow, listing, python, saved, tensors, written
from fault_table import tried
from striking import SOURCES, STUDENTS, furnished, made

PLAIN = STUDENTS["safetensors"]
TEACHER = "teacher.safetensors"

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


@pytest.mark.parametrize("force", [False, True], ids=["new", "force"])
def test_full_disk(folder, monkeypatch, amount, form, force):
    """Disks of all sizes, from one that not even the part file fits on."""
    student, options = STUDENTS[form], ("--force",) if force else ()
    where = f"{form}, over an old student" if force else form
    wide = written(folder / "wide.yaml", "steps:\n  - widen: '0'\n    factor: 300\n")
    command = [TEACHER, wide.name]
    command = [
        str(folder / each) if each in (TEACHER, wide.name) else each
        for each in ("wide.yaml" if part == "spec.yaml" else part for part in student.command)
    ]
    ends = set()
    with tried("the disk is full", where) as row:
        for pages in (1, 2, 6, 10, 14, 18, 22, 26, 34, 60)[:: amount(4, 1)]:
            with small_disk(folder / "disk", pages * os.sysconf("SC_PAGE_SIZE")) as disk:
                with monkeypatch.context() as inside:
                    inside.chdir(disk)
                    if force:
                        (disk / student.main).write_bytes(b"the old student")
                    before = listing(disk)
                    done = ckgrow(*command, *options)
                    ends.add(done.exit_code)
                    if done.exit_code:
                        assert done.exit_code == 4, done.output
                        assert "the disk is full" in done.stderr or "No space" in done.stderr
                        assert listing(disk) == before
                        row["exit 4; the disk is as it was"] += 1
                    else:
                        row["there was room: written"] += 1
            (folder / "disk").rmdir()
    assert ends == {0, 4} or amount(0, 1) == 0


def test_folder_of_a_disk_that_is_read_only(folder, form):
    student = STUDENTS[form]
    with tried("the folder is read-only", form) as row:
        with small_disk(folder / "disk", 1 << 20, "ro") as disk:
            command = [*student.command]
            command[command.index("-o") + 1] = f"disk/{command[command.index('-o') + 1]}"
            done = ckgrow(*command)
            assert done.exit_code == 4, done.output
            assert "cannot be written: Read-only file system; choose" in done.stderr
            assert listing(disk) == {}
            row["exit 4; nothing is written"] += 1


def test_missing_folder(folder, form):
    command = [*STUDENTS[form].command]
    command[command.index("-o") + 1] = f"nowhere/{command[command.index('-o') + 1]}"
    before = listing(folder)
    with tried("the folder is missing", form) as row:
        done = ckgrow(*command)
        assert done.exit_code == 4, done.output
        assert "the folder nowhere does not exist; make it first" in done.stderr.replace(
            f"{folder}/", ""
        )
        assert listing(folder) == before
        row["exit 4; nothing is written"] += 1


def failing(monkeypatch, name, number, code):
    """``os.name`` fails at its n-th call, as a full or broken disk makes it."""
    real, count = getattr(os, name), 0

    def call(*arguments, **settings):
        nonlocal count
        count += 1
        if count >= number:
            raise OSError(code, os.strerror(code))
        return real(*arguments, **settings)

    monkeypatch.setattr(os, name, call)


@pytest.mark.parametrize(
    ("name", "number", "code", "said"),
    [
        ("posix_fallocate", 1, errno.ENOSPC, "the disk is full; free space or write elsewhere"),
        ("pwrite", 1, errno.ENOSPC, "the disk is full"),
        ("pwrite", 3, errno.ENOSPC, "the disk is full"),
        ("pwrite", 6, errno.EDQUOT, "the disk quota is used up"),
        ("pwrite", 2, errno.EIO, "Input/output error"),
        ("fsync", 1, errno.EIO, "Input/output error"),
        ("link", 1, errno.EACCES, "Permission denied; choose another name or folder"),
        ("preadv", 3, errno.EIO, "teacher.safetensors cannot be read: Input/output error"),
    ],
)
def test_machine_that_fails(folder, monkeypatch, name, number, code, said):
    before = listing(folder)
    with monkeypatch.context() as broken:
        failing(broken, name, number, code)
        done = ckgrow(*PLAIN.command)
    assert done.exit_code == 4, done.output
    assert said in done.stderr
    assert listing(folder) == before
    assert ckgrow(*PLAIN.command).exit_code == 0


@pytest.mark.parametrize("code", [errno.EACCES, errno.EROFS])
def test_folder_that_cannot_be_written(folder, monkeypatch, code):
    real = os.open

    def refusing(path, flags, *rest, **settings):
        if flags & os.O_CREAT:
            raise OSError(code, os.strerror(code))
        return real(path, flags, *rest, **settings)

    with monkeypatch.context() as broken:
        broken.setattr(os, "open", refusing)
        done = ckgrow(*PLAIN.command)
    assert done.exit_code == 4
    assert f"student.safetensors cannot be written: {os.strerror(code)}; choose" in done.stderr
    assert set(listing(folder)) == SOURCES


@pytest.mark.parametrize("taken", [False, True])
def test_file_system_without_hard_links(folder, monkeypatch, whole, taken):
    failing(monkeypatch, "link", 1, errno.EPERM)
    if taken:
        saved(folder / "student.safetensors", tensors(seed=9))
    before = listing(folder)
    done = ckgrow(*PLAIN.command)
    assert done.exit_code == (4 if taken else 0), done.output
    assert listing(folder) == (before if taken else {**before, "student.safetensors": whole})


@pytest.mark.parametrize("links", [True, False])
def test_name_taken_while_writing(folder, monkeypatch, links):
    if not links:
        failing(monkeypatch, "link", 1, errno.EPERM)
    real = os.fsync

    def taking(descriptor):
        saved(folder / "student.safetensors", tensors(seed=9))
        return real(descriptor)

    monkeypatch.setattr(os, "fsync", taking)
    done = ckgrow(*PLAIN.command)
    assert done.exit_code == 4
    assert "student.safetensors exists by now; add --force to replace it" in done.stderr
    assert set(listing(folder)) == {*SOURCES, PLAIN.main}


def test_a_link_in_the_place_of_the_part_file_is_refused(folder):
    part = folder / ".student.safetensors.ckgrow-part"
    part.symlink_to(folder / "elsewhere")
    assert ckgrow(*PLAIN.command).exit_code == 4
    assert not (folder / "elsewhere").exists()
    assert not (folder / "student.safetensors").exists()
