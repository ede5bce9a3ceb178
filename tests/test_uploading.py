"""Students of several files at a URL: all of them, or those that were there before."""

from __future__ import annotations

import fsspec
import numpy as np
import pytest
from commands import WIDEN, ckgrow, saved, tensors, written
from safetensors.numpy import load_file

from ckgrow.errors import FileError
from ckgrow.registry import store
from ckgrow.uploading import UploadedPart

FOLDER = "memory://students"
CALLS = ("put", "copy", "remove")
OLD = {"main": b"old main", "a": b"old a", "b": b"old b"}
NEW = {"main": b"new main", "a": b"new a", "c": b"new c"}


@pytest.fixture
def memory():
    """A store in this process, which is empty."""
    system = fsspec.filesystem("memory")
    system.store.clear()
    yield system
    system.store.clear()


def present(memory):
    return {name.rpartition("/")[2]: memory.cat_file(name) for name in memory.find("/students")}


def furnish(memory, files):
    memory.store.clear()
    for name, data in files.items():
        memory.pipe_file(f"/students/{name}", data)


def is_whole(files):
    return "main" not in files or any(
        all(files.get(name) == data for name, data in whole.items()) for whole in (OLD, NEW)
    )


def publish(memory, monkeypatch, number=0, *, force=True, fails=1):
    """Publishes ``NEW``; so many calls of the store fail, from the n-th on. Returns their count."""
    count = 0

    def counted(whole):
        def call(*arguments, **settings):
            nonlocal count
            count += 1
            assert is_whole({n: d for n, d in present(memory).items() if not n.startswith(".")})
            if number <= count < number + fails:
                raise FileError("the store is away")
            return whole(*arguments, **settings)

        return call

    with UploadedPart(f"{FOLDER}/main", force=force) as part, monkeypatch.context() as patch:
        part.path.write_bytes(NEW["main"])
        for name in ("a", "c"):
            part.companion(name).write_bytes(NEW[name])
        part.outdate("b")
        for name in CALLS:
            patch.setattr(store(), name, counted(getattr(store(), name)))
        part.publish()
    return count


@pytest.mark.parametrize("old", [OLD, {}], ids=["old", "new"])
def test_a_failure_at_any_call(memory, monkeypatch, old):
    furnish(memory, old)
    total = publish(memory, monkeypatch, force=bool(old), fails=0)
    assert present(memory) == NEW
    ends = set()
    for number in range(1, total + 1):
        furnish(memory, old)
        try:
            publish(memory, monkeypatch, number, force=bool(old))
        except FileError:
            assert present(memory) == old, number
            ends.add("old")
        else:
            left = present(memory)
            assert {name: left[name] for name in NEW} == NEW
            assert "b" not in left
            ends.add("new")
    assert ends == ({"old", "new"} if old else {"old"})


def test_what_cannot_be_brought_back_is_kept(memory, monkeypatch):
    furnish(memory, OLD)
    total = publish(memory, monkeypatch, fails=0)
    for number in range(5, total - 3):  # from when the old ones are copied aside
        furnish(memory, OLD)
        with pytest.raises(FileError, match="it waits beside it, under names that end in"):
            publish(memory, monkeypatch, number, fails=100)
        kept = present(memory)
        for name, data in OLD.items():
            assert kept.get(f".main~old~{name}.ckgrow-part", kept.get(name)) == data


@pytest.mark.parametrize("taken", ["main", "a", "b"])
def test_without_force_nothing_is_replaced(memory, monkeypatch, taken):
    furnish(memory, {taken: b"another's"})
    with pytest.raises(FileError, match=f"{taken} exists"):
        publish(memory, monkeypatch, force=False, fails=0)
    assert present(memory) == {taken: b"another's"}


def test_a_side_file_of_another_student_does_not_stay(memory, tmp_path):
    """Its dtypes would be taken for those of the new tensors."""
    from ml_dtypes import bfloat16

    url = f"{FOLDER}/student.npz"
    saved(tmp_path / "half.safetensors", {"w": np.ones(2, bfloat16)})
    saved(tmp_path / "plain.safetensors", {"other": np.ones(2, "f4")})
    assert ckgrow("convert", tmp_path / "half.safetensors", url).exit_code == 0
    assert set(present(memory)) == {"student.npz", "student.npz.ckgrow.json"}
    done = ckgrow("convert", tmp_path / "plain.safetensors", url, "--force")
    assert done.exit_code == 0, done.output
    assert set(present(memory)) == {"student.npz"}
    assert ckgrow("convert", url, tmp_path / "back.safetensors").exit_code == 0
    assert load_file(tmp_path / "back.safetensors")["other"].dtype == np.float32


def test_a_student_in_parts_over_one_of_more_parts(memory, tmp_path):
    teacher = saved(tmp_path / "teacher.safetensors", tensors())
    spec = written(tmp_path / "spec.yaml", WIDEN)
    run = ("apply", teacher, spec, "-o", f"{FOLDER}/", "--force", "--shard-size")
    assert ckgrow(*run, "50").exit_code == 0
    many = set(present(memory))
    saved(teacher, tensors(seed=1))
    done = ckgrow(*run, "1MB")
    assert done.exit_code == 0, done.output
    index = "model.safetensors.index.json"
    assert set(present(memory)) == {index, "model-00001-of-00001.safetensors"}
    assert len(many) > 2
    assert ckgrow("verify", teacher, f"{FOLDER}/{index}").exit_code == 0
