"""A hash of what stands in a torch file beside its weights, by value.

Two files that torch reads the same way have the same hash, whatever the bytes of their pickles are.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from blake3 import blake3

from ._torch_weights import is_tensor

if TYPE_CHECKING:
    import torch


def digest(value: Any) -> str:
    """BLAKE3 of ``value`` and everything in it, in hexadecimal.

    What comes out of a pickle may be nested deeply, in itself, and in a thousand places: what was
    seen before counts by its number.
    """
    return _digest(value, {})


def _digest(value: Any, members: dict[int, str]) -> str:
    """The same; ``members`` are the digests of members of sets, by their id."""
    total = blake3()
    seen: dict[object, int] = {}
    waiting = [value]

    def is_new(key: object) -> bool:
        known = len(seen)
        total.update(b"number %d;" % seen.setdefault(key, known))
        return len(seen) > known

    while waiting:
        each = waiting.pop()
        if isinstance(each, Mapping | list | tuple | set | frozenset):
            if is_new(id(each)):
                parts = _parts(each, members)
                total.update(f"{type(each).__name__} of {len(parts)};".encode())
                waiting.extend(reversed(parts))
        elif not is_tensor(each):
            total.update(_scalar(each))
        elif is_new(id(each)):
            total.update(repr((each.dtype, tuple(each.shape), type(each))).encode())
            if not _is_plain(each):
                total.update(_saved(each))
                continue
            place = each.storage_offset(), each.stride(), each.is_neg(), each.is_conj()
            total.update(repr(place).encode())
            storage = each.untyped_storage()
            if is_new((storage.data_ptr(), storage.nbytes())):
                total.update(memoryview(_bytes(storage)))
    return str(total.hexdigest())


def _parts(value: Any, members: dict[int, str]) -> list[Any]:
    """What is in a container, in an order that does not depend on the process."""
    if isinstance(value, set | frozenset):
        for each in value:
            if id(each) not in members:
                members[id(each)] = _digest(each, members)
        return sorted(members[id(each)] for each in value)
    if not isinstance(value, Mapping):
        return list(value)
    own = getattr(value, "__dict__", None)  # as a state dict has its _metadata
    return [*(part for pair in value.items() for part in pair), *([own] if own else [])]


def _scalar(value: Any) -> bytes:
    if type(value) is float:
        text = struct.pack("<d", value).hex()
    else:
        text = hex(value) if type(value) is int else repr(value)  # no limit on digits
    data = text.encode(errors="surrogatepass")
    return f"{type(value).__name__} of {len(data)};".encode() + data


def _is_plain(tensor: torch.Tensor) -> bool:
    import torch

    dense = tensor.layout is torch.strided and not tensor.is_quantized and not tensor.is_nested
    return dense and tensor.device.type == "cpu"


def _bytes(storage: torch.UntypedStorage) -> Any:
    import torch

    return torch.empty(0, dtype=torch.uint8).set_(storage).numpy()


def _saved(tensor: torch.Tensor) -> bytes:
    """Of a tensor whose numbers are not in one place: as it is saved."""
    import torch

    stream = io.BytesIO()
    torch.save(tensor, stream)
    return stream.getvalue()
