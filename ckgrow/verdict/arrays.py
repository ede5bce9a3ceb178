"""Arrays that a user hands over in a file: graph inputs, or what another framework made of them."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

import numpy as np

from ckgrow.errors import CheckpointError, FileError
from ckgrow.graph import Shape
from ckgrow.header import FLOAT_DTYPES
from ckgrow.names import shown, shown_path
from ckgrow.registry import formats

LARGEST = 4 * 2**30
"""Bytes that the arrays of one file may unpack to: above any sensible batch, below a bomb."""


UNREADABLE = (
    *(ValueError, EOFError, OverflowError, MemoryError, KeyError, RuntimeError),
    *(zipfile.BadZipFile, zlib.error),
)
"""What numpy and zipfile raise on files that are damaged, encrypted, pickled, or claim too much."""


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
    found = _load(path)
    if not found:
        raise CheckpointError(f"{shown_path(path)} holds no array; expected {_listed(wanted)}")
    if len(found) == len(wanted) == 1:
        found = dict(zip(wanted, found.values(), strict=True))
    for name, array in found.items():
        if name not in wanted:
            raise CheckpointError(
                f"{shown_path(path)}: the array {shown(name)} is no {role}; "
                f"expected {_listed(wanted)}"
            )
        shapes = dict.fromkeys((wanted[name], others.get(name, wanted[name])))
        _check(f"{shown_path(path)}: the {role} {shown(name)}", array, tuple(shapes))
    return found


def _check(what: str, array: np.ndarray, shapes: tuple[Shape, ...]) -> None:
    if array.dtype.name not in FLOAT_DTYPES:
        raise CheckpointError(f"{what} is {array.dtype.name}; expected a floating point dtype")
    if not any(_fits(array.shape, shape) for shape in shapes):
        hint = ""
        if any(array.shape == tuple(shape[1:]) for shape in shapes):
            hint = "; the first dimension counts the samples: use array[None]"
        expected = " or ".join(map(_sizes, shapes))
        raise CheckpointError(f"{what} has shape {list(array.shape)}; expected {expected}{hint}")
    if not array.size:
        raise CheckpointError(f"{what} is empty: shape {list(array.shape)}")
    broken = int(array.size - np.isfinite(array.astype(np.float64)).sum())
    if broken:
        raise CheckpointError(f"{what} holds NaN or infinity ({broken} of {array.size} values)")


def _fits(sizes: tuple[int, ...], shape: Shape) -> bool:
    return len(sizes) == len(shape) and all(
        size == expected or isinstance(expected, str)
        for size, expected in zip(sizes, shape, strict=True)
    )


def _load(path: Path) -> dict[str, np.ndarray]:
    if not path.exists():
        raise FileError(f"{shown_path(path)} does not exist")
    if not path.is_file():
        raise FileError(f"{shown_path(path)} is not a file")
    try:
        if path.suffix == ".npy":
            return {"": _npy(path)}
        if path.suffix == ".npz":
            return _npz(path)
        return _checkpoint(path)
    except OSError as failure:
        raise FileError(
            f"{shown_path(path)} cannot be read: {failure.strerror or failure}"
        ) from failure


def _npy(path: Path) -> np.ndarray:
    try:
        with path.open("rb") as file:
            return np.lib.format.read_array(file, allow_pickle=False)
    except UNREADABLE as failure:
        raise CheckpointError(
            f"{shown_path(path)} is no readable .npy file: {_line(failure)}"
        ) from failure


def _npz(path: Path) -> dict[str, np.ndarray]:
    try:
        with zipfile.ZipFile(path) as archive:
            size = sum(entry.file_size for entry in archive.infolist())
        if size > LARGEST:
            raise CheckpointError(
                f"{shown_path(path)} unpacks to {size} bytes; the limit is {LARGEST}"
            )
        with np.load(path, allow_pickle=False) as archive:
            return {name: np.asarray(archive[name]) for name in archive.files}
    except UNREADABLE as failure:
        raise CheckpointError(
            f"{shown_path(path)} is no readable .npz file: {_line(failure)}"
        ) from failure


def _checkpoint(path: Path) -> dict[str, np.ndarray]:
    for adapter in formats().values():
        if path.suffix in adapter.suffixes:
            reader = adapter.open(path, None)
            try:
                return {
                    name: reader.read(name, 0, spec.shape[0] if spec.shape else 1).reshape(
                        spec.shape
                    )
                    for name, spec in reader.header.items()
                }
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
