"""The arrays of an npz archive: what each one is, and where its data stands."""

from __future__ import annotations

import io
import warnings
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.lib import format as npy

from ckgrow.checkpoint import File
from ckgrow.errors import CheckpointError
from ckgrow.header import TensorSpec
from ckgrow.names import shown

from ._npz_layout import DTYPES, RAW_DTYPES, SUFFIX
from ._shapes import nbytes_of
from ._side_file import side_name
from ._zip_reading import DEFLATED, STORED, Member

_LONGEST_HEADER = 10_000  # characters; what numpy itself reads of a file that it does not trust
_HEADER_WINDOW = 12 + _LONGEST_HEADER  # with magic, version and length
_HEADERS = {
    (1, 0): npy.read_array_header_1_0,
    (2, 0): npy.read_array_header_2_0,
    (3, 0): npy.read_array_header_2_0,  # with names of fields, which no array of numbers has
}
_EXPANSION = 64  # mostly zeros compress well; a thousandfold is the most that deflate can do
_SLACK = 16 << 20


@dataclass(frozen=True)
class Array:
    """One array: its tensor, and how its data stands in ``member``.

    ``dtype`` is the stored one, with its byte order. The data begins ``skipped`` bytes after the
    member's beginning; ``columns`` says that its first axis runs fastest.
    """

    spec: TensorSpec
    member: Member
    dtype: np.dtype[Any]
    skipped: int
    columns: bool

    @property
    def in_rows(self) -> bool:
        """Whether a row's bytes stand together in the file."""
        return self.member.method == STORED and not self.columns


def arrays(file: File, found: tuple[Member, ...], dtypes: Mapping[str, str]) -> dict[str, Array]:
    """The arrays of an archive by tensor name; ``dtypes`` are those of the side file.

    Raises CheckpointError for what is no array of numbers, or not as long as it says.
    """
    _require_no_bomb(file, found)
    result: dict[str, Array] = {}
    for member in found:
        if not member.name.endswith(SUFFIX):
            raise CheckpointError(
                f"{file.place} holds {shown(member.name)}, which is no array; an npz file holds "
                f"members that end in {SUFFIX}, as numpy.savez writes them"
            )
        name = member.name.removesuffix(SUFFIX)
        result[name] = _array(file, name, member, dtypes.get(name))
    for name in dtypes:
        if name not in result:
            raise _foreign_side_file(file, f"it names a tensor {shown(name)}, which is not there")
    return result


def unpacked(file: File, name: str, array: Array) -> np.ndarray:
    """The whole tensor in memory, from a member that is compressed or stands in columns.

    Raises CheckpointError when its bytes are not those that were packed.
    """
    member = array.member
    data = file.read(member.offset, member.stored)
    if member.method == DEFLATED:
        data = _inflated(data, member.size, file, name)
    if zlib.crc32(data) != member.checksum:
        raise damaged(file, name)
    count = array.spec.size
    flat = np.frombuffer(data, array.dtype, count, array.skipped)
    return native(flat).reshape(array.spec.shape, order="F" if array.columns else "C")


def native(values: np.ndarray) -> np.ndarray:
    """The same numbers in the byte order of this machine."""
    if values.dtype.isnative:
        return values
    return values.byteswap().view(values.dtype.newbyteorder())


def damaged(file: File, name: str) -> CheckpointError:
    """Tensor ``name`` does not have the checksum that stands in the file."""
    return CheckpointError(
        f"{file.place} is damaged: tensor {shown(name)} is not what was saved (its checksum "
        "differs); fetch or save the file again"
    )


def _array(file: File, name: str, member: Member, meant: str | None) -> Array:
    stream = io.BytesIO(_beginning(file, name, member))
    try:
        with warnings.catch_warnings():  # about files that Python 2 wrote, which is no matter
            warnings.simplefilter("ignore")
            read = _HEADERS[npy.read_magic(stream)]
            shape, columns, dtype = read(stream, max_header_size=_LONGEST_HEADER)
    except Exception as failure:  # noqa: BLE001 - a forged header can make it raise anything
        raise CheckpointError(
            f"{file.place}: tensor {shown(name)} is no numpy array ({type(failure).__name__} in "
            "its header); save the file again"
        ) from None
    spec = TensorSpec(_dtype_name(file, name, dtype, meant), tuple(map(int, shape)))
    if min(shape, default=0) < 0:
        raise CheckpointError(
            f"{file.place}: the shape of tensor {shown(name)} has a negative size; the file is "
            "damaged or forged"
        )
    nbytes = nbytes_of(name, shape, dtype.itemsize, file.place)
    if stream.tell() + nbytes != member.size:
        raise CheckpointError(
            f"{file.place}: tensor {shown(name)} has {member.size - stream.tell()} bytes, but its "
            f"shape and dtype need {nbytes}; the file is damaged, fetch or save it again"
        )
    if not nbytes and zlib.crc32(stream.getvalue()) != member.checksum:
        raise damaged(file, name)  # with rows, it shows when they were read
    several = sum(size > 1 for size in shape) > 1
    return Array(spec, member, dtype, stream.tell(), bool(columns) and several)


def _beginning(file: File, name: str, member: Member) -> bytes:
    """The first bytes of a member, unpacked."""
    if member.method == STORED:
        if member.stored != member.size:
            raise damaged(file, name)
        return file.read(member.offset, min(member.size, _HEADER_WINDOW))
    if member.method == DEFLATED:
        packed = file.read(member.offset, min(member.stored, _HEADER_WINDOW))
        return _inflated_start(packed, file, name)
    raise CheckpointError(
        f"{file.place}: tensor {shown(name)} is compressed by method {member.method}, which numpy "
        "never uses; save the file again with numpy.savez"
    )


def _dtype_name(file: File, name: str, dtype: np.dtype[Any], meant: str | None) -> str:
    if dtype.hasobject:
        raise CheckpointError(
            f"{file.place}: tensor {shown(name)} holds Python objects, and unpickling them runs "
            "code from the file; save it as an array of numbers"
        )
    stored = dtype.newbyteorder("=").name
    if meant is not None:
        if RAW_DTYPES.get(meant) != stored:
            raise _foreign_side_file(file, f"it says {shown(meant)} of {shown(name)}, a {stored}")
        return meant
    if stored not in DTYPES:
        raise CheckpointError(
            f"{file.place}: tensor {shown(name)} has dtype {shown(dtype.str)}, which ckgrow cannot "
            f"read; it reads {', '.join(DTYPES)}, and bfloat16 or float8 as raw integers with a "
            "side file"
        )
    return stored


def _foreign_side_file(file: File, fault: str) -> CheckpointError:
    return CheckpointError(
        f"{shown(side_name(file.name))} does not belong to {file.place} beside it: {fault}; move "
        "it away to read the arrays as they are"
    )


def _require_no_bomb(file: File, found: tuple[Member, ...]) -> None:
    total = sum(member.size for member in found if member.method != STORED)
    if total > _EXPANSION * file.size + _SLACK:
        raise CheckpointError(
            f"{file.place} is a compressed archive that expands from {file.size} to {total} bytes; "
            "if it is yours, save it with numpy.savez, which does not compress"
        )


def _inflated(data: bytes, size: int, file: File, name: str) -> bytes:
    """Exactly ``size`` bytes, whatever the archive would unpack to."""
    packer = zlib.decompressobj(-zlib.MAX_WBITS)
    try:
        result = packer.decompress(data, size + 1)
    except zlib.error:
        raise damaged(file, name) from None
    if len(result) != size or not packer.eof:
        raise damaged(file, name)
    return result


def _inflated_start(data: bytes, file: File, name: str) -> bytes:
    try:
        return zlib.decompressobj(-zlib.MAX_WBITS).decompress(data, _HEADER_WINDOW)
    except zlib.error:
        raise damaged(file, name) from None
