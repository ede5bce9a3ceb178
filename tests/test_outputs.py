"""Outputs that would replace the teacher, or one of the files that it consists of."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import fsspec
import numpy as np
import onnx
import pytest
from commands import WIDEN, ckgrow, saved, tensors, written
from safetensors.numpy import load_file

import ckgrow as package
from ckgrow.files import open_checkpoint
from ckgrow.places import is_remote, local
from ckgrow.recipes.divided import Divided

INDEX = "model.safetensors.index.json"
ONLY = "model-00001-of-00001.safetensors"


@dataclass(frozen=True)
class Teachers:
    """``put`` brings the files of a folder there and says where, ``files`` reads them again."""

    put: Callable[[Path], str]
    files: Callable[[str], dict[str, bytes]]
    spec: Path


@pytest.fixture(params=["here", "elsewhere"])
def teachers(request, tmp_path):
    """Where teachers are: a folder, or the memory that fsspec calls a file system."""
    if request.param == "here":
        yield Teachers(str, lambda place: contents(Path(place)), spec(tmp_path))
        return
    memory = fsspec.filesystem("memory")

    def put(folder):
        for path in folder.iterdir():
            memory.pipe(f"/{folder.name}/{path.name}", path.read_bytes())
        return f"memory://{folder.name}"

    def files(place):
        folder = f"/{place.removeprefix('memory://')}"
        return {Path(each).name: memory.cat(each) for each in memory.ls(folder, detail=False)}

    yield Teachers(put, files, spec(tmp_path))
    memory.store.clear()
    memory.pseudo_dirs[:] = [""]


def spec(folder):
    return written(folder / "widen.yaml", WIDEN)


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def made(folder, name):
    """A folder with a teacher as the library safetensors saves it."""
    folder.mkdir()
    return saved(folder / name, tensors())


def sharded(folder):
    package.convert(made(folder, "a.safetensors"), folder / INDEX, shard_size=200)
    (folder / "a.safetensors").unlink()
    assert len(contents(folder)) > 2
    return folder


def exported(folder):
    """A model that points to its weights in a safetensors file."""
    package.export(made(folder, "m.safetensors"), folder / "m.onnx")
    return folder


def refused(teachers, place, teacher, output, said, *options):
    """Nothing is replaced, nothing is left behind, and one line says why."""
    before = teachers.files(place)
    done = ckgrow("apply", teacher, teachers.spec, "-o", output, "--force", *options)
    assert done.exit_code == 4, done.output
    assert done.stderr.strip().endswith(f"is {said}; write the student elsewhere"), done.stderr
    assert done.stderr.count("\n") == 1
    assert teachers.files(place) == before


@pytest.mark.parametrize("teacher", ["", f"/{INDEX}"])
@pytest.mark.parametrize("output", ["/", f"/{INDEX}"])
def test_a_folder_is_the_checkpoint_in_it(tmp_path, teachers, teacher, output):
    place = teachers.put(sharded(tmp_path / "d"))
    teacher = f"{place}{teacher}" if teacher else f"{place}/"
    refused(teachers, place, teacher, f"{place}{output}", "the teacher itself")


def test_a_shard_of_the_teacher(tmp_path, teachers):
    folder = sharded(tmp_path / "d")
    shard = min(folder.glob("*.safetensors")).name
    place = teachers.put(folder)
    refused(teachers, place, f"{place}/{INDEX}", f"{place}/{shard}", "part of the teacher")


def test_a_shard_of_the_student(tmp_path, teachers):
    made(tmp_path / "e", ONLY)
    place = teachers.put(tmp_path / "e")
    refused(teachers, place, f"{place}/{ONLY}", f"{place}/", "the teacher itself")


def test_a_shard_that_a_new_index_would_leave_over(tmp_path, teachers):
    """The old checkpoint's files go with it; here one of them is read as a teacher of its own."""
    folder = tmp_path / "f"
    old = [f"model-{number:05d}-of-00002.safetensors" for number in (1, 2)]
    teacher = made(folder, old[1])
    saved(folder / old[0], {"other": np.zeros(3, np.float32)})
    weight_map = {"other": old[0], **dict.fromkeys(load_file(teacher), old[1])}
    written(folder / INDEX, json.dumps({"metadata": {}, "weight_map": weight_map}))
    place = teachers.put(folder)
    refused(teachers, place, f"{place}/{old[1]}", f"{place}/", "the teacher itself")


def test_weights_that_a_model_points_to(tmp_path, teachers):
    place = teachers.put(exported(tmp_path / "g"))
    refused(teachers, place, f"{place}/m.onnx", f"{place}/m.safetensors", "part of the teacher")


def test_numbers_of_a_model_beside_it(tmp_path, teachers, monkeypatch):
    """The student's data would be written where the teacher's are, under another model's name."""
    monkeypatch.setattr("ckgrow.adapters.formats._onnx_writer.EMBEDDED", 0)
    folder = tmp_path / "h"
    package.convert(made(folder, "m.safetensors"), folder / "m.onnx")
    model = onnx.load(folder / "m.onnx", load_external_data=False)
    assert {each.external_data[0].value for each in model.graph.initializer} == {"m.onnx.data"}
    (folder / "m.onnx").rename(folder / "other.onnx")
    place = teachers.put(folder)
    refused(teachers, place, f"{place}/other.onnx", f"{place}/m.onnx", "part of the teacher")


def test_a_teacher_of_another_folder_stays_free(tmp_path, teachers):
    """Equal names and equal bytes elsewhere are no teacher."""
    made(tmp_path / "e", ONLY)
    place = teachers.put(tmp_path / "e")
    made(tmp_path / "k", ONLY)
    other = teachers.put(tmp_path / "k")
    done = ckgrow("apply", f"{place}/{ONLY}", teachers.spec, "-o", f"{other}/", "--force")
    assert done.exit_code == 0, done.output
    assert set(teachers.files(other)) == {ONLY, INDEX}


def test_other_commands_refuse_too(tmp_path):
    folder = exported(tmp_path / "g")
    before = contents(folder)
    for command in (("convert", "m.safetensors"), ("export", "-o", "m.onnx")):
        done = ckgrow(
            command[0], folder / "m.onnx", *command[1:-1], folder / command[-1], "--force"
        )
        assert done.exit_code == 4, done.output
        assert "the teacher" in done.stderr
        assert contents(folder) == before


@pytest.mark.parametrize("output", ["student.safetensors", "memory://m/student.safetensors"])
def test_a_failed_student_does_not_replace_the_teacher(tmp_path, monkeypatch, output):
    """What failed earlier may be the teacher now."""
    whole = Divided.rows
    monkeypatch.setattr(Divided, "rows", lambda *arguments: whole(*arguments) * 1.01)
    monkeypatch.chdir(tmp_path)
    teacher = saved(tmp_path / "student.safetensors.failed", tensors())
    command = ("apply", teacher, spec(tmp_path), "-o", output)
    before = contents(tmp_path)
    assert ckgrow(*command).exit_code == 1
    done = ckgrow(*command, "--keep-failed")
    assert done.exit_code == 4, done.output
    assert "student.safetensors.failed is the teacher itself" in done.stderr
    assert contents(tmp_path) == before


# Which files a checkpoint consists of


def names(path):
    reader = open_checkpoint(path)
    try:
        return [file.name for file in reader.files()]
    finally:
        reader.close()


def test_the_files_of_a_checkpoint(tmp_path):
    folder = exported(tmp_path / "a")
    teacher = folder / "m.safetensors"
    assert names(teacher) == ["m.safetensors"]
    assert names(folder / "m.onnx") == ["m.onnx", "m.safetensors"]
    for suffix in ("npz", "pt"):
        output = folder / f"x.{suffix}"
        assert ckgrow("apply", teacher, spec(tmp_path), "-o", output).exit_code == 0
        assert names(output) == [f"x.{suffix}", f"x.{suffix}.ckgrow.json"]
        os.utime(folder / f"x.{suffix}.ckgrow.json", ns=(1, 1))
    np.savez(folder / "plain.npz", **tensors())
    assert names(folder / "plain.npz") == ["plain.npz"]
    shards = sorted(path.name for path in sharded(tmp_path / "d").glob("*.safetensors"))
    assert names(tmp_path / "d") == [INDEX, *shards]


@pytest.mark.parametrize("suffix", ["npz", "pt"])
def test_a_side_file_that_changes(tmp_path, suffix):
    """It says which dtypes are meant, and whose student this is."""
    teacher, path = saved(tmp_path / "t.safetensors", tensors()), tmp_path / f"x.{suffix}"
    assert ckgrow("apply", teacher, spec(tmp_path), "-o", path).exit_code == 0
    reader = open_checkpoint(path)
    assert reader.unchanged()
    os.utime(tmp_path / f"x.{suffix}.ckgrow.json", ns=(1, 1))
    assert not reader.unchanged()
    reader.close()


# file:// is here


@pytest.mark.parametrize("scheme", ["file://", "FILE://", "file://localhost", "local://"])
def test_a_local_url(tmp_path, scheme):
    folder = tmp_path / "with space"
    teacher = made(folder, "t.safetensors")
    url = f"{scheme}{tmp_path}/with%20space"
    assert local(f"{url}/t.safetensors") == teacher
    assert not is_remote(url)
    grown = ("apply", f"{url}/t.safetensors", spec(tmp_path), "-o", f"{url}/s.safetensors")
    assert ckgrow(*grown).exit_code == 0
    assert set(contents(folder)) == {"t.safetensors", "s.safetensors"}
    assert "up to date" in ckgrow(*grown).output
    before = contents(folder)
    done = ckgrow(*grown[:-1], f"{url}/t.safetensors", "--force")
    assert done.exit_code == 4
    assert "is the teacher itself" in done.stderr
    (folder / "s.safetensors").write_bytes(b"another")
    assert ckgrow(*grown).exit_code == 4
    assert ckgrow(*grown, "--force").exit_code == 0
    assert contents(folder) == before


def test_what_is_no_local_url():
    assert is_remote("filed://a")
    assert is_remote("s3://file://a")
    assert not is_remote("./s3://a")
    assert local("a%20b") == Path("a%20b")
    assert local("file://localhosts/a") == Path("localhosts/a")
    assert os.fsencode(local("file:///%ff")) == b"/\xff"
