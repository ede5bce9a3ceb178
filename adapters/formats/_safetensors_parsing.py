"""Parses the header of a safetensors file.

Everything the reference library rejects is rejected here, and a little more, where the library is
lenient and two readers could disagree: duplicate names, anything before ``{``, keys that the format
does not know, entries written as arrays, ``null`` as metadata, elements of less than a byte, ranks
over 64, and shapes whose non-zero part overflows 63 bits.
"""

from __future__ import annotations

import gc
import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ckgrow.errors import CheckpointError
from ckgrow.header import Header, TensorSpec, numpy_dtype
from ckgrow.names import shown
from ckgrow.pairs import NamedTwiceError, once

from ._safetensors_layout import METADATA, NUMPY_NAMES, PREFIX_LENGTH, Layout, require_text
from ._shapes import nbytes_of

_FIELDS = {"dtype", "shape", "data_offsets"}


def parse(text: bytes, file_size: int, place: str) -> Layout:
    """The layout that the JSON ``text`` of a file of ``file_size`` bytes describes.

    Raises CheckpointError, which names the file as ``place``.
    """
    with _uncollected():
        return _layout(text, file_size, place)


def _layout(text: bytes, file_size: int, place: str) -> Layout:
    entries = _entries(text, place)
    metadata = _metadata(entries.pop(METADATA, {}), place)
    specs: dict[str, TensorSpec] = {}
    spans: list[tuple[int, int, str]] = []
    for name, entry in entries.items():
        spec, begin, end = _tensor(name, entry, place)
        specs[name] = spec
        spans.append((begin, end, name))
    spans.sort()
    data_start = PREFIX_LENGTH + len(text)
    _require_gapless(spans, file_size - data_start, place)
    offsets = {name: data_start + begin for begin, _, name in spans}
    return Layout(Header(specs), offsets, metadata)


@contextmanager
def _uncollected() -> Iterator[None]:
    """Holds Python's cycle collector.

    A header is up to a million objects without a cycle; looking through them doubles the time.
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _entries(text: bytes, place: str) -> dict[str, Any]:
    if not text.startswith(b"{"):
        raise CheckpointError(
            f"{place} is not a safetensors file: its header starts with {text[:8]!r}, not with '{{'"
        )
    try:
        decoded = text.decode()
        entries: dict[str, Any] = json.loads(
            decoded,
            object_pairs_hook=once,
            parse_int=_whole if "-0" in decoded else None,  # a name may have it; then it is slower
        )
    except UnicodeDecodeError:
        raise CheckpointError(
            f"{place} is damaged: its header is not UTF-8; fetch or save the file again"
        ) from None
    except NamedTwiceError as twice:
        raise CheckpointError(
            f"{place} is ambiguous: its header names {shown(twice.name)} twice; save the file again"
        ) from None
    except (ValueError, RecursionError) as failure:
        raise CheckpointError(
            f"{place} is damaged: its header is not JSON ({failure}); fetch or save the file again"
        ) from None
    if "\\u" in decoded:  # JSON can spell halves of characters, which UTF-8 cannot hold
        require_text(entries, place)
    return entries


def _whole(digits: str) -> int:
    """A JSON integer, but -0 stays apart from 0: the library refuses it."""
    return -1 if digits == "-0" else int(digits)


def _metadata(entry: Any, place: str) -> dict[str, str]:
    if not isinstance(entry, dict) or not all(isinstance(value, str) for value in entry.values()):
        raise CheckpointError(
            f"{place}: {METADATA} must be an object of strings; save the file again without it, "
            "and give a tensor another name"
        )
    require_text((*entry, *entry.values()), place)
    return entry


def _tensor(name: str, entry: Any, place: str) -> tuple[TensorSpec, int, int]:
    if not isinstance(entry, dict) or entry.keys() != _FIELDS:
        raise CheckpointError(
            f"{place}: tensor {shown(name)} is not described by dtype, shape and data_offsets "
            "alone; save the file again"
        )
    stored, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    dtype = NUMPY_NAMES.get(stored) if isinstance(stored, str) else None
    if dtype is None:
        raise CheckpointError(
            f"{place}: tensor {shown(name)} has dtype {shown(str(stored))}, which ckgrow cannot "
            f"read; it reads {', '.join(NUMPY_NAMES)}"
        )
    if not _is_whole(shape) or not _is_whole(offsets) or len(offsets) != 2:
        raise CheckpointError(
            f"{place}: shape or data_offsets of tensor {shown(name)} are not whole numbers from 0 "
            "on; save the file again"
        )
    begin, end = offsets
    nbytes = nbytes_of(name, shape, numpy_dtype(dtype).itemsize, place)
    if end - begin != nbytes:
        raise CheckpointError(
            f"{place}: tensor {shown(name)} has {end - begin} bytes, but its shape and dtype need "
            f"{nbytes}; the file is damaged, fetch or save it again"
        )
    return TensorSpec(dtype, tuple(shape)), begin, end


def _is_whole(numbers: Any) -> bool:
    return (
        isinstance(numbers, list)
        and {int}.issuperset(map(type, numbers))
        and min(numbers, default=0) >= 0
    )


def _require_gapless(spans: list[tuple[int, int, str]], available: int, place: str) -> None:
    """Refuses holes, overlaps, and data that ends before or after the file does."""
    position = 0
    for begin, end, name in spans:
        if begin != position:
            fault = "overlaps the tensor before it" if begin < position else "comes after a gap"
            raise CheckpointError(
                f"{place}: the data of tensor {shown(name)} {fault}; the file is damaged or forged"
            )
        position = end
    if position > available:
        raise CheckpointError(
            f"{place} is cut short: {position - available} of its {position} bytes of tensors are "
            "missing; fetch or save it again"
        )
    if position < available:
        raise CheckpointError(
            f"{place} has {available - position} bytes after its last tensor; the file is damaged, "
            "fetch or save it again"
        )
