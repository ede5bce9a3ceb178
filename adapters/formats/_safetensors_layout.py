"""The layout of a safetensors file, and the bytes that describe it.

The format (https://github.com/huggingface/safetensors, "Format"): 8 bytes of little-endian length,
that many bytes of JSON, then the data without a gap.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from ckgrow.errors import CheckpointError
from ckgrow.header import Header
from ckgrow.names import shown

PREFIX_LENGTH = 8
"""Bytes of the length that stands before the JSON."""

MAX_LENGTH = 100_000_000
"""Longest JSON in bytes; the reference library refuses more."""

METADATA = "__metadata__"
"""The key of the file's own string entries, which no tensor can have."""

NUMPY_NAMES = {
    "BOOL": "bool",
    "U8": "uint8",
    "I8": "int8",
    "U16": "uint16",
    "I16": "int16",
    "U32": "uint32",
    "I32": "int32",
    "U64": "uint64",
    "I64": "int64",
    "F16": "float16",
    "BF16": "bfloat16",
    "F32": "float32",
    "F64": "float64",
    "C64": "complex64",
    "F8_E4M3": "float8_e4m3fn",
    "F8_E5M2": "float8_e5m2",
    "F8_E8M0": "float8_e8m0fnu",
    "F8_E4M3FNUZ": "float8_e4m3fnuz",
    "F8_E5M2FNUZ": "float8_e5m2fnuz",
}
"""Names of dtypes: the file's to numpy's."""

_STORED_NAMES = {numpy_name: stored for stored, numpy_name in NUMPY_NAMES.items()}


@dataclass(frozen=True)
class Layout:
    """Where everything stands: ``offsets`` in bytes from the beginning of the file."""

    header: Header
    offsets: Mapping[str, int]
    metadata: Mapping[str, str]


def compose(header: Header, metadata: Mapping[str, str], place: str) -> tuple[bytes, Layout]:
    """The first bytes of a file (length and JSON) that holds these tensors, and its layout.

    Tensors are named in the order of ``header``; the data of wider elements comes first, so that
    every element is aligned to its own size. Raises CheckpointError for what the format cannot
    hold.
    """
    entries: dict[str, Any] = {METADATA: dict(metadata)} if metadata else {}
    begins: dict[str, int] = {}
    position = 0
    for name in sorted(header, key=lambda each: -header[each].itemsize):
        begins[name] = position
        position += header[name].nbytes
    for name, spec in header.items():
        if name == METADATA:
            raise CheckpointError(f"{place}: safetensors cannot hold a tensor called {METADATA}")
        if spec.dtype not in _STORED_NAMES:
            raise CheckpointError(
                f"{place}: safetensors cannot hold tensor {shown(name)} of dtype {spec.dtype}"
            )
        entries[name] = {
            "dtype": _STORED_NAMES[spec.dtype],
            "shape": list(spec.shape),
            "data_offsets": [begins[name], begins[name] + spec.nbytes],
        }
    require_text((*header, *metadata, *metadata.values()), place)
    text = json.dumps(entries, ensure_ascii=False, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    if len(text) > MAX_LENGTH:
        raise CheckpointError(
            f"{place}: names, shapes and metadata need {len(text)} bytes of header; safetensors "
            f"allows {MAX_LENGTH}"
        )
    start = len(text).to_bytes(PREFIX_LENGTH, "little") + text
    offsets = {name: len(start) + begin for name, begin in begins.items()}
    return start, Layout(header, offsets, dict(metadata))


def require_text(texts: Iterable[str], place: str) -> None:
    """Raises CheckpointError for a text that UTF-8 cannot hold."""
    for text in texts:
        try:
            text.encode()
        except UnicodeEncodeError:
            raise CheckpointError(
                f"{place}: the name {shown(text)} is no valid Unicode; rename it"
            ) from None
