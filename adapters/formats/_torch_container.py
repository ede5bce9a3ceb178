"""What stands in a loaded torch file beside the weights, and how such a file is put together again.

A training checkpoint holds several state dicts, an optimizer, counters and settings. Those with the
same tensors as the weights are their *twins*. What else holds arrays of numbers belongs to the old
shapes; everything small is carried over as it is.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ckgrow.checkpoint import PROVENANCE_KEY
from ckgrow.errors import CheckpointError
from ckgrow.header import Header, common_prefix

from ._torch_ties import Ties, joined, place_of, renamed, same_bits, ties_of
from ._torch_weights import is_tensor, specs_of, tensors_in

if TYPE_CHECKING:
    import torch

_OPTIMIZER = frozenset({"state", "param_groups"})


@dataclass(frozen=True)
class Twin:
    """Another state dict of the same tensors."""

    header: Header
    ties: Ties


@dataclass(frozen=True)
class Container:
    """The entries of a loaded torch file, and the name of its weights; None where they are all."""

    entries: Mapping[Any, Any]
    weights: str | None

    @property
    def record(self) -> str | None:
        """The record of growth that stands in it."""
        record = self.entries.get(PROVENANCE_KEY)
        return record if isinstance(record, str) else None

    def state_dict(self, name: str | None) -> Mapping[Any, Any]:
        """One of the state dicts; None is the file itself."""
        entries: Mapping[Any, Any] = self.entries if name is None else self.entries[name]
        return entries

    def twins(self, header: Header, ties: Ties, capacity: int, place: str) -> dict[str, Twin]:
        """The other state dicts with tensors as in ``header``, whatever their dtypes and wrappers.

        What the weights tie is tied in a twin too, even if it was copied there, as averages are.
        ``capacity`` and ``place`` are those of the file.
        """
        found: dict[str, Twin] = {}
        for name, value in self.entries.items():
            if self.weights in (None, name) or not isinstance(name, str):
                continue
            if isinstance(value, Mapping) and (tensors := tensors_in(value)):
                try:
                    other = specs_of(tensors, capacity, place)
                except CheckpointError:  # it is none that could grow
                    continue
                own = joined(ties_of(tensors), renamed(ties, header, other))
                equal = all(same_bits(tensors[a], tensors[b]) for a, *rest in own for b in rest)
                if equal and _bare_shapes(other) == _bare_shapes(header):
                    found[name] = Twin(other, own)
        return found

    def ungrown(self, state_dicts: Iterable[str | None]) -> Iterator[str]:
        """Names of entries with arrays that are not in one of ``state_dicts``."""
        known = set(state_dicts)
        if self.weights is not None:
            for key, value in self.entries.items():
                if key not in known and _holds_arrays(value):
                    yield str(key)
        for name in known:
            entries = self.state_dict(name)
            for key, value in entries.items():
                if not is_tensor(value) and _holds_arrays(value):
                    yield entry_name(name, key)

    def same(self, name: str) -> bool:
        """Whether every tensor of the state dict ``name`` is one of the weights', not a copy."""
        weights = {place_of(each) for each in tensors_in(self.state_dict(self.weights)).values()}
        return all(place_of(each) in weights for each in tensors_in(self.state_dict(name)).values())

    def rebuilt(
        self,
        state_dicts: Mapping[str | None, Mapping[str, torch.Tensor]],
        drop: Iterable[str],
        record: str | None,
    ) -> Mapping[Any, Any]:
        """The same with other tensors in ``state_dicts``, without ``drop``, everything in order.

        A container gets ``record``; a bare state dict has no place for it.
        """
        left_out = {*drop, PROVENANCE_KEY}
        if self.weights is None:
            return _refilled(self.entries, None, state_dicts[None], left_out)
        made = type(self.entries)() if type(self.entries) is OrderedDict else {}
        for key, value in self.entries.items():
            if str(key) in left_out:
                continue
            grown = state_dicts.get(key) if isinstance(key, str) else None
            made[key] = value if grown is None else _refilled(value, key, grown, left_out)
        if record is not None:
            made[PROVENANCE_KEY] = record
        return made


def entry_name(state_dict: str | None, key: object) -> str:
    """What an entry inside a state dict is called; that of a bare one by its key alone."""
    return str(key) if state_dict is None else f"{state_dict}.{key}"


def _refilled(
    old: Mapping[Any, Any],
    name: str | None,
    tensors: Mapping[str, torch.Tensor],
    left_out: set[str],
) -> dict[Any, Any]:
    """A state dict with other tensors: those that it had in their places, new ones at the end.

    What a module says of its version (``_metadata``) goes with it.
    """
    made: dict[Any, Any] = OrderedDict() if isinstance(old, OrderedDict) else {}
    for key, value in old.items():
        if key in tensors:
            made[key] = tensors[key]
        elif not is_tensor(value) and entry_name(name, key) not in left_out:
            made[key] = value
    made.update((key, tensor) for key, tensor in tensors.items() if key not in made)
    if isinstance(old, OrderedDict):
        vars(made).update(vars(old))
    return made


def _bare_shapes(header: Header) -> dict[str, tuple[int, ...]]:
    prefix = common_prefix(header)
    return {name.removeprefix(prefix): spec.shape for name, spec in header.items()}


def _holds_arrays(value: Any) -> bool:
    """Whether floating-point tensors with an axis are in it, or the state of an optimizer.

    What comes out of a pickle may be nested deeply, and in itself.
    """
    seen: set[int] = set()
    waiting = [value]
    while waiting:
        each = waiting.pop()
        if id(each) in seen:
            continue
        seen.add(id(each))
        if is_tensor(each):
            if each.is_floating_point() and each.ndim:
                return True
        elif isinstance(each, Mapping):
            if each.keys() >= _OPTIMIZER:
                return True
            waiting.extend(each.values())
        elif isinstance(each, list | tuple | set | frozenset):
            waiting.extend(each)
    return False
