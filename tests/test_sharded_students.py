"""Students and teachers in parts."""

from __future__ import annotations

import json
import os

import pytest
import safetensors
import safetensors.numpy
import safetensors.torch
from commands import WIDEN, ckgrow, listing, saved, tensors, written
from sharded_files import (
    INDEX,
    index_of,
    loaded_as_others_do,
)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    saved(tmp_path / "teacher.safetensors", tensors())
    written(tmp_path / "spec.yaml", WIDEN)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def applied(*options):
    return ckgrow("apply", "teacher.safetensors", "spec.yaml", *options)


def test_students_in_parts(folder):
    (folder / "parts").mkdir()
    assert applied("-o", "parts", "--shard-size", "100").exit_code == 0
    assert applied("-o", "one.safetensors").exit_code == 0
    parts = loaded_as_others_do(folder / "parts", safetensors.numpy.load_file)
    one = safetensors.numpy.load_file(folder / "one.safetensors")
    assert {name: each.tobytes() for name, each in parts.items()} == {
        name: each.tobytes() for name, each in one.items()
    }
    with safetensors.safe_open(folder / "one.safetensors", "np") as file:
        assert index_of(folder / "parts")["metadata"]["ckgrow"] == file.metadata()["ckgrow"]
    assert ckgrow("verify", "teacher.safetensors", "parts").exit_code == 0
    assert "up to date" in applied("-o", "parts", "--shard-size", "100").stdout
    assert ckgrow("apply", "parts", "spec.yaml", "-o", "next.safetensors").exit_code == 0


def test_bytes_do_not_depend_on_workers(folder):
    made = []
    for workers in (1, 2, 5):
        (folder / f"{workers}").mkdir()
        options = ("-o", f"{workers}", "--shard-size", "100", "--workers", workers, "--no-verify")
        assert applied(*options).exit_code == 0
        made.append(listing(folder / f"{workers}"))
    assert made[0] == made[1] == made[2]


def test_old_shards_go_with_their_index(folder):
    assert applied("-o", "a.safetensors", "--shard-size", "50").exit_code == 0
    old = {name for name in listing(folder) if name.startswith("a-")}
    assert len(old) == 4
    for name in ("a-notes.safetensors", "b-00001-of-00004.safetensors"):
        saved(folder / name, tensors())  # named by no index of ours
    kept = set(listing(folder)) - old
    saved(folder / "teacher.safetensors", tensors(seed=3))
    done = applied("-o", "a.safetensors", "--shard-size", "1GB", "--force")
    assert done.exit_code == 0, done.output
    assert set(listing(folder)) == kept | {"a-00001-of-00001.safetensors"}
    assert ckgrow("verify", "teacher.safetensors", f"a.{INDEX[6:]}").exit_code == 0


def test_an_old_index_cannot_name_others_for_removal(folder):
    assert applied("-o", "a.safetensors", "--shard-size", "50").exit_code == 0
    saved(folder / "precious.safetensors", tensors())
    index = f"a.{INDEX[6:]}"
    document = json.loads((folder / index).read_text())
    document["weight_map"]["more"] = "precious.safetensors"
    (folder / index).write_text(json.dumps(document))
    saved(folder / "teacher.safetensors", tensors(seed=3))
    assert applied("-o", "a.safetensors", "--shard-size", "1GB", "--force").exit_code == 0
    assert (folder / "precious.safetensors").exists()


def test_a_shard_that_exists_already_is_told_at_once(folder, monkeypatch):
    saved(folder / "a-00002-of-00004.safetensors", tensors())
    before = listing(folder)
    monkeypatch.setattr("ckgrow.applying.execute", None)  # nothing is made
    done = applied("-o", "a.safetensors", "--shard-size", "50")
    assert done.exit_code == 4
    assert "a-00002-of-00004.safetensors exists; add --force to replace it" in done.stderr
    assert listing(folder) == before


@pytest.mark.parametrize("size", ["0", "-1", "5 apples", "1e3", "", "9" * 400])
def test_sizes_that_are_none(folder, size):
    done = applied("-o", "a.safetensors", f"--shard-size={size}")
    assert done.exit_code == 2
    assert "--shard-size" in done.stderr


def test_other_formats_have_no_parts(folder):
    done = applied("-o", "a.npz", "--shard-size", "5GB")
    assert done.exit_code == 2
    assert "--shard-size is for checkpoints in several files" in done.stderr


def test_a_full_disk_shows_before_anything_is_made(folder, monkeypatch):
    calls = []

    def full(descriptor, offset, size):
        calls.append(size)
        if len(calls) == 3:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    before = listing(folder)
    done = applied("-o", "a.safetensors", "--shard-size", "50")
    assert done.exit_code == 4
    assert "the disk is full" in done.stderr
    assert listing(folder) == before
