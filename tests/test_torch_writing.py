"""torch files as they are written: torch itself reads them, with nothing but tensors allowed."""

from __future__ import annotations

import errno
import os
from typing import Any

import numpy as np
import pytest
from torch_files import FORMAT, loaded, raw
from written_files import created, write

from ckgrow.errors import FileError
from ckgrow.header import Header, TensorSpec, numpy_dtype

FLOATS8 = "float8_e4m3fn float8_e5m2 float8_e8m0fnu float8_e4m3fnuz float8_e5m2fnuz"
DTYPES = (
    "float64 float32 float16 bfloat16 int64 int32 int16 int8 uint64 uint32 uint16 uint8 bool "
    + FLOATS8
).split()


def arrays(seed: int = 0) -> dict[str, np.ndarray]:
    """Any bits, in every dtype; a scalar, an empty tensor, rank 5."""
    random = np.random.default_rng(seed)
    made = {}
    for dtype in DTYPES:
        size = numpy_dtype(dtype).itemsize
        data = random.integers(0, 2 if dtype == "bool" else 256, (6, 2, size), np.uint8)
        made[dtype] = data.reshape(6, 2 * size).view(numpy_dtype(dtype))
    made["scalar"] = np.array(7)
    made["empty"] = np.zeros((0, 3), np.float32)
    made["rank five"] = random.normal(size=(2, 1, 3, 2, 2)).astype(np.float16)
    return made


def test_every_dtype_bit_for_bit(tmp_path):
    values = arrays()
    write(FORMAT, tmp_path / "a.pt", values)
    found = loaded(tmp_path / "a.pt")
    assert type(found) is dict
    assert list(found) == list(values)
    for name, array in values.items():
        assert str(found[name].dtype) == f"torch.{array.dtype.name}"
        assert tuple(found[name].shape) == array.shape
        assert raw(found[name]) == array.tobytes()
    assert os.listdir(tmp_path) == ["a.pt"]  # without metadata there is no side file


def test_rows_in_any_order(tmp_path):
    rows = np.arange(12, dtype=np.float32).reshape(6, 2)
    writer = created(FORMAT, tmp_path / "a.pt", Header({"w": TensorSpec("float32", (6, 2))}))
    writer.write("w", 4, rows[4:])
    writer.write("w", 0, rows[:3])
    with pytest.raises(ValueError, match="8 bytes of tensors were not written"):
        writer.finish({})
    writer.write("w", 3, rows[3:4])
    for wrong in (rows[:1].astype(np.float64), rows[:1, :1], np.tile(rows, (2, 1))):
        with pytest.raises(ValueError, match="rows"):
            writer.write("w", 0, wrong)
    writer.finish({})
    assert (loaded(tmp_path / "a.pt")["w"].numpy() == rows).all()


def test_the_same_bytes_wherever_and_whenever(tmp_path):
    files = [tmp_path / "a.pt", tmp_path / "another name.ckpt"]
    for path in files:
        write(FORMAT, path, arrays(), {"ckgrow": "{}", "note": "n"})
    first, second = (path.read_bytes() for path in files)
    assert first == second
    side, other = (path.with_name(f"{path.name}.ckgrow.json").read_bytes() for path in files)
    assert side == other


def test_an_existing_file_is_written_over_in_place(tmp_path):
    """The part file is held under a lock, which a new file would not have."""
    path = tmp_path / "a.pt"
    path.write_bytes(b"x" * 1_000_000)
    node = path.stat().st_ino
    write(FORMAT, path, {"w": np.ones(2)})
    assert path.stat().st_ino == node
    assert path.stat().st_size < 10_000
    assert loaded(path)["w"].tolist() == [1, 1]


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EFBIG])
@pytest.mark.parametrize("after", [0, 3, 20])
def test_a_full_disk(number, after, tmp_path, monkeypatch):
    calls = iter(range(1000))
    write_for_real = os.pwrite

    def pwrite(*arguments: Any) -> int:
        if next(calls) >= after:
            raise OSError(number, os.strerror(number))
        return write_for_real(*arguments)

    writer = created(FORMAT, tmp_path / "a.pt", Header({"w": TensorSpec("float32", (1,))}))
    writer.write("w", 0, np.ones(1, np.float32))
    monkeypatch.setattr(os, "pwrite", pwrite)
    with pytest.raises(FileError, match=r"a\.pt cannot be written: the (disk|file) is"):
        writer.finish({})
    writer.abandon()


@pytest.mark.parametrize("place", ["missing/a.pt", "."])
def test_places_that_cannot_be_written(place, tmp_path):
    with pytest.raises(FileError, match="cannot be written"):
        created(FORMAT, tmp_path / place, Header({}))
