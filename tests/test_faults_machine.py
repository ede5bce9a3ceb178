"""A machine that fails in the middle, and others at work in the same folder."""

from __future__ import annotations

import errno
import os

import pytest
from commands import ckgrow, listing, saved, tensors
from striking import SOURCES, STUDENTS, furnished, made

PLAIN = STUDENTS["safetensors"]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return furnished(tmp_path)


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
        ("link", 1, errno.EACCES, "permission denied; check the permissions of the file and its"),
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


@pytest.mark.parametrize(
    ("code", "said"),
    [
        (errno.EACCES, "permission denied; check the permissions of the file and its folder"),
        (errno.EROFS, "Read-only file system; choose another name or folder"),
    ],
)
def test_folder_that_cannot_be_written(folder, monkeypatch, code, said):
    real = os.open

    def refusing(path, flags, *rest, **settings):
        if flags & os.O_CREAT:
            raise OSError(code, os.strerror(code))
        return real(path, flags, *rest, **settings)

    with monkeypatch.context() as broken:
        broken.setattr(os, "open", refusing)
        done = ckgrow(*PLAIN.command)
    assert done.exit_code == 4
    assert f"student.safetensors cannot be written: {said}" in done.stderr
    assert set(listing(folder)) == SOURCES


@pytest.mark.parametrize("taken", [False, True])
def test_file_system_without_hard_links(folder, monkeypatch, taken):
    assert ckgrow(*PLAIN.command).exit_code == 0
    whole = made(folder)
    (folder / PLAIN.main).unlink()
    failing(monkeypatch, "link", 1, errno.EPERM)
    if taken:
        saved(folder / "student.safetensors", tensors(seed=9))
    before = listing(folder)
    done = ckgrow(*PLAIN.command)
    assert done.exit_code == (4 if taken else 0), done.output
    assert listing(folder) == (before if taken else {**before, **whole})


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
