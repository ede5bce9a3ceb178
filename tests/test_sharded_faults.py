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

from ckgrow.publishing import PartFile

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
    """Afterwards there is the old student, the new one or none: never a mix of two."""
    options = ("--force",) if size else ()
    assert ckgrow(*apply()).exit_code == 0
    whole, new = listing(folder), student(folder)
    before = old_student(folder, size) if size else None
    if not size:
        for name in set(listing(folder)) - SOURCES:
            (folder / name).unlink()
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
        done = ckgrow(*apply())  # without --force, unless the old one is still there
        if after is not None and after != new:
            assert done.exit_code == 4
            done = ckgrow(*apply("50", "--force"))
        assert done.exit_code == 0, done.output
        assert student(folder) == new
        assert set(listing(folder)) == set(whole)
    assert "none" in ends


@pytest.mark.parametrize(("blow", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_stopped_at_every_change_of_a_name(folder, amount, blow, code):
    done = launched(0, 0)
    total = int(done.stdout.rpartition("calls:")[2])
    for number in chosen(amount, total):
        for name in set(listing(folder)) - SOURCES:
            (folder / name).unlink()
        done = launched(number, blow)
        assert done.returncode == code, done.stderr
        after = student(folder)
        if after is None:
            assert set(listing(folder)) == SOURCES
        else:
            assert len(listing(folder)) == len(SOURCES) + 5


def test_a_failure_between_two_names_leaves_nothing(folder, monkeypatch):
    real, count = os.replace, 0

    def failing(source, target):
        nonlocal count
        count += 1
        if count == 3:
            raise OSError(5, "Input/output error")
        real(source, target)

    monkeypatch.setattr(os, "replace", failing)
    done = ckgrow(*apply())
    assert done.exit_code == 4
    assert set(listing(folder)) == SOURCES


def test_a_journal_takes_away_only_what_got_its_name(folder):
    """Files that were to be replaced, and were not yet, are another's."""
    target = folder / INDEX
    with PartFile(target, force=True) as part:
        for name in ("a", "b"):
            part.companion(name).write_text("new")
        journal = part.path.with_name(f".{INDEX}~.ckgrow-part")
        journal.write_text('{"a": false, "b": false}')
        (folder / "a").write_text("old")
        os.replace(part.companion("b"), folder / "b")
    assert set(listing(folder)) == {*SOURCES, "a"}


def test_a_damaged_journal_is_none(folder):
    (folder / f".{INDEX}~.ckgrow-part").write_bytes(b'["spec.yaml"')
    assert ckgrow(*apply()).exit_code == 0
    assert set(listing(folder)) > SOURCES


# --- a teacher in parts that does not keep still --------------------------------------------


@pytest.mark.parametrize("number", [1, 3])
@pytest.mark.parametrize("change", ["shortened", "swapped", "removed", "index"])
def test_shards_that_change_between_planning_and_reading(folder, monkeypatch, change, number):
    (folder / "parts").mkdir()
    assert ckgrow("convert", "teacher.safetensors", "parts", "--shard-size", "40").exit_code == 0
    names = sorted(each.name for each in (folder / "parts").glob("*.safetensors"))
    path = folder / "parts" / names[number % len(names)]
    from ckgrow import applying

    real = applying.hash_checkpoint

    def changed(teacher, workers):
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
        return real(teacher, workers)

    monkeypatch.setattr(applying, "hash_checkpoint", changed)
    done = ckgrow("apply", "parts", "spec.yaml", "-o", "student.safetensors")
    assert done.exit_code in (3, 4), done.output
    assert "run again when nothing writes to it" in done.stderr
    assert set(listing(folder)) == {*SOURCES, "parts"}
