"""Names in a torch file that share one tensor."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from ckgrow.header import Header, common_prefix

if TYPE_CHECKING:
    import torch

Ties = tuple[tuple[str, ...], ...]


def ties_of(tensors: Mapping[str, torch.Tensor]) -> Ties:
    """Names that share one tensor: the same numbers in memory, in the same shape and order."""
    names: dict[object, list[str]] = {}
    for name, tensor in tensors.items():
        if tensor.numel():
            names.setdefault(place_of(tensor), []).append(name)
    return tuple(tuple(each) for each in names.values() if len(each) > 1)


def same_bits(left: torch.Tensor, right: torch.Tensor) -> bool:
    """Whether two tensors are alike to the last bit, NaN included."""
    import torch

    if (left.dtype, left.shape) != (right.dtype, right.shape):
        return False
    if left is right or not left.numel():
        return True
    pair = (each.detach().contiguous().reshape(-1).view(torch.uint8) for each in (left, right))
    return torch.equal(*pair)


def place_of(tensor: torch.Tensor) -> object:
    """Where the numbers of a tensor stand in memory, and how they are read."""
    start = tensor.untyped_storage().data_ptr()
    layout = tensor.storage_offset(), tuple(tensor.shape), tensor.stride()
    return start, *layout, tensor.dtype, tensor.is_neg()


def joined(ties: Ties, more: Ties) -> Ties:
    """Both, each name in one tie at most."""
    above: dict[str, str] = {}  # a name of the same tie, by each but the first

    def first(name: str) -> str:
        while name in above:
            after = above[name]
            if after in above:  # halves the way for whoever comes next
                above[name] = above[after]
            name = after
        return name

    names: dict[str, list[str]] = {}
    for tie in (*ties, *more):
        for name in tie:
            one, other = first(tie[0]), first(name)
            if one != other:
                above[other] = one
    for name in dict.fromkeys(name for tie in (*ties, *more) for name in tie):
        names.setdefault(first(name), []).append(name)
    return tuple(map(tuple, names.values()))


def renamed(ties: Ties, header: Header, other: Header) -> Ties:
    """Ties of tensors of ``header`` as these are called in ``other``, where all of them are."""
    before, after = common_prefix(header), common_prefix(other)
    named = (tuple(after + name.removeprefix(before) for name in tie) for tie in ties)
    return tuple(tie for tie in named if all(name in other for name in tie))
