"""Reading ONNX models: what is accepted and refused, with the onnx package as the judge."""

from __future__ import annotations

import os
import resource
import threading
import time
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import ml_dtypes
import numpy as np
import onnx
import pytest
import torch
from google.protobuf.message import DecodeError
from onnx import TensorProto, helper, numpy_helper
from onnx_models import arrays_in, exported, external, model_of, raw, saved, typed, whole
from written_files import opened

from ckgrow.errors import CheckpointError, FileError, SpecError
from ckgrow.files import open_checkpoint
from ckgrow.registry import formats

FORMAT = formats()["onnx"]
WEIGHT = np.arange(6, dtype="f4").reshape(2, 3)

DTYPES = {
    "float32": [1.5, -0.0, np.nan, np.inf],
    "float64": [1e300, -0.0, np.nan],
    "float16": [1.5, -65504, 6e-8],
    "bfloat16": [1.5, -3e38],
    "float8_e4m3fn": [1.5, -448],
    "float8_e4m3fnuz": [1.5, -240],
    "float8_e5m2": [1.5, -57344],
    "float8_e5m2fnuz": [1.5, -57344],
    "int8": [-128, 127],
    "int16": [-32768, 32767],
    "int32": [-(2**31), 2**31 - 1],
    "int64": [-(2**63), 2**63 - 1, 0],
    "uint8": [0, 255],
    "uint16": [0, 65535],
    "uint32": [0, 2**32 - 1],
    "uint64": [0, 2**64 - 1],
    "bool": [True, False],
    "complex64": [1 + 2j, -1j],
    "complex128": [1 + 2j, -1j],
}


def array_of(dtype):
    scalar = getattr(np, "bool_" if dtype == "bool" else dtype, None)
    return np.array(DTYPES[dtype], scalar or getattr(ml_dtypes, dtype))


def refusal(path):
    """What is said of a file; nothing stays open."""
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(CheckpointError) as failure:
        opened(FORMAT, path).close()
    assert len(os.listdir("/proc/self/fd")) == before
    assert "\n" not in str(failure.value)
    return str(failure.value)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("stored", [raw, typed])
def test_every_dtype(tmp_path, stored, dtype):
    array = array_of(dtype)
    reader = opened(FORMAT, saved(tmp_path / "a.onnx", stored("a", array)))
    assert reader.header["a"].dtype == dtype
    assert reader.header["a"].shape == array.shape
    assert whole(reader, "a").tobytes() == array.tobytes()
    assert reader.read("a", 1, 2).tobytes() == array[1:2].tobytes()
    reader.close()


def test_float8_of_powers_alone(tmp_path):
    bits = np.array([0, 127, 254], np.uint8)
    powers = raw("a", bits.view(ml_dtypes.float8_e8m0fnu))
    reader = opened(FORMAT, saved(tmp_path / "a.onnx", powers))
    assert whole(reader, "a").dtype == ml_dtypes.float8_e8m0fnu
    assert whole(reader, "a").tobytes() == bits.tobytes()


@pytest.mark.parametrize("shape", [(), (0,), (0, 3), (2, 0), (1, 1, 1, 1, 1)])
@pytest.mark.parametrize("stored", [raw, typed])
def test_scalars_and_empty_tensors(tmp_path, stored, shape):
    array = np.ones(shape, np.int64)
    reader = opened(FORMAT, saved(tmp_path / "a.onnx", stored("a", array)))
    assert reader.header["a"].shape == shape
    assert whole(reader, "a").tobytes() == array.tobytes()


def test_packed_numbers_by_rows(tmp_path):
    """Of one to ten bytes each, over many pieces."""
    random = np.random.default_rng(0)
    bits = random.integers(0, 64, 90_000)
    array = (random.integers(-(2**62), 2**62, 90_000) >> bits).reshape(300, 300)
    reader = opened(FORMAT, saved(tmp_path / "a.onnx", typed("a", array)))
    found = np.empty_like(array)
    rows = [(start, min(start + 7, 300)) for start in range(0, 300, 7)]
    threads = [
        threading.Thread(
            target=lambda a, b: found.__setitem__(slice(a, b), reader.read("a", a, b)), args=each
        )
        for each in random.permutation(rows)
    ]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert (found == array).all()
    assert reader.read("a", 5, 5).shape == (0, 300)
    with pytest.raises(ValueError, match="rows"):
        reader.read("a", 0, 301)


def test_packed_numbers_at_the_seams_of_pieces(tmp_path):
    """Where a number ends with a piece, where it goes on into the next, and around there."""
    random = np.random.default_rng(1)
    array = random.integers(0, 2**63 - 1, 60_000) >> random.integers(0, 63, 60_000)
    ends = np.cumsum([max(1, -(-int(each).bit_length() // 7)) for each in array])
    reader = opened(FORMAT, saved(tmp_path / "a.onnx", typed("a", array)))
    seams = np.searchsorted(ends, np.arange(1 << 16, ends[-1], 1 << 16))
    assert len(seams) > 2
    for seam in seams:
        for start in range(seam - 2, seam + 4):
            for stop in (start + 1, start + 3):
                assert reader.read("a", start, stop).tolist() == array[start:stop].tolist()


def test_rows_of_plain_numbers(tmp_path):
    array = np.arange(60.0).reshape(5, 4, 3)
    (tmp_path / "w.bin").write_bytes(b"before" + array.tobytes())
    beside = external("b", array, location="w.bin", offset=6)
    reader = opened(FORMAT, saved(tmp_path / "m.onnx", raw("a", array), beside))
    for name in "ab":
        for start in range(6):
            for stop in range(start, 6):
                assert reader.read(name, start, stop).tolist() == array[start:stop].tolist()


@pytest.mark.parametrize("numbers", [[1], [1, 2, 3]])
def test_packed_numbers_that_are_not_as_many(tmp_path, numbers):
    tensor = TensorProto(name="a", dims=[2], data_type=TensorProto.INT64, int64_data=numbers)
    if len(numbers) < 2:
        assert "1 bytes of packed numbers for 2 elements" in refusal(
            saved(tmp_path / "a.onnx", tensor)
        )
        return
    reader = opened(FORMAT, saved(tmp_path / "a.onnx", tensor))
    with pytest.raises(CheckpointError, match="3 numbers for 2 elements"):
        reader.read("a", 0, 1)


def test_external_data(tmp_path):
    """Several tensors in one file, in any order, some in another, one without length or offset."""
    model = model_of(raw("a", WEIGHT), raw("b", WEIGHT + 7), raw("c", np.arange(500.0)))
    onnx.save_model(
        model, tmp_path / "m.onnx", save_as_external_data=True, location="w.bin", size_threshold=0
    )
    model = onnx.load(tmp_path / "m.onnx", load_external_data=False)
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "d.bin").write_bytes(WEIGHT.tobytes())
    model.graph.initializer.append(external("d", WEIGHT, location="sub/d.bin"))
    onnx.save_model(model, tmp_path / "m.onnx")
    with_library = arrays_in(tmp_path / "m.onnx")
    assert list(with_library) == ["a", "b", "c", "d"]
    reader = opened(FORMAT, tmp_path / "m.onnx")
    for name, array in with_library.items():
        assert whole(reader, name).tobytes() == array.tobytes()
        span = reader.span(name)
        with span.path.open("rb") as file:
            assert os.pread(file.fileno(), span.size, span.offset) == array.tobytes()
    assert reader.unchanged()
    (tmp_path / "sub" / "d.bin").write_bytes(b"other" * 10)
    assert not reader.unchanged()
    reader.close()
    reader.close()


def test_embedded_tensors_are_where_the_span_says(tmp_path):
    path = saved(
        tmp_path / "a.onnx", raw("a", WEIGHT), typed("b", WEIGHT), typed("c", [3] and np.array([3]))
    )
    reader = opened(FORMAT, path)
    for name in ("a", "b"):
        span = reader.span(name)
        assert path.read_bytes()[span.offset :][: span.size] == WEIGHT.tobytes()
    assert reader.span("c") is None


def test_metadata(tmp_path):
    model = model_of(raw("a", WEIGHT))
    helper.set_model_props(model, {"ckgrow": "{}", "ключ": "значение"})
    (tmp_path / "a.onnx").write_bytes(model.SerializeToString())
    reader = opened(FORMAT, tmp_path / "a.onnx")
    assert reader.contents.metadata == {"ckgrow": "{}", "ключ": "значение"}


class Net(torch.nn.Module):
    """Something of everything that becomes an initialiser."""

    def __init__(self):
        super().__init__()
        self.conv = torch.nn.Conv2d(3, 4, 3)
        self.bn = torch.nn.BatchNorm2d(4)
        self.slope = torch.nn.Parameter(torch.tensor([0.25]))
        self.fc = torch.nn.Linear(4, 5)

    def forward(self, x):
        x = torch.nn.functional.prelu(self.bn(self.conv(x)), self.slope)
        x = x.mean((2, 3)).reshape(x.shape[0], 4)
        return self.fc(x) * 3.5


@pytest.mark.parametrize("optimize", [False, True])
def test_models_of_torch(tmp_path, optimize):
    """State-dict keys, with external data; what an optimiser adds is told apart."""
    module = Net()
    path = exported(
        tmp_path / "m.onnx", module, torch.randn(2, 3, 8, 8), dynamo=True, optimize=optimize
    )
    stored = arrays_in(path)
    assert (tmp_path / "m.onnx.data").exists()
    reader = open_checkpoint(path)
    state = module.state_dict()
    assert set(reader.header) | set(reader.contents.dropped) == set(stored)
    for name in reader.contents.dropped:
        assert name.startswith("val_")
        assert stored[name].dtype == np.int64 or stored[name].ndim == 0
    assert bool(reader.contents.dropped) == optimize
    if not optimize:
        assert set(state) - set(reader.header) == {"bn.num_batches_tracked"}
    for name in reader.header:
        assert whole(reader, name).tobytes() == stored[name].tobytes()
        if not optimize:  # otherwise BatchNorm is folded into weights, which keep their names
            assert torch.equal(torch.from_numpy(whole(reader, name)), state[name])


def test_what_is_a_constant_of_the_network(tmp_path):
    """Integers and single numbers that a node reads, unless they are called like a parameter."""
    inputs = ["shape", "half", "layer.scale", "weight", "one"]
    path = saved(
        tmp_path / "a.onnx",
        raw("shape", np.array([1, -1])),
        raw("half", np.float32(0.5)),
        raw("layer.scale", np.float32(0.5)),
        raw("one", np.ones(1, "f4")),
        raw("weight", WEIGHT),
        raw("count", np.array(7)),
        nodes=[helper.make_node("Custom", inputs, ["y"])],
    )
    reader = opened(FORMAT, path)
    assert list(reader.header) == ["layer.scale", "one", "weight", "count"]
    assert reader.contents.dropped == ("shape", "half")


@pytest.mark.parametrize("name", ["", "\x1b[2J\n\0", "../../etc/passwd", "n" * 1_000_000, "é"])
def test_hostile_names(tmp_path, name):
    reader = opened(FORMAT, saved(tmp_path / "a.onnx", raw(name, WEIGHT)))
    assert list(reader.header) == [name]
    assert whole(reader, name).tobytes() == WEIGHT.tobytes()


def tensor(dtype=1, dims=(2, 3), **fields):
    return TensorProto(name="a", dims=dims, data_type=dtype, **fields)


REFUSED = {
    "string": (tensor(8, [1], string_data=[b"x"]), "is string, which"),
    "int4": (tensor(22, [2], raw_data=b"1"), "is int4, which"),
    "float4": (tensor(23, [2], raw_data=b"1"), "is float4e2m1, which"),
    "no dtype": (tensor(0), "is dtype number 0, which"),
    "unknown dtype": (tensor(99), "is dtype number 99, which"),
    "no data": (tensor(), "has no data"),
    "too little data": (tensor(raw_data=b"1" * 20), "20 bytes, but its shape and dtype need 24"),
    "too much data": (tensor(raw_data=b"1" * 28), "28 bytes, but"),
    "numbers of another dtype": (tensor(int64_data=[1] * 6), "another dtype"),
    "two kinds of data": (tensor(raw_data=b"1" * 24, float_data=[1.0] * 6), "another dtype"),
    "negative size": (tensor(dims=[-1, -6], raw_data=b"1" * 24), "need"),
    "impossible size": (tensor(dims=[0, 2**62], raw_data=b""), "too large for any machine"),
    "2 ** 40 elements": (tensor(dims=[2**40], raw_data=b"1" * 24), "need 4398046511104"),
    "rank 65": (tensor(dims=[1] * 65, raw_data=b"1" * 4), "65 dimensions"),
    "segment": (
        tensor(raw_data=b"1" * 24, segment=TensorProto.Segment(begin=0, end=1)),
        "in segments",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused_tensors(tmp_path, case):
    made, said = REFUSED[case]
    assert said in refusal(saved(tmp_path / "a.onnx", made))


def test_two_tensors_of_one_name(tmp_path):
    assert "two tensors a" in refusal(saved(tmp_path / "m.onnx", raw("a", 1.0), raw("a", 2.0)))


def test_sparse_tensors(tmp_path):
    sparse = helper.make_sparse_tensor(raw("a", np.ones(1, "f4")), raw("i", np.array([2])), [9])
    model = model_of(raw("b", WEIGHT))
    model.graph.sparse_initializer.append(sparse)
    (tmp_path / "a.onnx").write_bytes(model.SerializeToString())
    assert "sparse" in refusal(tmp_path / "a.onnx")


def test_metadata_that_is_ambiguous(tmp_path):
    model = model_of(raw("b", WEIGHT))
    for value in "12":
        model.metadata_props.add(key="ckgrow", value=value)
    (tmp_path / "a.onnx").write_bytes(model.SerializeToString())
    assert "its metadata has ckgrow twice" in refusal(tmp_path / "a.onnx")


FOREIGN = {
    "absolute": ("/etc/hostname", "not in its folder"),
    "parent": ("../w.bin", "not in its folder"),
    "parent inside": ("sub/../../w.bin", "not in its folder"),
    "null": ("w\0.bin", "not in its folder"),
    "missing": ("nowhere.bin", "needs the file nowhere.bin"),
    "without a name": ("", "that is not named"),
    "link out of the folder": ("link.bin", "leads out of its folder"),
    "folder that is a link": ("linked/w.bin", "leads out of its folder"),
    "hard link": ("hard.bin", "hard link"),
}


@pytest.mark.parametrize("case", FOREIGN)
def test_external_data_from_elsewhere(tmp_path, case):
    location, said = FOREIGN[case]
    (tmp_path / "w.bin").write_bytes(WEIGHT.tobytes())
    home = tmp_path / "home"
    (home / "sub").mkdir(parents=True)
    (home / "link.bin").symlink_to("../w.bin")
    (home / "linked").symlink_to("..")
    (home / "hard.bin").hardlink_to(tmp_path / "w.bin")
    path = saved(home / "m.onnx", external("a", WEIGHT, location=location))
    assert said in refusal(path)


PLACED = {
    "beyond the end": ({"offset": 1}, "ends at byte 25, the file has 24"),
    "far beyond the end": ({"offset": 2**62}, "the file has 24"),
    "offset below zero": ({"offset": -1}, "no number"),
    "offset with digits of others": ({"offset": "٣"}, "no number"),
    "offset of many digits": ({"offset": "9" * 5000}, "no number"),
    "length of another shape": ({"length": 20}, "20 bytes, but"),
    "length that is no number": ({"length": "all"}, "no number"),
}


@pytest.mark.parametrize("case", PLACED)
def test_external_data_that_does_not_fit(tmp_path, case):
    stated, said = PLACED[case]
    (tmp_path / "w.bin").write_bytes(WEIGHT.tobytes())
    path = saved(tmp_path / "m.onnx", external("a", WEIGHT, location="w.bin", **stated))
    assert said in refusal(path)


@pytest.mark.parametrize("kind", ["directory", "fifo"])
def test_external_data_that_is_no_file(tmp_path, kind):
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "directory").mkdir()
    path = saved(tmp_path / "m.onnx", external("a", WEIGHT, location=kind))
    with pytest.raises(Exception, match=r"is a (directory|pipe)"):
        opened(FORMAT, path)


@pytest.mark.parametrize("key", ["__class__", "basepath", "tensor", "checksum", ""])
def test_keys_of_external_data_that_mean_nothing_here(tmp_path, key):
    (tmp_path / "w.bin").write_bytes(WEIGHT.tobytes())
    path = saved(tmp_path / "m.onnx", external("a", WEIGHT, location="w.bin", **{key: "/etc"}))
    assert whole(opened(FORMAT, path), "a").tobytes() == WEIGHT.tobytes()


def test_external_data_stated_twice(tmp_path):
    made = external("a", WEIGHT, location="w.bin")
    made.external_data.add(key="location", value="v.bin")
    assert "states location twice" in refusal(saved(tmp_path / "m.onnx", made))


def test_external_data_with_numbers_of_its_own(tmp_path):
    made = external("a", WEIGHT, location="w.bin")
    made.raw_data = WEIGHT.tobytes()
    assert "in the model and in another file" in refusal(saved(tmp_path / "m.onnx", made))


def test_external_data_that_shrinks_while_it_is_read(tmp_path):
    (tmp_path / "w.bin").write_bytes(WEIGHT.tobytes())
    path = saved(tmp_path / "m.onnx", external("a", WEIGHT, location="w.bin"))
    reader, late = opened(FORMAT, path), opened(FORMAT, path)
    reader.read("a", 0, 2)
    os.truncate(tmp_path / "w.bin", 10)
    with pytest.raises(CheckpointError, match="became shorter"):
        reader.read("a", 0, 2)
    with pytest.raises(FileError, match=r"w\.bin changed while .*m\.onnx was read"):
        late.read("a", 0, 2)
    for each in (reader, late):
        assert not each.unchanged()
        each.close()


def test_more_files_than_a_process_may_have_open(tmp_path):
    """1,500 of them are beside the model; all are read, by several threads, with 256 open."""
    names = [f"w{number}" for number in range(1_500)]
    numbers = {name: np.full((2, 3), number, np.float32) for number, name in enumerate(names)}
    for name in names:
        (tmp_path / name).write_bytes(numbers[name].tobytes())
    tensors = [external(name, each, location=name) for name, each in numbers.items()]
    path = saved(tmp_path / "m.onnx", *tensors)
    before = len(os.listdir("/proc/self/fd"))
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, limits[1]))
    try:
        reader = open_checkpoint(path)
        with ThreadPoolExecutor(4) as pool:
            rows = list(pool.map(lambda name: reader.read(name, 0, 2), names))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    assert all((row == each).all() for row, each in zip(rows, numbers.values(), strict=True))
    assert [each.name for each in reader.files()] == ["m.onnx", *names]
    assert reader.unchanged()
    reader.close()
    assert len(os.listdir("/proc/self/fd")) == before


def length_of(size):
    """A varint."""
    encoded = bytearray()
    while size >= 0x80:
        encoded.append(size & 0x7F | 0x80)
        size >>= 7
    return bytes([*encoded, size])


NO_MODEL = {
    "text": (b"hello world, this is no model", "field 13"),
    "html": (b"<!DOCTYPE html>", "unknown kind"),
    "version alone": (b"\x08\x0a", "has no graph"),
    "zeros": (bytes(100), "without a number"),
    "number without end": (b"\x08" + b"\xff" * 20, "has no end"),
    "cut off": (b"\x08\x0a\x3a\x7f\x0a", "ends behind"),
    "length of 2 ** 63": (b"\x08\x0a\x3a" + b"\xff" * 9 + b"\x01", "ends behind"),
    "graph that is a number": (b"\x08\x0a\x38\x01", "wrong kind"),
    "group": (b"\x08\x0a\x3b\x3c", "unknown kind"),
    "two graphs": (b"\x08\x0a\x3a\x00\x3a\x00", "two graphs"),
    "name of no text": (b"\x08\x0a\x3a\x06\x2a\x04\x42\x02\xff\xfe", "not UTF-8"),
}


@pytest.mark.parametrize("case", NO_MODEL)
def test_what_is_no_model(tmp_path, case):
    content, said = NO_MODEL[case]
    (tmp_path / "a.onnx").write_bytes(content)
    message = refusal(tmp_path / "a.onnx")
    assert said in message
    assert "no ONNX model" in message


def test_empty_graph_holds_nothing(tmp_path):
    (tmp_path / "a.onnx").write_bytes(b"\x08\x0a\x3a\x00")
    assert len(opened(FORMAT, tmp_path / "a.onnx").header) == 0


def test_more_fields_than_any_model_has(tmp_path):
    """Ten million nodes in 20 MB: refused in a few seconds, without memory for them."""
    nodes = b"\x0a\x00" * 10_000_000
    (tmp_path / "a.onnx").write_bytes(b"\x08\x0a\x3a" + length_of(len(nodes)) + nodes)
    begun = time.monotonic()
    assert "more than 4000000" in refusal(tmp_path / "a.onnx")
    assert time.monotonic() - begun < 30


def test_a_huge_name_is_not_loaded(tmp_path):
    """A sparse file of 8 GB whose only tensor has a name as long."""
    size = 8 << 30
    with (tmp_path / "a.onnx").open("wb") as file:
        name = b"\x42" + length_of(size)
        inner = b"\x2a" + length_of(len(name) + size) + name
        file.write(b"\x08\x0a\x3a" + length_of(len(inner) + size) + inner)
        file.truncate(file.tell() + size)
    assert "more than 256000000 bytes of names" in refusal(tmp_path / "a.onnx")


def test_opening_does_not_read_the_weights(tmp_path):
    """A sparse model of 8 GB, which protocol buffers' own library could not load."""
    tensors = [
        b"\x08" + length_of(1 << 29) + b"\x10\x01\x42\x01" + name
        for name in (b"a", b"b", b"c", b"d")
    ]
    data = b"\x4a" + length_of(2 << 30)
    framed = [
        b"\x2a" + length_of(len(each) + len(data) + (2 << 30)) + each + data for each in tensors
    ]
    with (tmp_path / "a.onnx").open("wb") as file:
        file.write(b"\x08\x0a\x3a" + length_of(sum(len(each) + (2 << 30) for each in framed)))
        for each in framed:
            file.write(each)
            file.seek(2 << 30, os.SEEK_CUR)
        file.seek(-4, os.SEEK_CUR)
        file.write(np.float32(7).tobytes())
    begun = time.monotonic()
    reader = opened(FORMAT, tmp_path / "a.onnx")
    last = reader.read("d", (1 << 29) - 2, 1 << 29)
    assert time.monotonic() - begun < 1
    assert last.tolist() == [0, 7]


def small_model(folder: Path) -> bytes:
    (folder / "w.bin").write_bytes(WEIGHT.tobytes())
    model = model_of(
        raw("a.weight", WEIGHT),
        typed("b", np.array([300, -1, 5])),
        typed("c", WEIGHT.astype(np.float16)),
        external("d", WEIGHT, location="w.bin", offset=0, length=24),
        nodes=[helper.make_node("Gemm", ["x", "a.weight"], ["y"], alpha=0.5)],
    )
    helper.set_model_props(model, {"key": "value"})
    return model.SerializeToString()


def judged(path):
    """What the onnx package reads, or None where it does not."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model = onnx.load(path)
        return {
            each.name: (each.data_type, numpy_helper.to_array(each).tobytes())
            for each in model.graph.initializer
        }
    except (
        DecodeError,
        ValueError,
        TypeError,
        KeyError,
        OSError,
        AttributeError,
        IndexError,
        OverflowError,
        onnx.checker.ValidationError,
        MemoryError,
        UnicodeDecodeError,
    ):
        return None


def test_every_cut_and_every_changed_byte_is_refused_or_read_right(tmp_path, amount):
    """What ckgrow reads is what the onnx package reads; it may refuse more."""
    content = small_model(tmp_path)
    path = tmp_path / "m.onnx"
    changes = (1, 0x80, 0xFF)[: amount(1, 3)]
    cases = [content[:stop] for stop in range(1, len(content))]
    for index in range(len(content)):
        cases += [
            content[:index] + bytes([content[index] ^ each]) + content[index + 1 :]
            for each in changes
        ]
    path.write_bytes(content)
    original = judged(path)
    agreed = refused = 0
    for case in cases:
        path.write_bytes(case)
        try:
            reader = opened(FORMAT, path)
            found = {name: whole(reader, name).tobytes() for name in reader.header}
            reader.close()
        except CheckpointError:
            refused += 1
            continue
        # What the library refuses may be read as it was, when it is the network that is damaged.
        library = judged(path) or original
        for name, data in found.items():
            assert library[name][1] == data, case
        agreed += 1
    assert agreed > 100
    assert refused > 200


def test_choosing_weights_is_refused(tmp_path):
    path = saved(tmp_path / "a.onnx", raw("a", WEIGHT))
    with pytest.raises(SpecError, match="holds one set of weights"):
        open_checkpoint(path, "model")


@pytest.mark.parametrize("name", ["model.bin", "model", "model.safetensors"])
def test_models_are_known_by_what_they_hold(tmp_path, name):
    reader = open_checkpoint(saved(tmp_path / name, raw("a", WEIGHT)))
    assert list(reader.header) == ["a"]
