"""Writing safetensors: what the library reads back, the layout, and a disk that is full."""

from __future__ import annotations

import errno
import json
import os
import resource
import stat
import threading

import ml_dtypes
import numpy as np
import pytest
import safetensors
import safetensors.torch
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from written_files import created, opened, write

from ckgrow.errors import CheckpointError, FileError
from ckgrow.header import Header, TensorSpec, numpy_dtype
from ckgrow.registry import formats

FORMAT = formats()["safetensors"]
DTYPES = ["float32", "bfloat16", "float64", "float16", "float8_e4m3fn", "float8_e5m2"]
DTYPES += ["int64", "int8", "uint8", "bool"]


def random_bits(spec: TensorSpec, rng: np.random.Generator) -> np.ndarray:
    top = 2 if spec.dtype == "bool" else 256
    data = rng.integers(0, top, spec.nbytes, dtype=np.uint8)
    return data.view(numpy_dtype(spec.dtype)).reshape(spec.shape)


def written(path, tensors, metadata=None):
    write(FORMAT, path, tensors, metadata)


def header_text(path) -> bytes:
    content = path.read_bytes()
    return content[8 : 8 + int.from_bytes(content[:8], "little")]


@pytest.fixture(scope="module")
def scratch(tmp_path_factory):
    return tmp_path_factory.mktemp("written") / "a.safetensors"


specs = st.builds(
    TensorSpec, st.sampled_from(DTYPES), st.lists(st.integers(0, 4), max_size=4).map(tuple)
)


@settings(max_examples=80, deadline=None)
@given(
    header=st.dictionaries(st.text(max_size=5), specs, max_size=6).filter(
        lambda each: "__metadata__" not in each
    ),
    metadata=st.dictionaries(st.text(max_size=4), st.text(max_size=4), max_size=3),
)
def test_the_library_reads_what_was_written(header, metadata, scratch):
    rng = np.random.default_rng(0)
    tensors = {name: random_bits(spec, rng) for name, spec in header.items()}
    written(scratch, tensors, metadata)
    read = dict(safetensors.deserialize(scratch.read_bytes()))
    assert {name: (info["shape"], bytes(info["data"])) for name, info in read.items()} == {
        name: (list(each.shape), each.tobytes()) for name, each in tensors.items()
    }
    with safetensors.safe_open(scratch, "pt") as library:
        assert (library.metadata() or {}) == metadata
    reader = opened(FORMAT, scratch, None)
    assert list(reader.header.items()) == list(header.items())
    for name, spec in header.items():
        assert reader.read(name, 0, (spec.shape or (1,))[0]).tobytes() == tensors[name].tobytes()
    reader.close()


def test_torch_loads_it(tmp_path):
    path = tmp_path / "a.safetensors"
    weight = np.arange(6).reshape(2, 3).astype(ml_dtypes.bfloat16)
    written(path, {"w": weight, "n": np.array(7)})
    loaded = safetensors.torch.load_file(path)
    assert loaded["w"].dtype == torch.bfloat16
    assert loaded["w"].tolist() == [[0, 1, 2], [3, 4, 5]]
    assert loaded["n"].item() == 7


def test_layout(tmp_path):
    """Named in the header's order, metadata first, every element aligned to its size."""
    path = tmp_path / "a.safetensors"
    tensors = {
        "flag": np.ones(3, np.bool_),
        "z": np.ones((1, 3), np.float32),
        "half": np.ones(5, np.float16),
        "count": np.array(1),
        "a": np.ones(1, np.float32),
    }
    written(path, tensors, {"note": "n"})
    text = header_text(path)
    assert text.startswith(b'{"__metadata__":{"note":"n"},"flag":{"dtype":"BOOL","shape":[3],')
    assert len(text) % 8 == 0
    header = json.loads(text)
    assert list(header) == ["__metadata__", *tensors]
    begins = {name: header[name]["data_offsets"][0] for name in tensors}
    assert begins == {"count": 0, "z": 8, "a": 20, "half": 24, "flag": 34}
    assert path.stat().st_size == 8 + len(text) + 37


def test_same_bytes_whatever_the_order_of_writing(tmp_path):
    values = np.arange(1000, dtype=np.float32).reshape(100, 10)
    header = Header({"w": TensorSpec("float32", (100, 10)), "b": TensorSpec("int64", ())})
    contents = []
    for step, order in [(7, 1), (33, -1)]:
        path = tmp_path / f"{step}.safetensors"
        writer = created(FORMAT, path, header, {"k": "v"})
        writer.write("b", 0, np.array([5]))
        threads = [
            threading.Thread(target=writer.write, args=("w", at, values[at : at + step]))
            for at in range(0, 100, step)[::order]
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        writer.finish({})
        contents.append(path.read_bytes())
    assert contents[0] == contents[1]
    assert (safetensors.torch.load(contents[0])["w"].numpy() == values).all()


def test_rows_in_any_memory_layout(tmp_path):
    path = tmp_path / "a.safetensors"
    values = np.arange(12, dtype=np.float32).reshape(3, 4)
    header = Header({"w": TensorSpec("float32", (4, 3))})
    writer = created(FORMAT, path, header, {})
    writer.write("w", 0, values.T)
    writer.finish({})
    assert (safetensors.torch.load_file(path)["w"].numpy() == values.T).all()


def test_writes_that_go_in_pieces(tmp_path, monkeypatch):
    whole = os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda fd, data, at: whole(fd, data[:3], at))
    written(tmp_path / "a.safetensors", {"w": np.arange(4.0)})
    assert safetensors.torch.load_file(tmp_path / "a.safetensors")["w"].tolist() == [0, 1, 2, 3]


def test_finishing_reaches_the_disk(tmp_path, monkeypatch):
    def fail(descriptor):
        raise OSError(errno.EIO, "Input/output error")

    writer = created(FORMAT, tmp_path / "a.safetensors", Header({}), {})
    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(FileError, match="Input/output error"):
        writer.finish({})
    writer.abandon()


def test_placeholder_is_replaced_in_place(tmp_path):
    path = tmp_path / "a.safetensors"
    blank = "#" * 64
    provenance = json.dumps({"student": blank, "quoted": '"'})
    writer = created(FORMAT, path, Header({"w": TensorSpec("uint8", (1,))}), {"ckgrow": provenance})
    writer.write("w", 0, np.ones(1, np.uint8))
    writer.finish({blank: "ab" * 32})
    with safetensors.safe_open(path, "pt") as library:
        assert json.loads(library.metadata()["ckgrow"]) == {"student": "ab" * 32, "quoted": '"'}


@pytest.mark.parametrize(
    ("placeholder", "text"),
    [("####", "abc"), ("absent", "absent"), ("twice", "TWICE"), ("####", 'a"b"'), ("####", "ééé")],
)
def test_replacements_that_do_not_fit(tmp_path, placeholder, text):
    path = tmp_path / "a.safetensors"
    writer = created(FORMAT, path, Header({}), {"a": "####", "b": "twice twice"})
    with pytest.raises(ValueError, match=r"replaced|escape"):
        writer.finish({placeholder: text})
    writer.abandon()


def test_rows_that_do_not_fit_are_refused(tmp_path):
    header = Header({"w": TensorSpec("float32", (4, 3)), "n": TensorSpec("int64", ())})
    writer = created(FORMAT, tmp_path / "a.safetensors", header, {})
    for rows in [
        np.ones((5, 3), np.float32),
        np.ones((1, 4), np.float32),
        np.ones((1, 3), np.float64),
        np.ones((1, 3), ">f4"),
    ]:
        with pytest.raises(ValueError, match="rows"):
            writer.write("w", 0, rows)
    with pytest.raises(ValueError, match="rows"):
        writer.write("n", 0, np.array([1, 2]))
    with pytest.raises(ValueError, match="not written"):
        writer.finish({})
    writer.abandon()


def test_mode_follows_the_umask(tmp_path):
    path = tmp_path / "a.safetensors"
    before = os.umask(0o027)
    try:
        written(path, {"w": np.ones(1)})
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o640


def test_an_existing_longer_file_is_overwritten(tmp_path):
    path = tmp_path / "a.safetensors"
    path.write_bytes(b"x" * 10_000)
    written(path, {"w": np.ones(1)})
    assert safetensors.torch.load_file(path)["w"].tolist() == [1]


def test_what_the_format_cannot_hold(tmp_path):
    path = tmp_path / "a.safetensors"
    for name, dtype, words in [
        ("__metadata__", "float32", "cannot hold a tensor called"),
        ("w", "complex128", "dtype complex128"),
        ("\ud800", "float32", "no valid Unicode"),
    ]:
        with pytest.raises(CheckpointError, match=words):
            created(FORMAT, path, Header({name: TensorSpec(dtype, (1,))}), {})
    with pytest.raises(CheckpointError, match="header"):
        created(FORMAT, path, Header({}), {"big": "x" * 100_000_000})
    assert not path.exists()


def test_paths_that_cannot_be_written(tmp_path):
    for path, words in [
        (tmp_path, "is a directory"),
        (tmp_path / "absent" / "a.safetensors", "folder does not exist"),
        ("/dev/null", "pipe or device"),
    ]:
        with pytest.raises(FileError, match=words):
            created(FORMAT, path, Header({}), {})


@pytest.fixture
def largest_file():
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, hard))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.usefixtures("largest_file")
def test_no_room_shows_before_anything_is_computed(tmp_path):
    path = tmp_path / "a.safetensors"
    with pytest.raises(FileError, match="larger than"):
        created(FORMAT, path, Header({"w": TensorSpec("float32", (1_000_000,))}), {})
    assert path.stat().st_size == 0


@pytest.mark.parametrize(
    ("number", "words"), [(errno.ENOSPC, "disk is full"), (errno.EDQUOT, "quota"), (errno.EIO, "I")]
)
def test_a_full_disk_gives_its_space_back(tmp_path, monkeypatch, number, words):
    def full(descriptor, offset, size):
        os.ftruncate(descriptor, size // 2)
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "posix_fallocate", full)
    path = tmp_path / "a.safetensors"
    with pytest.raises(FileError, match=words):
        created(FORMAT, path, Header({"w": TensorSpec("float32", (1000,))}), {})
    assert path.stat().st_size == 0


def test_a_file_system_that_cannot_reserve(tmp_path, monkeypatch):
    def unsupported(descriptor, offset, size):
        raise OSError(errno.EOPNOTSUPP, "unsupported")

    monkeypatch.setattr(os, "posix_fallocate", unsupported)
    written(tmp_path / "a.safetensors", {"w": np.ones(3)})
    assert safetensors.torch.load_file(tmp_path / "a.safetensors")["w"].tolist() == [1, 1, 1]


def test_abandoning_twice_is_harmless(tmp_path):
    writer = created(FORMAT, tmp_path / "a.safetensors", Header({}), {})
    writer.abandon()
    writer.abandon()
