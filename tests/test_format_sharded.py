"""Sharded safetensors: what others read and write, many files, links, files that change."""

from __future__ import annotations

import json
import os
import resource
import threading

import numpy as np
import pytest
import safetensors
import safetensors.numpy
import safetensors.torch
from commands import ckgrow, listing, written
from sharded_files import (
    ARRAYS,
    FORMAT,
    INDEX,
    PARTS,
    index_of,
    loaded_as_others_do,
    shards,
)
from written_files import created, write

from ckgrow.checkpoint import ShardedWriter
from ckgrow.errors import FileError
from ckgrow.files import open_checkpoint
from ckgrow.header import Header, TensorSpec
from ckgrow.registry import formats


def test_others_read_what_is_written(tmp_path):
    assert shards(tmp_path) == PARTS
    loaded = loaded_as_others_do(tmp_path, safetensors.numpy.load_file)
    for name, array in ARRAYS.items():
        assert loaded[name].dtype == array.dtype
        assert loaded[name].shape == array.shape
        assert loaded[name].tobytes() == array.tobytes()
    assert index_of(tmp_path)["metadata"] == {"total_size": 48 + 8 + 8 + 2}
    assert list(index_of(tmp_path)["weight_map"]) == sorted(ARRAYS)
    as_torch = loaded_as_others_do(tmp_path, safetensors.torch.load_file)
    assert as_torch["b.weight"].tolist() == ARRAYS["b.weight"].tolist()


def test_hugging_faces_own_index_has_the_same_form(tmp_path):
    hub = pytest.importorskip("huggingface_hub")
    torch = pytest.importorskip("torch")
    state = {name: torch.arange(6.0).reshape(2, 3) for name in ("x.weight", "y.weight")}
    hub.save_torch_state_dict(state, tmp_path, max_shard_size=24)
    theirs = index_of(tmp_path)
    reader = open_checkpoint(tmp_path)
    assert reader.read("y.weight", 1, 2).tolist() == [[3.0, 4.0, 5.0]]
    assert reader.contents.metadata == {"format": "pt"}
    reader.close()
    ours = tmp_path / "ours"
    ours.mkdir()
    shards(ours, {name: each.numpy() for name, each in state.items()}, 24)
    assert index_of(ours) == theirs
    model = torch.nn.ModuleDict({name: torch.nn.Linear(3, 2, bias=False) for name in ("x", "y")})
    hub.load_torch_model(model, ours, strict=True)
    assert torch.equal(model["y"].weight, state["y.weight"])


def test_every_shard_is_as_large_as_it_may_be(tmp_path):
    sizes = [3, 3, 2, 9, 1, 4, 4, 8, 1]
    arrays = {f"t{number}": np.zeros(size, "u1") for number, size in enumerate(sizes)}
    names = shards(tmp_path, arrays, 8)
    held = [safetensors.numpy.load_file(tmp_path / name) for name in names]
    assert [sorted(each) for each in held] == [
        ["t0", "t1", "t2"],
        ["t3"],  # larger than a shard may be: alone
        ["t4", "t5"],
        ["t6"],
        ["t7"],
        ["t8"],
    ]


def test_what_is_written_comes_back(tmp_path):
    shards(tmp_path, metadata={"ckgrow": "xxxx", "note": "ä\n", "format": "pt"})
    for place in (tmp_path, tmp_path / INDEX):
        reader = open_checkpoint(place)
        assert list(reader.header) == sorted(ARRAYS)  # the order of the index
        assert reader.contents.metadata == {"ckgrow": "xxxx", "note": "ä\n", "format": "pt"}
        for name, array in ARRAYS.items():
            rows = reader.read(name, 0, len(np.atleast_1d(array)))
            assert rows.dtype == array.dtype
            assert rows.tobytes() == array.tobytes()
            span = reader.span(name)
            with span.path.open("rb") as file:
                file.seek(span.offset)
                assert file.read(span.size) == array.tobytes()
        assert reader.unchanged()
        reader.close()
        reader.close()


def test_placeholders_are_replaced_in_the_index(tmp_path):
    header = Header({"a": TensorSpec("float32", (2,))})
    writer = created(FORMAT, tmp_path / INDEX, header, {"ckgrow": '{"hash": "____"}'}, shard_size=9)
    writer.write("a", 0, np.ones(2, "f4"))
    writer.finish({"____": "beef"})
    assert index_of(tmp_path)["metadata"]["ckgrow"] == '{"hash": "beef"}'


def test_rows_that_are_missing_or_do_not_fit(tmp_path):
    header = Header({"a": TensorSpec("float32", (2, 3))})
    writer = created(FORMAT, tmp_path / INDEX, header, shard_size=9)
    writer.write("a", 0, np.ones((1, 3), "f4"))
    with pytest.raises(ValueError, match="rows of"):
        writer.write("a", 1, np.ones((1, 2), "f4"))
    with pytest.raises(ValueError, match="12 bytes of tensors were not written"):
        writer.finish({})
    writer.abandon()


def test_shards_that_others_write(tmp_path):
    header = Header({name: TensorSpec("float32", (2,)) for name in "ab"})
    writer = created(FORMAT, tmp_path / INDEX, header, shard_size=8)
    assert isinstance(writer, ShardedWriter)
    handed = writer.hand_out()
    assert [list(shard.header) for shard in handed] == [["a"], ["b"]]
    for shard in handed:
        arrays = {name: np.full(2, ord(name), "f4") for name in shard.header}
        write(formats()["safetensors"], shard.path, arrays, shard.metadata)
    writer.finish({})
    alone = tmp_path / "alone"
    alone.mkdir()
    shards(alone, {name: np.full(2, ord(name), "f4") for name in "ab"}, 8)
    assert listing(tmp_path).items() >= listing(alone).items()

    handed = created(FORMAT, tmp_path / INDEX, header, shard_size=8)
    path = handed.hand_out()[0].path
    path.write_bytes(b"short")
    with pytest.raises(FileError, match="was changed while it was written"):
        handed.finish({})


def test_an_empty_checkpoint(tmp_path):
    assert shards(tmp_path, {}) == []
    reader = open_checkpoint(tmp_path)
    assert dict(reader.header) == {}
    reader.close()


# --- links, many files, files that change ---------------------------------------------------


def test_a_cache_of_links(tmp_path):
    """As the hub's client lays it out: names are links to blobs elsewhere in the cache."""
    blobs, snapshot = tmp_path / "blobs", tmp_path / "snapshots" / "abc"
    snapshot.mkdir(parents=True)
    shards(snapshot)
    blobs.mkdir()
    for number, path in enumerate(sorted(snapshot.iterdir())):
        path.rename(blobs / f"{number:064x}")
        path.symlink_to(f"../../blobs/{number:064x}")
    reader = open_checkpoint(snapshot)
    assert reader.read("b.weight", 0, 3).tobytes() == ARRAYS["b.weight"].tobytes()
    assert reader.unchanged()
    reader.close()


def test_more_shards_than_files_may_be_open(tmp_path):
    arrays = {f"t{number:04d}": np.full(4, number, "f4") for number in range(300)}
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (len(os.listdir("/proc/self/fd")) + 150, hard))
    try:
        assert len(shards(tmp_path, arrays, 16)) == 300
        reader = open_checkpoint(tmp_path)
        failures = []

        def read(first):
            try:
                for step in range(600):
                    name = f"t{(first + 7 * step) % 300:04d}"
                    assert reader.read(name, 0, 4).tobytes() == arrays[name].tobytes()
            except BaseException as failure:  # noqa: BLE001 - told in the test's own thread
                failures.append(failure)

        threads = [threading.Thread(target=read, args=(each,)) for each in (0, 100, 200, 299)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert failures == []
        assert reader.unchanged()
        reader.close()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.parametrize("name", [INDEX, *PARTS])
@pytest.mark.parametrize("change", ["touched", "swapped", "removed"])
def test_any_file_that_changes_is_noticed(tmp_path, name, change):
    shards(tmp_path)
    reader = open_checkpoint(tmp_path)
    reader.read("b.weight", 0, 1)
    path = tmp_path / name
    if change == "touched":
        os.utime(path, ns=(1, 1))
    elif change == "swapped":
        other = tmp_path / "other"
        other.write_bytes(path.read_bytes())
        other.replace(path)
    else:
        path.unlink()
    assert not reader.unchanged()
    if name == PARTS[1]:  # not opened again before
        with pytest.raises(FileError, match=f"{PARTS[1]} changed while .* was read"):
            reader.read("a.weight", 0, 1)
    reader.close()


def test_planning_reads_headers_only(tmp_path, monkeypatch):
    """Of a checkpoint with holes for data, larger than the disk."""
    weight_map = {}
    for number in range(30):
        name = f"model-{number + 1:05d}-of-00030.safetensors"
        layer = {"dtype": "BF16", "shape": [1 << 16, 1 << 16], "data_offsets": [0, 1 << 33]}
        text = json.dumps({f"layers.{2 * number}.weight": layer}).encode()
        with (tmp_path / name).open("wb") as file:
            file.write(len(text).to_bytes(8, "little") + text)
            file.truncate(8 + len(text) + (1 << 33))
        weight_map[f"layers.{2 * number}.weight"] = name
    (tmp_path / INDEX).write_text(json.dumps({"weight_map": weight_map}))
    written(tmp_path / "spec.yaml", 'steps: [{widen: "layers.0", factor: 2}]')
    read, real = [], os.preadv

    def reading(descriptor, buffers, offset):
        read.append(sum(map(len, buffers)))
        return real(descriptor, buffers, offset)

    monkeypatch.setattr(os, "preadv", reading)
    done = ckgrow("plan", tmp_path, tmp_path / "spec.yaml")
    assert done.exit_code == 0, done.output
    assert sum(read) < 20_000
