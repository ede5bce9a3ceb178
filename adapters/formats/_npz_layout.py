"""The layout of an npz file: a zip archive of arrays, each as numpy.save writes one.

The format of an array (numpy.lib.format): a magic, a header that is the text of a Python dict, then
the numbers, row by row or, with ``fortran_order``, column by column.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from numpy.lib import format as npy

from ckgrow.errors import CheckpointError
from ckgrow.header import Header, TensorSpec, numpy_dtype
from ckgrow.names import shown

from ._safetensors_layout import require_text
from ._zip_writing import Entry, directory, local_header

SUFFIX = ".npy"
"""What the name of a member has after that of its tensor."""

DTYPES = (
    *("float64", "float32", "float16", "complex128", "complex64", "bool"),
    *("int64", "int32", "int16", "int8", "uint64", "uint32", "uint16", "uint8"),
)
"""What numpy has of its own."""

RAW_DTYPES = {
    "bfloat16": "uint16",
    "float8_e4m3fn": "uint8",
    "float8_e5m2": "uint8",
    "float8_e8m0fnu": "uint8",
    "float8_e4m3fnuz": "uint8",
    "float8_e5m2fnuz": "uint8",
}
"""What stands in the file for a dtype that numpy lacks; the side file has the real one."""

_LONGEST_NAME = 0xFFFF - len(SUFFIX)  # bytes


@dataclass(frozen=True)
class Layout:
    """Where everything stands: ``members`` as in the directory but for their checksums.

    ``heads`` are numpy's headers, ``offsets`` those of the tensors' bytes, all in the header's
    order; ``end`` is where the directory begins, and ``size`` the file's.
    """

    header: Header
    members: tuple[Entry, ...]
    heads: Mapping[str, bytes]
    offsets: Mapping[str, int]
    end: int
    size: int

    def closing(self, checksums: Mapping[str, int]) -> Iterator[tuple[int, bytes]]:
        """Everything beside the tensors' bytes, each with its offset.

        ``checksums`` are those of the members, by tensor.
        """
        entries: list[Entry] = []
        for name, member in zip(self.header, self.members, strict=True):
            entries.append(replace(member, checksum=checksums[name]))
            before = local_header(member.name, checksums[name], member.size)
            yield member.header, before + self.heads[name]
        yield self.end, directory(entries, self.end)


def compose(header: Header, place: str) -> Layout:
    """Where everything will stand in a file that holds these tensors, in their order.

    Raises CheckpointError for what the format cannot hold.
    """
    members: list[Entry] = []
    heads: dict[str, bytes] = {}
    offsets: dict[str, int] = {}
    position = 0
    require_text(header, place)
    for name, spec in header.items():
        _require_name(name, place)
        head = heads[name] = _head(name, spec, place)
        member = Entry(name + SUFFIX, 0, len(head) + spec.nbytes, position)
        members.append(member)
        offsets[name] = position + len(local_header(member.name, 0, member.size)) + len(head)
        position = offsets[name] + spec.nbytes
    size = position + len(directory(members, position))
    return Layout(header, tuple(members), heads, offsets, position, size)


def _head(name: str, spec: TensorSpec, place: str) -> bytes:
    stored = RAW_DTYPES.get(spec.dtype, spec.dtype)
    if stored not in DTYPES:
        raise CheckpointError(
            f"{place}: npz cannot hold tensor {shown(name)} of dtype {spec.dtype}"
        )
    stream = io.BytesIO()
    described = npy.dtype_to_descr(numpy_dtype(stored))
    entries = {"descr": described, "fortran_order": False, "shape": spec.shape}
    npy.write_array_header_1_0(stream, entries)
    return stream.getvalue()


def _require_name(name: str, place: str) -> None:
    """Names that end early, or would be unpacked outside of the folder one unpacks into."""
    if "\0" in name or len(name.encode()) > _LONGEST_NAME:
        raise CheckpointError(
            f"{place}: npz cannot hold a tensor called {shown(name)}: names there have no NUL and "
            f"at most {_LONGEST_NAME} bytes; rename it"
        )
    parts = re.split(r"[/\\]", name)
    if len(parts) > 1 and (not parts[0] or ".." in parts or parts[0].endswith(":")):
        raise CheckpointError(
            f"{place}: npz cannot hold a tensor called {shown(name)}: its archive would unpack to "
            "a place outside of the folder; rename it"
        )
