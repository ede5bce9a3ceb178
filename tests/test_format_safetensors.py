"""Reading safetensors: what is accepted and refused, with the reference library as the judge."""

from __future__ import annotations

import json
import os
import random
import re
import threading
import time
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import safetensors
import safetensors.torch
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from written_files import opened

from ckgrow.errors import CheckpointError, FileError, SpecError
from ckgrow.files import open_checkpoint
from ckgrow.registry import formats

FORMAT = formats()["safetensors"]


def entry(dtype: str, shape: list[Any], begin: Any, end: Any) -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


def framed(text: bytes, data: bytes = b"") -> bytes:
    return len(text).to_bytes(8, "little") + text + data


def file_of(header: Any, data: bytes = b"") -> bytes:
    return framed(json.dumps(header).encode(), data)


def library_accepts(content: bytes) -> bool:
    try:
        safetensors.deserialize(content)
    except safetensors.SafetensorError:
        return False
    return True


def refusal_of(path: Path) -> str | None:
    try:
        opened(FORMAT, path, None).close()
    except CheckpointError as failure:
        return str(failure)
    return None


ONE = entry("U8", [1], 0, 1)
SOUND = {
    "one tensor": file_of({"a": ONE}, b"1"),
    "no tensors": file_of({}),
    "metadata alone": file_of({"__metadata__": {"a": "b"}}),
    "empty name": file_of({"": ONE}, b"1"),
    "hostile names": file_of(
        {"../../etc/passwd": ONE, "\x1b[2J\n\0": entry("U8", [0], 1, 1)}, b"1"
    ),
    "a megabyte of name": file_of({"n" * 1_000_000: ONE}, b"1"),
    "out of order": file_of({"b": entry("U8", [1], 1, 2), "a": ONE}, b"12"),
    "unaligned": file_of({"a": ONE, "b": entry("F32", [1], 1, 5)}, b"12345"),
    "escaped pair": framed(b'{"\\ud83d\\ude00":%s}' % json.dumps(ONE).encode(), b"1"),
    "padded with spaces": framed(json.dumps({"a": ONE}).encode() + b"   ", b"1"),
    "zero sizes between": file_of(
        {"z": entry("F32", [0, 7], 1, 1), "a": ONE, "y": entry("F32", [0], 0, 0)}, b"1"
    ),
}

REFUSED = {
    "empty": (b"", "0 bytes"),
    "under eight bytes": (b"1234567", "7 bytes"),
    "header length zero": (b"\0" * 8 + b"{}", "header of 0 bytes"),
    "header length of all ones": (b"\xff" * 8 + b"{}", "header of 18446744073709551615"),
    "header over 100 MB": ((100_000_001).to_bytes(8, "little") + b"{}", "header of 100000001"),
    "header beyond the file": ((50).to_bytes(8, "little") + b"{}", "cut short"),
    "not UTF-8": (framed(b'{"\xff":1}'), "not UTF-8"),
    "not an object": (framed(b"[1]   "), "starts with"),
    "not JSON": (framed(b"{a}"), "not JSON"),
    "nested without end": (framed(b'{"a":' + b"[" * 100_000), "not JSON"),
    "number of 5,000 digits": (framed(b'{"a":' + b"9" * 5_000 + b"}"), "not JSON"),
    "NUL padding": (framed(b"{}\0\0"), "not JSON"),
    "control character": (framed(b'{"a\n":%s}' % json.dumps(ONE).encode(), b"1"), "not JSON"),
    "trailing bytes": (file_of({"a": ONE}, b"12"), "1 bytes after its last tensor"),
    "truncated": (file_of({"a": entry("F32", [4], 0, 16)}, b"123"), "13 of its 16 bytes"),
    "hole": (file_of({"a": ONE, "b": entry("U8", [1], 2, 3)}, b"123"), "b comes after a gap"),
    "overlap": (
        file_of({"a": entry("U8", [2], 0, 2), "b": entry("U8", [2], 1, 3)}, b"123"),
        "b overlaps",
    ),
    "hole at the start": (file_of({"a": entry("U8", [1], 1, 2)}, b"12"), "gap"),
    "negative offset": (file_of({"a": entry("U8", [1], -1, 0)}), "whole numbers"),
    "minus zero": (
        framed(b'{"a":{"dtype":"U8","shape":[1],"data_offsets":[-0,1]}}', b"1"),
        "whole numbers",
    ),
    "fractional offset": (file_of({"a": entry("U8", [1], 0.0, 1.0)}, b"1"), "whole numbers"),
    "true as offset": (file_of({"a": entry("U8", [1], False, True)}, b"1"), "whole numbers"),
    "three offsets": (
        file_of({"a": {"dtype": "U8", "shape": [1], "data_offsets": [0, 1, 1]}}, b"1"),
        "whole numbers",
    ),
    "backward offsets": (file_of({"a": entry("U8", [1], 1, 0)}, b"1"), "-1 bytes"),
    "negative shape": (file_of({"a": entry("U8", [-1], 0, 1)}, b"1"), "whole numbers"),
    "shape is null": (file_of({"a": {**ONE, "shape": None}}, b"1"), "whole numbers"),
    "shape against offsets": (file_of({"a": entry("F32", [2], 0, 4)}, b"1234"), "need 8"),
    "unknown dtype": (file_of({"a": entry("F99", [1], 0, 1)}, b"1"), "F99"),
    "dtype is a number": (file_of({"a": entry(7, [1], 0, 1)}, b"1"), "dtype 7"),
    "metadata not of strings": (file_of({"__metadata__": {"a": 1}}), "object of strings"),
    "tensor called __metadata__": (file_of({"__metadata__": ONE}, b"1"), "another name"),
    "half a character": (
        framed(b'{"\\ud800":%s}' % json.dumps(ONE).encode(), b"1"),
        "no valid Unicode",
    ),
    "half a character in metadata": (
        framed(b'{"__metadata__":{"a":"\\udfff"}}'),
        "no valid Unicode",
    ),
    "shape overflows": (file_of({"a": entry("U8", [2**63, 2**63, 0], 0, 0)}), "too large"),
}

REFUSED_THOUGH_THE_LIBRARY_ACCEPTS = {
    "duplicate names": (
        framed(b'{"a":%s,"a":%s}' % ((json.dumps(ONE).encode(),) * 2), b"1"),
        "names a twice",
    ),
    "duplicate metadata": (framed(b'{"__metadata__":{"k":"1","k":"2"}}'), "names k twice"),
    "metadata is null": (file_of({"__metadata__": None}), "object of strings"),
    "space before the brace": (framed(b' {"a":%s}' % json.dumps(ONE).encode(), b"1"), "starts"),
    "unknown field": (file_of({"a": {**ONE, "more": 1}}, b"1"), "alone"),
    "entry as an array": (file_of({"a": ["U8", [1], [0, 1]]}, b"1"), "alone"),
    "shape that numpy cannot hold": (file_of({"a": entry("F32", [0, 2**62], 0, 0)}), "too large"),
    "rank over 64": (file_of({"a": entry("U8", [1] * 65, 0, 1)}, b"1"), "65 dimensions"),
    "four-bit floats": (file_of({"a": entry("F4", [2], 0, 1)}, b"1"), "dtype F4"),
}


@pytest.mark.parametrize("content", SOUND.values(), ids=SOUND.keys())
def test_accepts(content, tmp_path):
    path = tmp_path / "a.safetensors"
    path.write_bytes(content)
    reader = opened(FORMAT, path, None)
    reader.close()
    assert library_accepts(content)
    expected = {name: info["shape"] for name, info in safetensors.deserialize(content)}
    assert {name: list(spec.shape) for name, spec in reader.header.items()} == expected


@pytest.mark.parametrize(("content", "words"), REFUSED.values(), ids=REFUSED.keys())
def test_refuses_what_the_library_refuses(content, words, tmp_path):
    path = tmp_path / "a.safetensors"
    path.write_bytes(content)
    assert not library_accepts(content)
    with pytest.raises(CheckpointError) as caught:
        opened(FORMAT, path, None)
    message = str(caught.value)
    assert str(path) in message
    assert words in message
    assert message.isprintable()


@pytest.mark.parametrize(
    ("content", "words"),
    REFUSED_THOUGH_THE_LIBRARY_ACCEPTS.values(),
    ids=REFUSED_THOUGH_THE_LIBRARY_ACCEPTS.keys(),
)
def test_refuses_more_than_the_library(content, words, tmp_path):
    path = tmp_path / "a.safetensors"
    path.write_bytes(content)
    assert library_accepts(content)
    with pytest.raises(CheckpointError, match=words):
        opened(FORMAT, path, None)


def test_names_are_never_printed_raw(tmp_path):
    path = tmp_path / "a.safetensors"
    path.write_bytes(file_of({"\x1b]0;owned\x07" * 1000: entry("F32", [9], 0, 1)}, b"1"))
    with pytest.raises(CheckpointError) as caught:
        opened(FORMAT, path, None)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 500


DTYPES = ["BOOL", "U8", "F16", "BF16", "F32", "I64", "F8_E4M3", "F4", "XX"]
WIDTHS = {"BOOL": 1, "U8": 1, "F16": 2, "BF16": 2, "F32": 4, "I64": 8, "F8_E4M3": 1}


@st.composite
def mutated_files(draw: st.DrawFn) -> bytes:
    """Sound files, and files with one thing wrong: an entry, an offset, a byte, the length."""
    names = draw(st.lists(st.text(max_size=3), max_size=4, unique=True))
    header: dict[str, Any] = {}
    position = 0
    for name in names:
        dtype = draw(st.sampled_from(DTYPES))
        shape = draw(st.lists(st.integers(0, 3), max_size=3))
        size = int(np.prod(shape)) * WIDTHS.get(dtype, 1)
        header[name] = entry(dtype, shape, position, position + size)
        position += size
    if draw(st.booleans()):
        header["__metadata__"] = draw(
            st.dictionaries(st.text(max_size=2), st.text(max_size=2), max_size=2)
            | st.sampled_from([None, 1, {"a": 1}, ["a"]])
        )
    if names and draw(st.booleans()):
        victim = header[draw(st.sampled_from(names))]
        field = draw(st.sampled_from(["dtype", "shape", "data_offsets"]))
        victim[field] = draw(
            st.sampled_from([None, "F32", [], [0], [0, 1], [1, 0], [-1, 0], [0.5], [2**64], [True]])
        )
    text = bytearray(json.dumps(header, ensure_ascii=draw(st.booleans())).encode())
    if draw(st.booleans()):
        at = draw(st.integers(0, len(text) - 1))
        text[at : at + 1] = draw(
            st.sampled_from([b"", b" ", b"\0", b"-", b'"', b"9", b",", b"{", b"\xff", b"e"])
        )
    return framed(bytes(text), b"x" * (position + draw(st.sampled_from([0, 0, 0, 1, -1]))))


@pytest.fixture(scope="module")
def scratch(tmp_path_factory):
    return tmp_path_factory.mktemp("mutated") / "a.safetensors"


STRICTER = "twice|object of strings|header starts with|alone|too large|dtype F4"


@settings(max_examples=600, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(content=mutated_files())
def test_agrees_with_the_library_but_where_it_is_lenient(content, scratch):
    scratch.write_bytes(content)
    refusal = refusal_of(scratch)
    if refusal is None:
        assert library_accepts(content)
    else:
        assert refusal.isprintable()
        assert re.search(STRICTER, refusal) or not library_accepts(content), refusal


def test_single_bytes_changed_in_a_real_header(scratch):
    content = bytearray(
        safetensors.torch.save(
            {"a": torch.ones(2, 3), "b.c": torch.ones(4, dtype=torch.bfloat16)}, {"k": "v"}
        )
    )
    rng = random.Random(0)
    header_end = 8 + int.from_bytes(content[:8], "little")
    accepted = 0
    for _ in range(1500):
        changed = bytearray(content)
        changed[rng.randrange(header_end)] = rng.choice(b'0123456789{}[]",:-. eabF\0\xff')
        scratch.write_bytes(changed)
        if refusal_of(scratch) is None:
            accepted += 1
            assert library_accepts(bytes(changed)), bytes(changed)
    assert accepted > 50


TENSORS = {
    "float32": torch.randn(7, 3, generator=torch.Generator().manual_seed(0)),
    "float64": torch.tensor([[float("nan"), float("inf")], [-0.0, 5e-324]], dtype=torch.float64),
    "float16": torch.arange(6).reshape(3, 2).to(torch.float16),
    "bfloat16": torch.linspace(-3, 3, 10).reshape(5, 2).to(torch.bfloat16),
    "float8_e4m3fn": torch.linspace(-400, 400, 8).to(torch.float8_e4m3fn),
    "float8_e5m2": torch.linspace(-400, 400, 8).to(torch.float8_e5m2),
    "complex64": torch.tensor([1 + 2j, 3 - 4j]),
    "int64": torch.tensor(-(2**63)),
    "int32": torch.arange(4, dtype=torch.int32),
    "int16": torch.arange(4, dtype=torch.int16),
    "int8": torch.arange(-2, 2, dtype=torch.int8),
    "uint8": torch.arange(4, dtype=torch.uint8),
    "bool": torch.tensor([True, False, True]),
    "empty": torch.zeros(0, 5),
    "rows of nothing": torch.zeros(5, 0),
}


def bits(tensor: torch.Tensor) -> bytes:
    return tensor.reshape(-1).view(torch.uint8).numpy().tobytes()


def test_values_are_the_librarys_bit_for_bit(tmp_path):
    path = tmp_path / "a.safetensors"
    safetensors.torch.save_file(TENSORS, path)
    reader = opened(FORMAT, path, None)
    assert set(reader.header) == set(TENSORS)
    for name, tensor in safetensors.torch.load_file(path).items():
        spec = reader.header[name]
        assert spec.dtype == str(tensor.dtype).removeprefix("torch.")
        assert spec.shape == tuple(tensor.shape)
        count = (spec.shape or (1,))[0]
        whole = reader.read(name, 0, count)
        assert whole.shape == (spec.shape or (1,))
        assert whole.dtype.name == spec.dtype
        assert whole.tobytes() == bits(tensor)
        if count > 2:
            assert reader.read(name, 1, count - 1).tobytes() == bits(tensor[1:-1].contiguous())
        assert reader.read(name, count, count).shape[0] == 0
    reader.close()


def test_rows_that_are_not_there_are_a_mistake_of_the_caller(tmp_path):
    path = tmp_path / "a.safetensors"
    safetensors.torch.save_file({"a": torch.ones(3), "b": torch.ones(3)}, path)
    reader = opened(FORMAT, path, None)
    for start, stop in [(0, 4), (-1, 2), (2, 1)]:
        with pytest.raises(ValueError, match="rows"):
            reader.read("a", start, stop)
    reader.close()


def test_metadata_is_kept(tmp_path):
    path = tmp_path / "a.safetensors"
    safetensors.torch.save_file({"a": torch.ones(1)}, path, {"format": "pt", "note": "é\n"})
    reader = opened(FORMAT, path, None)
    assert reader.contents.metadata == {"format": "pt", "note": "é\n"}
    assert reader.contents.weights is None
    assert reader.contents.dropped == ()
    reader.close()


def test_choosing_weights_is_refused(tmp_path):
    path = tmp_path / "a.safetensors"
    path.write_bytes(SOUND["one tensor"])
    with pytest.raises(SpecError, match="one set of weights"):
        open_checkpoint(path, "ema")


def test_a_file_that_shrinks_is_an_error_not_a_crash(tmp_path):
    path = tmp_path / "a.safetensors"
    safetensors.torch.save_file({"a": torch.ones(1000)}, path)
    reader = opened(FORMAT, path, None)
    assert reader.unchanged()
    os.truncate(path, path.stat().st_size - 2000)
    assert not reader.unchanged()
    assert reader.read("a", 0, 500).sum() == 500
    with pytest.raises(CheckpointError, match="became shorter"):
        reader.read("a", 0, 1000)
    reader.close()
    with pytest.raises(FileError, match="cannot be read"):
        reader.read("a", 0, 1)


def test_threads_read_the_same_values(tmp_path):
    path = tmp_path / "a.safetensors"
    tensors = {str(i): torch.full((64, 256), float(i)) for i in range(16)}
    safetensors.torch.save_file(tensors, path)
    reader = opened(FORMAT, path, None)
    wrong: list[str] = []

    def work() -> None:
        for name in tensors:
            if not (reader.read(name, 3, 61) == float(name)).all():
                wrong.append(name)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    reader.close()
    assert not wrong


def test_opening_takes_the_header_only(tmp_path):
    """100,000 tensors of 140 GB in all (a sparse file) open in well under a second."""
    path = tmp_path / "a.safetensors"
    size = 1_400_000
    header = {
        f"layers.{i}.weight": entry("BF16", [size // 2], i * size, (i + 1) * size)
        for i in range(100_000)
    }
    content = file_of(header)
    path.write_bytes(content)
    os.truncate(path, len(content) + 100_000 * size)
    began = time.perf_counter()
    reader = opened(FORMAT, path, None)
    assert time.perf_counter() - began < 3  # 0.4 s on an idle machine
    last = reader.read("layers.99999.weight", size // 2 - 3, size // 2)
    assert last.dtype == ml_dtypes.bfloat16
    reader.close()


def test_300_000_empty_tensors(tmp_path):
    path = tmp_path / "a.safetensors"
    path.write_bytes(file_of({str(i): entry("F32", [0], 0, 0) for i in range(300_000)}))
    reader = opened(FORMAT, path, None)
    assert len(reader.header) == 300_000
    reader.close()
