"""Arrays that a user hands over in a file: graph inputs, or what another framework made of them."""

from __future__ import annotations

import math
import zipfile
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import IO, Generic, TypeVar

import numpy as np

from ckgrow.checkpoint import Reader
from ckgrow.errors import CheckpointError, FileError
from ckgrow.files import open_file
from ckgrow.graph import Shape
from ckgrow.header import TensorSpec
from ckgrow.names import shown, shown_path
from ckgrow.reasons import unreadable
from ckgrow.registry import format_named, formats

LARGEST = 4 * 2**30
"""Bytes that the arrays of one file may unpack to: above any sensible batch, below a bomb."""


UNREADABLE = (
    *(ValueError, EOFError, OverflowError, MemoryError, KeyError, RuntimeError),
    *(zipfile.BadZipFile, zlib.error),
)
"""What numpy and zipfile raise on files that are damaged, encrypted, pickled, or claim too much."""


Found = TypeVar("Found")


def read_arrays(
    path: Path,
    wanted: Mapping[str, Shape],
    role: str,
    others: Mapping[str, Shape] = MappingProxyType({}),
) -> dict[str, np.ndarray]:
    """The arrays of ``path`` by name, each checked against ``wanted``; not all need be there.

    ``wanted`` are shapes with a batch dimension first, ``role`` what they are ("graph input");
    an array may have its shape in ``others`` instead. A single array may bear any name when a
    single one is wanted. The file is .npy, .npz, or of a checkpoint format; pickled objects are
    never loaded.
    """
    found = _named(path, _load(path, _ARRAYS), wanted, role)
    for name, array in found.items():
        what = f"{shown_path(path)}: the {role} {shown(name)}"
        shapes = dict.fromkeys((wanted[name], others.get(name, wanted[name])))
        _check(what, TensorSpec(array.dtype.name, array.shape), tuple(shapes))
        broken = int(array.size - np.isfinite(array.astype(np.float64)).sum())
        if broken:
            raise CheckpointError(
                f"{what} holds NaN or infinity ({broken} of {array.size} values), on which nothing "
                "can be compared"
            )
    return found


def read_headers(
    path: Path, wanted: Mapping[str, Shape], role: str, advice: str = ""
) -> dict[str, TensorSpec]:
    """Dtypes and shapes of what :func:`read_arrays` reads, checked alike; no data is read.

    (Checkpoint formats that cannot be opened without their data are read.) ``advice`` ends what is
    said of arrays whose samples have another size than ``wanted``, but as many channels.
    """
    found = _named(path, _load(path, _HEADERS), wanted, role)
    for name, spec in found.items():
        _check(f"{shown_path(path)}: the {role} {shown(name)}", spec, (wanted[name],), advice)
    return found


def load_arrays(path: Path) -> dict[str, np.ndarray]:
    """Every array of ``path`` by name ("" in a .npy file), unchecked."""
    return _load(path, _ARRAYS)


def _named(
    path: Path, found: dict[str, Found], wanted: Mapping[str, Shape], role: str
) -> dict[str, Found]:
    if not found:
        raise CheckpointError(f"{shown_path(path)} holds no array; expected {_listed(wanted)}")
    if len(found) == len(wanted) == 1:
        return dict(zip(wanted, found.values(), strict=True))
    for name in found:
        if name not in wanted:
            raise CheckpointError(
                f"{shown_path(path)}: the array {shown(name)} is no {role}; "
                f"expected {_listed(wanted)}"
            )
    return found


def _check(what: str, found: TensorSpec, shapes: tuple[Shape, ...], advice: str = "") -> None:
    if not found.is_float:
        raise CheckpointError(
            f"{what} is {found.dtype}; expected a floating point dtype: save it as float32"
        )
    if not any(_fits(found.shape, shape) for shape in shapes):
        hint = ""
        if any(found.shape == tuple(shape[1:]) for shape in shapes):
            hint = "; the first dimension counts the samples: use array[None]"
        elif any(_fits(found.shape, (*shape[:2], *found.shape[2:])) for shape in shapes):
            hint = advice
        expected = " or ".join(map(_sizes, shapes))
        raise CheckpointError(f"{what} has shape {list(found.shape)}; expected {expected}{hint}")
    if not found.size:
        raise CheckpointError(f"{what} is empty: shape {list(found.shape)}; give some samples")


def _fits(sizes: tuple[int, ...], shape: Shape) -> bool:
    return len(sizes) == len(shape) and all(
        size == expected or isinstance(expected, str)
        for size, expected in zip(sizes, shape, strict=True)
    )


@dataclass(frozen=True)
class _Taking(Generic[Found]):
    """How something is taken of every array in a file.

    ``stored`` reads it from a .npy stream of so many bytes, ``tensor`` from an open checkpoint.
    """

    stored: Callable[[IO[bytes], int], Found]
    tensor: Callable[[Reader, str], Found]


def _stored_array(file: IO[bytes], size: int) -> np.ndarray:
    _stored_header(file, size)  # before anything is allocated that it merely claims
    file.seek(0)
    return np.lib.format.read_array(file, allow_pickle=False)


def _stored_header(file: IO[bytes], size: int) -> TensorSpec:
    version = np.lib.format.read_magic(file)
    if version == (1, 0):
        shape, _, dtype = np.lib.format.read_array_header_1_0(file)
    elif version == (2, 0):
        shape, _, dtype = np.lib.format.read_array_header_2_0(file)
    else:  # 3.0 is for records with names that are not Latin
        raise ValueError(f"arrays of numbers are not stored in version {version} of the format")
    if dtype.hasobject:
        raise ValueError("it holds Python objects, which are never loaded; save numbers as float32")
    if min(shape, default=0) < 0:
        raise ValueError(f"it claims the shape {list(shape)}")
    claimed = math.prod(shape) * dtype.itemsize
    if file.tell() + claimed > size:
        raise ValueError(f"it is cut short: {claimed} bytes of data are not there")
    return TensorSpec(dtype.name, shape)


def _tensor(reader: Reader, name: str) -> np.ndarray:
    shape = reader.header[name].shape
    return reader.read(name, 0, shape[0] if shape else 1).reshape(shape)


def _tensor_header(reader: Reader, name: str) -> TensorSpec:
    return reader.header[name]


_ARRAYS = _Taking(_stored_array, _tensor)
_HEADERS = _Taking(_stored_header, _tensor_header)


def _load(path: Path, taking: _Taking[Found]) -> dict[str, Found]:
    try:
        if not path.exists():
            raise FileError(f"{shown_path(path)} does not exist")
        if not path.is_file():
            raise FileError(f"{shown_path(path)} is not a file")
        if path.suffix == ".npy":
            return {"": _npy(path, taking)}
        if path.suffix == ".npz":
            return _npz(path, taking)
        return _checkpoint(path, taking)
    except OSError as failure:
        raise FileError(f"{shown_path(path)} cannot be read: {unreadable(failure)}") from failure


def _npy(path: Path, taking: _Taking[Found]) -> Found:
    try:
        with path.open("rb") as file:
            return taking.stored(file, path.stat().st_size)
    except UNREADABLE as failure:
        raise CheckpointError(
            f"{shown_path(path)} is no readable .npy file: {_line(failure)}"
        ) from failure


def _npz(path: Path, taking: _Taking[Found]) -> dict[str, Found]:
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
            size = sum(entry.file_size for entry in entries)
            if size > LARGEST:
                raise CheckpointError(
                    f"{shown_path(path)} unpacks to {size} bytes; the limit is {LARGEST}"
                )
            found: dict[str, Found] = {}
            for entry in entries:
                with archive.open(entry) as file:
                    name = entry.filename.removesuffix(".npy")
                    found[name] = taking.stored(file, entry.file_size)
            return found
    except UNREADABLE as failure:
        raise CheckpointError(
            f"{shown_path(path)} is no readable .npz file: {_line(failure)}"
        ) from failure


def _checkpoint(path: Path, taking: _Taking[Found]) -> dict[str, Found]:
    adapter = format_named(path.name)
    if adapter is not None:
        reader = adapter.open(open_file(path), None)
        try:
            return {name: taking.tensor(reader, name) for name in reader.header}
        finally:
            reader.close()
    known = sorted({".npy", ".npz", *(end for each in formats().values() for end in each.suffixes)})
    raise CheckpointError(f"{shown_path(path)}: arrays are read from {', '.join(known)} files")


def _listed(wanted: Mapping[str, Shape]) -> str:
    return ", ".join(f"{shown(name)} {_sizes(shape)}" for name, shape in wanted.items())


def _sizes(shape: Shape) -> str:
    return f"[{', '.join(map(str, shape))}]"


def _line(failure: Exception) -> str:
    return " ".join(str(failure).split()) or type(failure).__name__
