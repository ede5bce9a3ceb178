"""Writing npz files: numpy itself is the judge, and writes the same bytes."""

from __future__ import annotations

import errno
import json
import os
import random
import resource
import stat
import subprocess
import threading
import zipfile
import zlib
from itertools import pairwise

import ml_dtypes
import numpy as np
import pytest
from ckgrow.adapters.formats._checksums import Pieces
from ckgrow.adapters.formats._npz_layout import compose
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from written_files import Here, created, opened, write

from ckgrow.checkpoint import Content
from ckgrow.errors import CheckpointError, FileError
from ckgrow.header import Header, TensorSpec, numpy_dtype
from ckgrow.registry import formats

FORMAT = formats()["npz"]
DTYPES = ["f8", "f4", "f2", "c8", "i8", "i4", "i2", "i1", "u8", "u4", "u2", "u1", "?"]


def side_file(path) -> dict:
    return json.loads(path.with_name(path.name + ".ckgrow.json").read_text())


@pytest.fixture(scope="module")
def scratch(tmp_path_factory):
    return tmp_path_factory.mktemp("written")


values = st.sampled_from(DTYPES).flatmap(
    lambda dtype: arrays.arrays(dtype, arrays.array_shapes(min_dims=0, max_dims=5, min_side=0))
)
names = st.text("ab./é\n", max_size=6).filter(lambda each: ".." not in each and each[:1] != "/")


def require_as_numpy(ours, theirs):
    """The same bytes; older versions of zipfile write the sizes of a member that may need 64 bits
    twice, and then the length and the members are the same.
    """
    if theirs.read_bytes()[4:5] in (b"", bytes([zipfile.ZIP64_VERSION])):
        assert ours.read_bytes() == theirs.read_bytes()
        return
    assert ours.stat().st_size == theirs.stat().st_size
    with zipfile.ZipFile(ours) as one, zipfile.ZipFile(theirs) as other:
        assert one.namelist() == other.namelist()
        assert all(one.read(name) == other.read(name) for name in one.namelist())


@given(tensors=st.dictionaries(names, values, max_size=5))
def test_numpy_writes_the_same_bytes(tensors, scratch):
    ours, theirs = scratch / "ours.npz", scratch / "theirs.npz"
    write(FORMAT, ours, tensors)
    np.savez(theirs, **tensors)
    require_as_numpy(ours, theirs)
    assert sorted(os.listdir(scratch)) == ["ours.npz", "theirs.npz"]
    with np.load(ours, allow_pickle=False) as found:
        assert found.files == list(tensors)
        for name, each in tensors.items():
            assert found[name].dtype == each.dtype
            assert found[name].tobytes() == each.tobytes()


def test_unzip_accepts_it(tmp_path):
    path = tmp_path / "a.npz"
    write(FORMAT, path, {"w": np.arange(100_000.0).reshape(10, -1), "n": np.array(7)})
    assert zipfile.ZipFile(path).testzip() is None
    done = subprocess.run(["unzip", "-t", path], capture_output=True, text=True, check=False)
    assert done.returncode == 0
    assert "No errors detected" in done.stdout


def test_dtypes_that_numpy_lacks(tmp_path):
    path = tmp_path / "a.npz"
    tensors = {
        "brain": np.array([1, -0.0, np.nan], ml_dtypes.bfloat16),
        "w": np.ones(2),
        **{
            name: np.arange(256, dtype="u1").view(numpy_dtype(name)).reshape(16, 16)
            for name in ("float8_e4m3fn", "float8_e5m2", "float8_e8m0fnu")
        },
    }
    write(FORMAT, path, tensors)
    assert side_file(path) == {
        "schema": "ckgrow.side/1",
        "metadata": {},
        "dtypes": {name: each.dtype.name for name, each in tensors.items() if name != "w"},
    }
    with np.load(path, allow_pickle=False) as found:
        assert {name: found[name].dtype.name for name in found.files} == {
            "brain": "uint16",
            "w": "float64",
            "float8_e4m3fn": "uint8",
            "float8_e5m2": "uint8",
            "float8_e8m0fnu": "uint8",
        }
        assert all(found[name].tobytes() == each.tobytes() for name, each in tensors.items())
    reader = opened(FORMAT, path)
    for name, each in tensors.items():
        assert reader.read(name, 0, len(each)).dtype == each.dtype
        assert reader.read(name, 0, len(each)).tobytes() == each.tobytes()
    reader.close()


def test_metadata_stand_in_the_side_file(tmp_path):
    path = tmp_path / "a.npz"
    blank = "#" * 64
    record = json.dumps({"student": blank, "quoted": '"'})
    writer = created(FORMAT, path, Header({}), {"ckgrow": record, "format": "pt"})
    writer.finish({blank: "ab" * 32})
    assert json.loads(side_file(path)["metadata"]["ckgrow"])["student"] == "ab" * 32
    reader = opened(FORMAT, path)
    assert reader.contents.metadata == {"ckgrow": record.replace(blank, "ab" * 32), "format": "pt"}
    reader.close()


@pytest.mark.parametrize(
    ("placeholder", "text"), [("####", "abc"), ("absent", "absent"), ("twice", "TWICE")]
)
def test_replacements_that_do_not_fit(tmp_path, placeholder, text):
    writer = created(FORMAT, tmp_path / "a.npz", Header({}), {"a": "####", "b": "twice twice"})
    with pytest.raises(ValueError, match="replaced"):
        writer.finish({placeholder: text})
    writer.abandon()


def test_an_old_side_file_is_not_taken_for_the_new(tmp_path):
    path = tmp_path / "a.npz"
    write(FORMAT, path, {"w": np.ones(2, ml_dtypes.bfloat16)}, {"note": "old"})
    write(FORMAT, path, {"w": np.ones(2, "u2")})
    reader = opened(FORMAT, path)
    assert reader.header["w"].dtype == "uint16"
    assert reader.contents.metadata == {}
    reader.close()


def test_same_bytes_whatever_the_order_of_writing(tmp_path):
    expected = np.random.default_rng(0).normal(size=(100, 10)).astype("f4")
    np.savez(tmp_path / "expected.npz", w=expected, b=np.array(5))
    header = Header({"w": TensorSpec("float32", (100, 10)), "b": TensorSpec("int64", ())})
    for step, order in [(7, 1), (33, -1), (1, 3), (100, 1)]:
        path = tmp_path / f"{step}.npz"
        writer = created(FORMAT, path, header)
        starts = range(0, 100, step)
        starts = [*starts[1::2], *starts[::2]] if order == 3 else starts[::order]
        threads = [
            threading.Thread(target=writer.write, args=("w", at, expected[at : at + step]))
            for at in starts
        ]
        for thread in threads:
            thread.start()
        writer.write("b", 0, np.array([5]))
        for thread in threads:
            thread.join()
        writer.finish({})
        require_as_numpy(path, tmp_path / "expected.npz")


def test_checksums_of_pieces(amount):
    chance = random.Random(0)
    data = chance.randbytes(5000)
    for _ in range(amount(50, 2000)):
        cuts = [0, *sorted(chance.sample(range(1, 5000), chance.randrange(30))), 5000]
        pieces = list(pairwise(cuts))
        chance.shuffle(pieces)
        known = Pieces()
        for begin, end in pieces:
            assert known.whole(5000) is None
            known.add(begin, end - begin, zlib.crc32(data[begin:end]))
        assert known.whole(5000) == zlib.crc32(data)
        assert known.whole(5001) is None


def test_rows_that_are_missing_or_do_not_fit(tmp_path):
    header = Header({"w": TensorSpec("float32", (4, 3)), "n": TensorSpec("int64", ())})
    writer = created(FORMAT, tmp_path / "a.npz", header)
    for rows in [np.ones((5, 3), "f4"), np.ones((1, 4), "f4"), np.ones((1, 3)), np.ones(1, "f4")]:
        with pytest.raises(ValueError, match="rows"):
            writer.write("w", 0, rows)
    writer.write("n", 0, np.array([1]))
    writer.write("w", 0, np.ones((2, 3), "f4"))
    with pytest.raises(ValueError, match="rows of 'w' were not written"):
        writer.finish({})
    writer.write("w", 1, np.ones((3, 3), "f4"))
    with pytest.raises(ValueError, match="or some twice"):
        writer.finish({})
    writer.abandon()
    writer.abandon()


@pytest.mark.parametrize(
    ("name", "dtype", "words"),
    [
        ("a\0b", "float32", r"cannot hold a tensor called 'a\\x00b'.*no NUL"),
        ("x" * 65_532, "float32", "at most 65531 bytes"),
        ("é" * 32_766, "float32", "at most 65531 bytes"),
        ("../../etc/passwd", "float32", "outside of the folder"),
        ("a/../../b", "float32", "outside of the folder"),
        ("..\\b", "float32", "outside of the folder"),
        ("/etc/passwd", "float32", "outside of the folder"),
        ("C:/windows", "float32", "outside of the folder"),
        ("\ud800", "float32", "no valid Unicode"),
        ("w", "float128", "npz cannot hold tensor w of dtype float128"),
        ("w", "int4", "npz cannot hold tensor w of dtype int4"),
    ],
)
def test_what_the_format_cannot_hold(tmp_path, name, dtype, words):
    with pytest.raises(CheckpointError, match=words):
        created(FORMAT, tmp_path / "a.npz", Header({name: TensorSpec(dtype, (1,))}))
    assert list(tmp_path.iterdir()) == []


def test_the_longest_name(tmp_path):
    path = tmp_path / "a.npz"
    tensors = {"x" * 65_531: np.ones(1), "..": np.zeros(1), "a/..b": np.ones(2)}
    write(FORMAT, path, tensors)
    with np.load(path) as found:
        assert found.files == list(tensors)
    reader = opened(FORMAT, path)
    assert list(reader.header) == list(tensors)
    reader.close()


def test_more_than_four_gigabytes(tmp_path):
    """All but the tensors' bytes, which are holes in the file."""
    path = tmp_path / "a.npz"
    specs = {
        "large": TensorSpec("float32", (3 << 28, 2)),
        "behind": TensorSpec("uint8", (3 << 30,)),
        "last": TensorSpec("uint8", (3,)),
    }
    layout = compose(Header(specs), "a.npz")
    last = zlib.crc32(layout.heads["last"] + b"abc")
    with path.open("wb") as stream:
        stream.truncate(layout.size)
        for offset, text in layout.closing({"large": 1, "behind": 2, "last": last}):
            stream.seek(offset)
            stream.write(text)
        stream.seek(layout.offsets["last"])
        stream.write(b"abc")
        stream.seek(layout.offsets["behind"] + 7)
        stream.write(b"\x05")
    assert path.stat().st_size == layout.size > 9 << 30
    with zipfile.ZipFile(path) as archive:
        assert [each.file_size for each in archive.infolist()] == [
            (6 << 30) + 128,
            (3 << 30) + 128,
            131,
        ]
        assert archive.read("last.npy")[-3:] == b"abc"
        with archive.open("large.npy") as member:
            assert np.lib.format.read_magic(member) == (1, 0)
            assert np.lib.format.read_array_header_1_0(member)[0] == (3 << 28, 2)
    reader = opened(FORMAT, path)
    assert dict(reader.header) == specs
    assert reader.read("last", 0, 3).tobytes() == b"abc"
    assert reader.read("behind", 6, 9).tolist() == [0, 5, 0]
    assert reader.read("large", (3 << 28) - 1, 3 << 28).tolist() == [[0, 0]]
    reader.close()


def test_more_members_than_16_bits_count(tmp_path):
    path = tmp_path / "a.npz"
    names = [str(number) for number in range(66_000)]
    writer = created(FORMAT, path, Header(dict.fromkeys(names, TensorSpec("uint8", (1,)))))
    for name in names:
        writer.write(name, 0, np.ones(1, "u1"))
    writer.finish({})
    with zipfile.ZipFile(path) as archive:
        assert len(archive.namelist()) == 66_000
    with np.load(path) as found:
        assert found["65999"].tolist() == [1]


def test_mode_follows_the_umask(tmp_path):
    path = tmp_path / "a.npz"
    before = os.umask(0o027)
    try:
        write(FORMAT, path, {"w": np.ones(1)}, {"note": "n"})
    finally:
        os.umask(before)
    for each in tmp_path.iterdir():
        assert stat.S_IMODE(each.stat().st_mode) == 0o640


def test_an_existing_longer_file_is_overwritten(tmp_path):
    path = tmp_path / "a.npz"
    path.write_bytes(b"x" * 10_000)
    write(FORMAT, path, {"w": np.ones(1)})
    with np.load(path) as found:
        assert found["w"].tolist() == [1]


def test_paths_that_cannot_be_written(tmp_path):
    for path, words in [
        (tmp_path, "is a directory"),
        (tmp_path / "absent" / "a.npz", "folder does not exist"),
        ("/dev/null", "pipe or device"),
    ]:
        with pytest.raises(FileError, match=words):
            created(FORMAT, path, Header({}))


@pytest.fixture
def largest_file():
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.usefixtures("largest_file")
def test_no_room_shows_before_anything_is_computed(tmp_path):
    path = tmp_path / "a.npz"
    with pytest.raises(FileError, match="larger than"):
        created(FORMAT, path, Header({"w": TensorSpec("float32", (1_000_000,))}))
    assert path.stat().st_size == 0


@pytest.mark.usefixtures("largest_file")
def test_no_room_for_the_side_file(tmp_path):
    writer = created(FORMAT, tmp_path / "a.npz", Header({}), {"note": "x" * 1_000_000})
    with pytest.raises(FileError, match="json cannot be written: the file is larger than"):
        writer.finish({})
    writer.abandon()


def test_a_full_disk_gives_its_space_back(tmp_path, monkeypatch):
    def full(descriptor, offset, size):
        os.ftruncate(descriptor, size // 2)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "posix_fallocate", full)
    path = tmp_path / "a.npz"
    with pytest.raises(FileError, match="disk is full"):
        created(FORMAT, path, Header({"w": TensorSpec("float32", (1000,))}))
    assert path.stat().st_size == 0


def test_finishing_reaches_the_disk(tmp_path, monkeypatch):
    flushed = []
    whole = os.fsync

    def recorded(descriptor):
        flushed.append(os.readlink(f"/proc/self/fd/{descriptor}"))
        whole(descriptor)

    monkeypatch.setattr(os, "fsync", recorded)
    write(FORMAT, tmp_path / "a.npz", {"w": np.ones(1)}, {"note": "n"})
    assert sorted(flushed) == [str(tmp_path / "a.npz"), str(tmp_path / "a.npz.ckgrow.json")]


def test_the_part_has_another_name(tmp_path):
    """The side file is called as the file will be, whatever the part is called."""

    class Part(Here):
        name = "student.npz"

    FORMAT.create(Part(tmp_path / "part"), Content(Header({}), {"note": "n"})).finish({})
    assert sorted(os.listdir(tmp_path)) == ["part", "student.npz.ckgrow.json"]
