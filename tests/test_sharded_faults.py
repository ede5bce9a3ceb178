"""Students in parts: killed while they get their names, and shards that are not as they were."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys

import pytest
import safetensors.numpy
from commands import WIDEN, ckgrow, listing, saved, tensors, written
from striking import LAUNCHER, chosen

NAMING = LAUNCHER.replace(
    '("ftruncate", "posix_fallocate", "pwrite", "fsync", "link", "replace", "unlink")',
    '("link", "replace", "unlink")',
)
INDEX = "student.safetensors.index.json"
SOURCES = {"teacher.safetensors", "spec.yaml"}


def apply(size="50", *options):
    output = ("-o", "student.safetensors", "--shard-size", size)
    return ("apply", "teacher.safetensors", "spec.yaml", *output, *options)


def launched(number, blow, *options):
    assert LAUNCHER != NAMING
    command = [sys.executable, "-c", NAMING, str(number), str(int(blow)), *apply("50", *options)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


def student(folder):
    """Every tensor by name, None without an index: as others load it."""
    if not (folder / INDEX).exists():
        return None
    index = json.loads((folder / INDEX).read_text())
    loaded = {}
    for name in set(index["weight_map"].values()):
        loaded |= safetensors.numpy.load_file(folder / name)
    assert set(loaded) == set(index["weight_map"])
    return {name: each.tobytes() for name, each in loaded.items()}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    saved(tmp_path / "teacher.safetensors", tensors())
    written(tmp_path / "spec.yaml", WIDEN)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def old_student(folder, size):
    """What an earlier run left, with more shards or with fewer, and of another teacher."""
    for name in set(listing(folder)) - SOURCES:
        (folder / name).unlink()
    saved(folder / "teacher.safetensors", tensors(seed=7))
    assert ckgrow(*apply(size)).exit_code == 0
    saved(folder / "teacher.safetensors", tensors())
    return student(folder)


@pytest.mark.parametrize("size", ["20", "1MB", None])
def test_killed_at_every_change_of_a_name(folder, amount, size):
    """Whoever looks finds the old student, the new one or none; the next run the old or the new."""
    options = ("--force",) if size else ()
    assert ckgrow(*apply()).exit_code == 0
    whole, new = listing(folder), student(folder)
    before = old_student(folder, size) if size else None
    if not size:
        for name in set(listing(folder)) - SOURCES:
            (folder / name).unlink()
    old = set(listing(folder))
    done = launched(0, 0, *options)
    total = int(done.stdout.rpartition("calls:")[2])
    assert total >= 5
    ends = set()
    for number in chosen(amount, total):
        for name in set(listing(folder)) - SOURCES:
            (folder / name).unlink()
        if size:
            old_student(folder, size)
        done = launched(number, signal.SIGKILL, *options)
        assert done.returncode == -signal.SIGKILL
        after = student(folder)
        assert after in (before, new, None)
        ends.add("none" if after is None else "new" if after == new else "old")
        done = ckgrow(*apply())  # without --force: it brings the old one back, and leaves it
        if size and after != new:
            assert done.exit_code == 4, done.output
            assert student(folder) == before
            assert set(listing(folder)) == old
            done = ckgrow(*apply("50", "--force"))
        assert done.exit_code == 0, done.output
        assert student(folder) == new
        assert set(listing(folder)) == set(whole)
    assert "none" in ends


@pytest.mark.parametrize(("blow", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
@pytest.mark.parametrize("force", [False, True], ids=["new", "force"])
def test_stopped_at_every_change_of_a_name(folder, amount, blow, code, force):
    options = ("--force",) if force else ()
    if force:
        old_student(folder, "20")
    before = listing(folder)
    done = launched(0, 0, *options)
    total = int(done.stdout.rpartition("calls:")[2])
    after = listing(folder)
    assert after != before
    for number in chosen(amount, total, 3):
        for name in set(listing(folder)) - SOURCES:
            (folder / name).unlink()
        for name, data in before.items():
            (folder / name).write_bytes(data)
        done = launched(number, blow, *options)
        assert done.returncode == code, done.stderr
        assert listing(folder) in (before, after)


def test_a_flush_that_fails_leaves_no_file_open(folder, monkeypatch):
    def failing(descriptor):
        raise OSError(5, "Input/output error")

    assert ckgrow(*apply()).exit_code == 0  # what is opened once is open now
    (folder / INDEX).unlink()
    before = os.listdir("/proc/self/fd")
    monkeypatch.setattr(os, "fsync", failing)
    done = ckgrow(*apply("50", "--force"))
    assert done.exit_code == 4
    assert "cannot be written: Input/output error" in done.stderr
    assert len(os.listdir("/proc/self/fd")) == len(before)


# --- a teacher in parts that does not keep still --------------------------------------------


@pytest.mark.parametrize("number", [1, 3])
@pytest.mark.parametrize("change", ["shortened", "swapped", "removed", "index"])
def test_shards_that_change_between_planning_and_reading(folder, monkeypatch, change, number):
    (folder / "parts").mkdir()
    assert ckgrow("convert", "teacher.safetensors", "parts", "--shard-size", "40").exit_code == 0
    names = sorted(each.name for each in (folder / "parts").glob("*.safetensors"))
    path = folder / "parts" / names[number % len(names)]
    from ckgrow import applying

    real = applying.make_record

    def changed(*arguments):
        if change == "shortened":
            os.truncate(path, path.stat().st_size - 4)
        elif change == "swapped":
            (folder / "copy").write_bytes(path.read_bytes())
            os.replace(folder / "copy", path)
        elif change == "removed":
            path.unlink()
        else:
            index = folder / "parts" / "model.safetensors.index.json"
            index.write_text(index.read_text())
        return real(*arguments)

    monkeypatch.setattr(applying, "make_record", changed)
    done = ckgrow("apply", "parts", "spec.yaml", "-o", "student.safetensors")
    assert done.exit_code in (3, 4), done.output
    assert "run again when nothing writes to it" in done.stderr
    assert set(listing(folder)) == {*SOURCES, "parts"}
