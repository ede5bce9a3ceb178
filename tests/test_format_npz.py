"""Reading npz files: what numpy saves, in all its forms, and what nobody should have saved."""

from __future__ import annotations

import io
import struct
import tracemalloc
import zipfile

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from written_files import opened

from ckgrow.errors import CheckpointError, FileError, SpecError
from ckgrow.files import RegularFile, open_checkpoint
from ckgrow.registry import formats

FORMAT = formats()["npz"]


class Counting(RegularFile):
    """A file that counts the bytes that are read."""

    count = 0

    def read_into(self, buffer, offset):
        self.count += len(buffer)
        super().read_into(buffer, offset)


def contents(path) -> dict[str, np.ndarray]:
    """Every tensor, read whole."""
    reader = opened(FORMAT, path)
    try:
        return {
            name: reader.read(name, 0, (spec.shape or (1,))[0]).reshape(spec.shape)
            for name, spec in reader.header.items()
        }
    finally:
        reader.close()


def require_same(found, expected):
    assert list(found) == list(expected)
    for name, each in expected.items():
        native = each.astype(each.dtype.newbyteorder("="))
        assert (found[name].dtype, found[name].shape) == (native.dtype, each.shape)
        assert found[name].tobytes() == native.tobytes()


def refused(path, words, error=CheckpointError):
    with pytest.raises(error, match=words) as caught:
        contents(path)
    assert "\n" not in str(caught.value)


def archive(path, entries, method=zipfile.ZIP_STORED):
    """An archive of these bytes by name, as Python's library writes it."""
    with zipfile.ZipFile(path, "w", method) as target:
        for name, data in entries:
            target.writestr(name, data)


def saved(array, **more) -> bytes:
    """As numpy.save writes it."""
    stream = io.BytesIO()
    np.save(stream, array, **more)
    return stream.getvalue()


@pytest.fixture(scope="module")
def scratch(tmp_path_factory):
    return tmp_path_factory.mktemp("npz") / "a.npz"


numbers = st.sampled_from(
    ["f8", ">f4", "f2", "i8", ">i4", "i2", "i1", ">u8", "u4", "u2", "u1", "?"]
)
values = st.one_of(numbers, st.sampled_from(["c8", ">c8", "c16"])).flatmap(
    lambda dtype: arrays.arrays(dtype, arrays.array_shapes(min_dims=0, max_dims=5, min_side=0))
)
names = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=6)


@given(
    tensors=st.dictionaries(names, values, max_size=5),
    columns=st.booleans(),
    save=st.sampled_from([np.savez, np.savez_compressed]),
)
def test_what_numpy_saves(tensors, columns, save, scratch):
    if columns:
        tensors = {name: np.asarray(each, order="F") for name, each in tensors.items()}
    tensors.pop("file", None)  # the name of numpy's own argument
    save(scratch, **tensors)
    require_same(contents(scratch), tensors)


def test_rows_are_read_where_they_stand(tmp_path):
    path = tmp_path / "a.npz"
    weight = np.arange(2_000_000, dtype=np.float32).reshape(1000, 2000)
    np.savez(path, w=weight, big_endian=weight.astype(">f4"))
    file = Counting(path)
    reader = FORMAT.open(file, None)
    before = file.count
    assert before < 100_000  # the end, where the directory is, and headers
    for name in ("w", "big_endian"):
        assert (reader.read(name, 500, 502) == weight[500:502]).all()
    assert file.count - before == 4 * 2 * 2000 * 2
    span = reader.span("w")
    assert span.path == path
    assert path.read_bytes()[span.offset : span.offset + span.size] == weight.tobytes()
    assert reader.span("big_endian") is None
    reader.close()


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_what_is_unpacked_is_unpacked_once(tmp_path, save):
    path = tmp_path / "a.npz"
    weight = np.random.default_rng(0).normal(size=(300, 200))
    save(path, w=np.asfortranarray(weight), s=np.array(7))
    file = Counting(path)
    reader = FORMAT.open(file, None)
    before = file.count
    rows = [reader.read("w", start, start + 10) for start in range(0, 300, 10)]
    assert (np.concatenate(rows) == weight).all()
    assert file.count - before <= weight.nbytes + 500
    assert reader.span("w") is None
    assert rows[0].flags.writeable
    assert rows[0].flags.c_contiguous
    assert reader.read("s", 0, 1).tolist() == [7]
    reader.close()


def test_dtypes_of_the_side_file(tmp_path):
    path = tmp_path / "a.npz"
    brain = np.array([1.5, -0.0, np.nan], ml_dtypes.bfloat16)
    eight = np.array([[1, 2]], ml_dtypes.float8_e4m3fn)
    np.savez(path, brain=brain.view("u2"), eight=eight.view("u1"), plain=np.ones(2, "u2"))
    assert contents(path)["brain"].dtype == np.uint16
    side = tmp_path / "a.npz.ckgrow.json"
    side.write_text(
        '{"schema": "ckgrow.side/1", "metadata": {"note": "n"},'
        ' "dtypes": {"brain": "bfloat16", "eight": "float8_e4m3fn"}}'
    )
    require_same(contents(path), {"brain": brain, "eight": eight, "plain": np.ones(2, "u2")})
    reader = opened(FORMAT, path)
    assert reader.contents.metadata == {"note": "n"}
    reader.close()


@pytest.mark.parametrize(
    ("dtypes", "words"),
    [
        ('{"w": "bfloat16"}', "does not belong to .*it says bfloat16 of w, a float32"),
        ('{"n": "float8_e5m2"}', "it says float8_e5m2 of n, a uint16"),
        ('{"n": "float16"}', "it says float16 of n"),
        ('{"n": "\\u001b[2J"}', r"it says '\\x1b"),
        ('{"x": "bfloat16"}', "it names a tensor x, which is not there"),
    ],
)
def test_side_files_of_other_files(tmp_path, dtypes, words):
    path = tmp_path / "a.npz"
    np.savez(path, w=np.ones(2, "f4"), n=np.ones(2, "u2"))
    text = f'{{"schema": "ckgrow.side/1", "metadata": {{}}, "dtypes": {dtypes}}}'
    (tmp_path / "a.npz.ckgrow.json").write_text(text)
    refused(path, words)


def test_damaged_side_files(tmp_path):
    path = tmp_path / "a.npz"
    np.savez(path, w=np.ones(2, "f4"))
    for text in ["", "[]", '{"schema": "ckgrow.side/2"}', "[" * 40_000, "1" * 5000]:
        (tmp_path / "a.npz.ckgrow.json").write_text(text)
        refused(path, "a.npz.ckgrow.json is damaged")


def test_objects_are_never_unpickled(tmp_path):
    path = tmp_path / "a.npz"
    np.savez(path, w=np.array([print, "x"], object), allow_pickle=True)
    refused(path, "tensor w holds Python objects")


@pytest.mark.parametrize(
    ("array", "words"),
    [
        (np.array(["text"]), "tensor w has dtype '<U4'"),
        (np.array([b"text"]), r"dtype '\|S4'"),
        (np.zeros(2, "M8[s]"), "dtype '<M8\\[s\\]'"),
        (np.zeros(2, "i4,f4"), "which ckgrow cannot read"),
        (np.zeros(2, ml_dtypes.bfloat16), r"dtype '\|V2', which ckgrow cannot read; .*side file"),
        (np.zeros(2, np.longdouble), "which ckgrow cannot read"),
    ],
)
def test_dtypes_that_are_no_tensors(tmp_path, array, words):
    np.savez(tmp_path / "a.npz", w=array)
    refused(tmp_path / "a.npz", words)


HEAD = "{'descr': '<f4', 'fortran_order': False, 'shape': (3,), }\n"


def headed(text: str, data: bytes = bytes(12), version: int = 1) -> bytes:
    length = struct.pack("<H" if version == 1 else "<I", len(text))
    return b"\x93NUMPY" + bytes([version, 0]) + length + text.encode() + data


@pytest.mark.parametrize("version", [1, 2, 3])
def test_versions_of_headers(tmp_path, version):
    data = np.array([1, 2, 3], "f4")
    archive(tmp_path / "a.npz", [("w.npy", headed(HEAD, data.tobytes(), version))])
    require_same(contents(tmp_path / "a.npz"), {"w": data})


def test_headers_that_python_2_wrote(tmp_path):
    text = "{'descr': '<f4', 'fortran_order': False, 'shape': (3L, ), }\n"
    archive(tmp_path / "a.npz", [("w.npy", headed(text))])
    require_same(contents(tmp_path / "a.npz"), {"w": np.zeros(3, "f4")})


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "is no numpy array"),
        (b"\x93NUMPY", "is no numpy array"),
        (b"no array at all", "is no numpy array"),
        (headed(HEAD, version=4), "is no numpy array"),
        (headed(HEAD)[:40], "is no numpy array"),
        (headed(HEAD.replace("(3,)", "__import__('os').abort()")), "is no numpy array"),
        (headed("(" * 9000), "is no numpy array"),
        (headed("{" * 9000), "is no numpy array"),
        (headed(HEAD[:-1] + " " * 60_000 + "\n"), "is no numpy array"),
        (headed(HEAD.replace("3,", "2**40,")), "is no numpy array"),
        (headed(HEAD.replace("3,", "3.0,")), "is no numpy array"),
        (headed(HEAD.replace("3,", "4,")), "has 12 bytes, but its shape and dtype need 16"),
        (headed(HEAD.replace("3,", "2,")), "has 12 bytes, but its shape and dtype need 8"),
        (headed(HEAD.replace("3,", "-3,")), "negative size"),
        (headed(HEAD.replace("3,", "-3, -1")), "negative size"),
        (headed(HEAD.replace("3,", f"{2**62},")), "need 18446744073709551616"),
        (headed(HEAD.replace("3,", f"0, {2**62}"), b""), "too large for any machine"),
        (headed(HEAD.replace("3,", "1," * 65), b"1234"), "65 dimensions"),
    ],
)
def test_headers_that_lie(tmp_path, data, words):
    for method in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        archive(tmp_path / "a.npz", [("w.npy", data)], method)
        refused(tmp_path / "a.npz", words)


def test_members_that_are_no_arrays(tmp_path):
    path = tmp_path / "a.npz"
    archive(path, [("w.npy", saved(np.ones(2))), ("../\x1b[2Jreadme", b"text")])
    refused(path, r"holds '\.\./\\x1b\[2Jreadme', which is no array")


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_names_that_stand_twice(tmp_path):
    path = tmp_path / "a.npz"
    archive(path, [("w.npy", saved(np.ones(2))), ("w.npy", saved(np.zeros(2)))])
    refused(path, "is ambiguous: it holds w.npy twice")


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_other_compressions(tmp_path, method):
    archive(tmp_path / "a.npz", [("w.npy", saved(np.ones(2)))], method)
    refused(tmp_path / "a.npz", "compressed by method")


def test_an_archive_that_explodes(tmp_path):
    path = tmp_path / "a.npz"
    np.savez_compressed(path, w=np.zeros(200_000_000, np.uint8))
    assert path.stat().st_size < 200_000
    tracemalloc.start()
    refused(path, "expands from 19.* to 20")
    assert tracemalloc.get_traced_memory()[1] < 10_000_000
    tracemalloc.stop()


def test_a_member_that_unpacks_to_more_than_it_says(tmp_path):
    """No more is unpacked than that."""
    path = tmp_path / "a.npz"
    honest = saved(np.zeros(1000, "u1"))
    archive(path, [("w.npy", honest + bytes(100_000_000))], zipfile.ZIP_DEFLATED)
    altered(path, b"PK\x01\x02", 24, struct.pack("<I", len(honest)))
    tracemalloc.start()
    refused(path, "tensor w is not what was saved")
    assert tracemalloc.get_traced_memory()[1] < 10_000_000
    tracemalloc.stop()


def test_empty_arrays_have_checksums_too(tmp_path):
    path = tmp_path / "a.npz"
    np.savez(path, w=np.zeros((0, 3)))
    path.write_bytes(path.read_bytes().replace(b"(0, 3)", b"(0, 7)"))
    refused(path, "tensor w is not what was saved")


def test_zeros_that_compress_well_are_no_bomb(tmp_path):
    np.savez_compressed(tmp_path / "a.npz", w=np.zeros((1000, 1000), "f4"))
    require_same(contents(tmp_path / "a.npz"), {"w": np.zeros((1000, 1000), "f4")})


def altered(path, mark, at, change):
    """The archive with a field of its last record of a kind overwritten."""
    data = bytearray(path.read_bytes())
    start = data.rindex(mark)
    data[start + at : start + at + len(change)] = change
    path.write_bytes(bytes(data))


@pytest.mark.parametrize(
    ("mark", "at", "change", "words"),
    [
        (b"PK\x01\x02", 8, b"\x01", "member w.npy is encrypted"),
        (b"PK\x03\x04", 6, b"\x01", "is not where its directory says"),
        (b"PK\x01\x02", 42, b"\0\0\0\0", "is not where its directory says"),
        (b"PK\x01\x02", 42, b"\xff\xff\xff\x00", "is not where its directory says"),
        (b"PK\x01\x02", 34, b"\x02", "split archive"),
        (b"PK\x01\x02", 20, b"\x01\x00\x00\x00", "damaged"),
        (b"PK\x01\x02", 24, b"\xff\xff\xff\xff", "size of member w.npy is missing"),
        (b"PK\x01\x02", 28, b"\xff\xff", "directory holds something else"),
        (b"PK\x05\x06", 4, b"\x01", "split archive"),
        (b"PK\x05\x06", 8, b"\x01\x00\x01\x00", "has 2 members and says 1"),
        (b"PK\x05\x06", 12, b"\x01\x00\x00\x00", "directory is not where it says"),
        (b"PK\x05\x06", 16, b"\xff\xff\xff\xff", "directory is not where it says"),
        (b"PK\x05\x06", 20, b"\x05\x00", "something stands after its end"),
    ],
)
def test_directories_that_lie(tmp_path, mark, at, change, words):
    path = tmp_path / "a.npz"
    archive(path, [("v.npy", saved(np.ones(20))), ("w.npy", saved(np.ones(20)))])
    altered(path, mark, at, change)
    refused(path, words)


def test_members_that_share_bytes(tmp_path):
    """Two entries of the directory for one member, the way endless archives are made."""
    path = tmp_path / "a.npz"
    archive(path, [("w.npy", saved(np.ones(20)))])
    data = path.read_bytes()
    begin = data.index(b"PK\x01\x02")
    end = data.index(b"PK\x05\x06")
    entry = data[begin:end]
    inner = data.index(b"\x93NUMPY")
    # a local header that stands inside the first member's bytes, of an array with fewer rows
    local = bytearray(data[:inner].replace(b"w.npy", b"v.npy"))
    body = saved(np.ones(3))
    outer = saved(np.frombuffer(bytes(local) + body + bytes(-len(local + body) % 8), "u1"))
    archive(path, [("w.npy", outer)])
    data = path.read_bytes()
    begin, end = data.index(b"PK\x01\x02"), data.index(b"PK\x05\x06")
    second = bytearray(data[begin:end].replace(b"w.npy", b"v.npy"))
    second[20:28] = struct.pack("<II", len(body), len(body))
    second[42:46] = struct.pack("<I", data.index(b"PK\x03\x04", 4))
    ending = struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, 2, 2, 2 * (end - begin), begin, 0)
    path.write_bytes(data[:end] + bytes(second) + ending)
    assert zipfile.ZipFile(path).namelist() == ["w.npy", "v.npy"]
    assert len(entry) == len(second)
    refused(path, "two of its members overlap")


def test_an_archive_behind_something_else(tmp_path):
    path = tmp_path / "a.npz"
    np.savez(path, w=np.ones(3))
    path.write_bytes(b"#!/bin/sh\n" + path.read_bytes())
    refused(path, "directory is not where it says")


def test_a_comment_is_no_fault(tmp_path):
    path = tmp_path / "a.npz"
    np.savez(path, w=np.ones(3))
    with zipfile.ZipFile(path, "a") as target:
        target.comment = b"a comment with PK\x01\x02 in it"
    require_same(contents(path), {"w": np.ones(3)})


def test_more_members_than_16_bits_count(tmp_path):
    path = tmp_path / "a.npz"
    one = saved(np.ones(1, "u1"))
    archive(path, [(f"{number}.npy", one) for number in range(66_000)])
    reader = opened(FORMAT, path)
    assert len(reader.header) == 66_000
    assert reader.read("65999", 0, 1).tolist() == [1]
    reader.close()


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_every_truncation_is_refused(tmp_path, save):
    path = tmp_path / "a.npz"
    save(path, w=np.arange(6.0).reshape(2, 3), e=np.zeros((0, 2)))
    data = path.read_bytes()
    for length in range(len(data)):
        path.write_bytes(data[:length])
        refused(path, "a.npz")
    path.write_bytes(data + b"\0")
    refused(path, "something stands after its end")


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_every_changed_byte_is_noticed_or_no_matter(tmp_path, save, amount):
    path = tmp_path / "a.npz"
    tensors = {"w": np.arange(6.0).reshape(2, 3), "e": np.zeros((0, 2)), "n": np.array(3)}
    save(path, **tensors)
    data = path.read_bytes()
    for at in range(0, len(data), amount(3, 1)):
        for change in (1, 0x80, 0xFF):
            path.write_bytes(data[:at] + bytes([data[at] ^ change]) + data[at + 1 :])
            try:
                found = contents(path)
            except CheckpointError:
                continue
            assert {name: each.tolist() for name, each in found.items()} == {
                name: each.tolist() for name, each in tensors.items()
            }, at


def test_a_changed_number_is_noticed_whatever_the_order_of_rows(tmp_path):
    path = tmp_path / "a.npz"
    weight = np.random.default_rng(0).normal(size=(100, 7))
    np.savez(path, w=weight)
    for damage in (False, True):
        for order in (1, -1):
            reader = opened(FORMAT, path)
            starts = list(range(0, 100, 10))[::order]
            for start in starts[:-1]:
                assert (reader.read("w", start, start + 10) == weight[start : start + 10]).all()
            if damage:
                with pytest.raises(CheckpointError, match="tensor w is not what was saved"):
                    reader.read("w", starts[-1], starts[-1] + 10)
            else:
                reader.read("w", starts[-1], starts[-1] + 10)
                reader.read("w", 3, 5)
            reader.close()
        data = bytearray(path.read_bytes())
        data[data.index(weight[95].tobytes())] ^= 1
        data[data.index(weight[5].tobytes())] ^= 1
        path.write_bytes(bytes(data))
        weight = weight.copy()
        weight.view("u1").reshape(100, -1)[[5, 95], 0] ^= 1


def test_how_a_file_is_found_out(tmp_path):
    path = tmp_path / "weights.dat"
    np.savez(tmp_path / "a.npz", w=np.ones(3))
    (tmp_path / "a.npz").rename(path)
    reader = open_checkpoint(path)
    assert list(reader.header) == ["w"]
    reader.close()
    np.savez(tmp_path / "none.npz")
    reader = open_checkpoint(tmp_path / "none.npz")
    assert len(reader.header) == 0
    reader.close()
    (tmp_path / "b.npz").write_bytes(b"no archive")
    with pytest.raises(CheckpointError, match="npz is cut short or no zip archive"):
        open_checkpoint(tmp_path / "b.npz")
    with pytest.raises(SpecError, match="choosing weights"):
        open_checkpoint(path, "ema")
    with pytest.raises(FileError, match="no such file"):
        open_checkpoint(tmp_path / "absent.npz")


def test_a_file_that_shrinks(tmp_path):
    path = tmp_path / "a.npz"
    np.savez(path, w=np.ones((100, 100)))
    reader = opened(FORMAT, path)
    with path.open("r+b") as stream:
        stream.truncate(1000)
    assert not reader.unchanged()
    with pytest.raises(CheckpointError, match="became shorter"):
        reader.read("w", 50, 60)
    reader.close()
