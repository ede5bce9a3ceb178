"""Sharded safetensors: what others read and write, damage by name, and many files."""

from __future__ import annotations

import json
import os
import resource
import threading

import ml_dtypes
import numpy as np
import pytest
import safetensors
import safetensors.numpy
import safetensors.torch
from commands import WIDEN, ckgrow, listing, saved, tensors, written
from written_files import created, opened, write

from ckgrow.checkpoint import ShardedWriter
from ckgrow.errors import CheckpointError, CkgrowError, FileError, SpecError
from ckgrow.files import open_checkpoint
from ckgrow.header import Header, TensorSpec
from ckgrow.registry import formats

FORMAT = formats()["sharded"]
INDEX = "model.safetensors.index.json"
PARTS = [f"model-{number:05d}-of-00003.safetensors" for number in (1, 2, 3)]

ARRAYS = {
    "b.weight": np.arange(12, dtype="f4").reshape(3, 4),
    "a.weight": np.arange(4, dtype=ml_dtypes.bfloat16).reshape(2, 2),
    "a.bias": np.array(7, np.int64),
    "empty": np.zeros((0, 5), "f8"),
    "c": np.array([True, False]),
}


def shards(folder, arrays=ARRAYS, size=16, metadata=None):
    write(FORMAT, folder / INDEX, arrays, metadata, shard_size=size)
    return sorted(each.name for each in folder.glob("*.safetensors"))


def index_of(folder):
    return json.loads((folder / INDEX).read_text())


def rewritten(folder, **entries):
    (folder / INDEX).write_text(json.dumps({**index_of(folder), **entries}))


def loaded_as_others_do(folder, load):
    """As transformers and diffusers: the index, then every shard that it names, whole."""
    index = index_of(folder)
    loaded = {}
    for name in sorted(set(index["weight_map"].values())):
        with safetensors.safe_open(folder / name, framework="np") as shard:
            assert shard.metadata().get("format") in ("pt", "tf", "flax", "mlx")
        loaded.update(load(folder / name))
    assert set(loaded) == set(index["weight_map"])
    return loaded


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


# --- what others may have done to it --------------------------------------------------------


def refused(folder, kind, said):
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(kind) as failure:
        open_checkpoint(folder / INDEX)
    assert said in str(failure.value)
    assert "\n" not in str(failure.value)
    assert INDEX in str(failure.value)
    assert len(os.listdir("/proc/self/fd")) == before


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{"metadata": {}', "it is not JSON, or cut short"),
        ('{"weight_map": {}} {}', "it is not JSON"),
        ('{"metadata": \xff}', "it is not JSON"),
        ("[]", "it is no JSON object"),
        ("1", "it is no JSON object"),
        ('{"weight_map": {}, "n": ' + "1" * 5000 + "}", "a damaged one"),
        ('{"metadata": {}}', "it has no weight_map"),
        ('{"weight_map": []}', "it has no weight_map"),
        ('{"weight_map": {}, "metadata": []}', "its metadata is no JSON object"),
        ('{"weight_map": {"a": 1}}', "something that is no name"),
        ('{"weight_map": {"a": "x.safetensors", "a": "x.safetensors"}}', "it names a twice"),
        ('{"weight_map": {"\\ud800": "x.safetensors"}}', "is no valid Unicode"),
        ('{"weight_map": {}, "metadata": {"a": "\\udc00"}}', "is no valid Unicode"),
        ('{"weight_map": ' + "[" * 100_000, "it is not JSON"),
        ('{"weight_map": {"a": "model.bin"}}', "which is no safetensors file"),
        ('{"weight_map": {"a": ""}}', "which is no safetensors file"),
        ('{"weight_map": {"a": ".."}}', "which is no safetensors file"),
        ('{"weight_map": {"a": "\\u001b[31m.safetensors"}}', r"'\x1b[31m.safetensors' beside it"),
        ('{"weight_map": {"a": "../x.safetensors"}}', "named without folders"),
        ('{"weight_map": {"a": "below/x.safetensors"}}', "named without folders"),
        ('{"weight_map": {"a": "/etc/x.safetensors"}}', "named without folders"),
        ('{"weight_map": {"a": "b\\\\x.safetensors"}}', "named without folders"),
        ('{"weight_map": {"a": "b\\u0000x.safetensors"}}', "named without folders"),
        ('{"weight_map": {"a": "' + "n" * 300 + '.safetensors"}}', "which is missing"),
        ('{"weight_map": {"a": "\\ud800.safetensors"}}', "which is missing"),
    ],
)
def test_damaged_index(tmp_path, text, said):
    (tmp_path / INDEX).write_bytes(text.encode("latin-1"))
    refused(tmp_path, CkgrowError, said)


def test_an_index_too_large_to_be_one(tmp_path):
    (tmp_path / INDEX).write_text('{"metadata": {}')
    os.truncate(tmp_path / INDEX, 1 << 40)
    refused(tmp_path, CheckpointError, "an index of shards has at most")


def test_weights_cannot_be_chosen(tmp_path):
    shards(tmp_path)
    with pytest.raises(SpecError, match="holds one set of weights"):
        opened(FORMAT, tmp_path / INDEX, "state_dict")


def test_missing_shard(tmp_path):
    shards(tmp_path)
    (tmp_path / PARTS[1]).unlink()
    refused(tmp_path, FileError, f"needs the file {PARTS[1]} beside it, which is missing")


def test_tensor_that_is_not_in_its_shard(tmp_path):
    shards(tmp_path)
    rewritten(tmp_path, weight_map={**index_of(tmp_path)["weight_map"], "more": PARTS[0]})
    refused(tmp_path, CheckpointError, f"says that tensor more is in {PARTS[0]}, which does not")


def test_tensor_that_the_index_does_not_name(tmp_path):
    shards(tmp_path)
    weight_map = index_of(tmp_path)["weight_map"]
    del weight_map["a.weight"]
    rewritten(tmp_path, weight_map=weight_map)
    refused(tmp_path, CheckpointError, "does not name tensor a.weight, which is in")


def test_tensor_in_two_shards(tmp_path):
    shards(tmp_path)
    held = safetensors.numpy.load_file(tmp_path / PARTS[2])
    safetensors.numpy.save_file({**held, "b.weight": ARRAYS["b.weight"]}, tmp_path / PARTS[2])
    refused(tmp_path, CheckpointError, f"b.weight is in {PARTS[0]}, as the index says, and in")


@pytest.mark.parametrize("length", [0, 4, 60, -1])
def test_shard_cut_short(tmp_path, length):
    shards(tmp_path)
    data = (tmp_path / PARTS[0]).read_bytes()
    (tmp_path / PARTS[0]).write_bytes(data[:length])
    with pytest.raises(CheckpointError, match=PARTS[0]):
        open_checkpoint(tmp_path)


def test_other_indexes_are_told_apart(tmp_path):
    (tmp_path / "pytorch_model.bin.index.json").write_text(
        '{"metadata": {}, "weight_map": {"a": "pytorch_model-00001-of-00001.bin"}}'
    )
    with pytest.raises(CheckpointError, match="save the checkpoint again as safetensors"):
        open_checkpoint(tmp_path / "pytorch_model.bin.index.json")


@pytest.mark.parametrize(
    "text",
    ['{"weight_map":{"a":"x"}}', '{\n    "metadata": {}, "weight_map": {}}', ' {"weight_map": 1}'],
)
def test_recognised_whatever_it_is_called(text):
    assert FORMAT.recognises(None, text.encode()[:16])
    assert not FORMAT.recognises(None, b'{"tensors": {}}')
    assert not FORMAT.recognises(None, b"{")


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


def test_a_link_out_of_the_folder_is_refused(tmp_path):
    elsewhere, folder = tmp_path / "elsewhere", tmp_path / "folder"
    elsewhere.mkdir()
    folder.mkdir()
    shards(folder)
    (folder / PARTS[0]).rename(elsewhere / PARTS[0])
    (folder / PARTS[0]).symlink_to(elsewhere / PARTS[0])
    refused(folder, CheckpointError, "a link that leads out of its folder")


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


# --- as students and teachers ---------------------------------------------------------------


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
