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

from ckgrow.checkpoint import PROVENANCE_KEY, Content
from ckgrow.errors import CheckpointError
from ckgrow.header import Header, common_prefix

from ._torch_digest import digest
from ._torch_ties import Ties, joined, place_of, renamed, same_bits, ties_of
from ._torch_weights import is_tensor, require_names, specs_of, tensors_in

if TYPE_CHECKING:
    import torch

_OPTIMIZER = frozenset({"state", "param_groups"})
_MOST_TWINS = 64  # each is grown in memory, and a few bytes are enough to name one again


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
            if self.weights in (None, name) or not isinstance(name, str) or name == PROVENANCE_KEY:
                continue
            if isinstance(value, Mapping) and len(found) < _MOST_TWINS:
                twin = _twin(value, header, ties, capacity, place)
                if twin is not None:
                    found[name] = twin
        return found

    def ungrown(self, state_dicts: Iterable[str | None]) -> Iterator[str]:
        """Names of entries that cannot be grown, beside ``state_dicts`` and in them."""
        known = tuple(state_dicts)
        beside: dict[str, Any] = {}
        if self.weights is not None:
            beside = {str(key): each for key, each in self.entries.items() if key not in known}
        for name in known:
            entries = self.state_dict(name)
            own = tensors_in(entries)
            inside = ((key, each) for key, each in entries.items() if key not in own)
            beside |= {entry_name(name, key): each for key, each in inside}
        holding = _holding_arrays(beside.values())
        for name, value in beside.items():
            if id(value) in holding or (name == PROVENANCE_KEY and self.record is None):
                yield name

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
        left_out = {*drop} if self.record is None else {*drop, PROVENANCE_KEY}
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

    def carries(
        self, source: Container, drop: Iterable[str], state_dicts: Iterable[str | None]
    ) -> bool:
        """Whether everything beside the tensors of ``state_dicts`` is that of ``source``.

        That is compared without ``drop``; the record of growth does not count.
        """
        empty: dict[str | None, dict[str, torch.Tensor]] = {name: {} for name in state_dicts}
        if source.weights not in empty:
            return False
        own, other = self.rebuilt(empty, (), None), source.rebuilt(empty, drop, None)
        return digest(own) == digest(other)


def container_of(content: Content) -> Container:
    """The container that ``content`` comes from; an empty one where it comes from elsewhere."""
    known = content.container
    return known if isinstance(known, Container) else Container({}, None)


def entry_name(state_dict: str | None, key: object) -> str:
    """What an entry inside a state dict is called; that of a bare one by its key alone."""
    return str(key) if state_dict is None else f"{state_dict}.{key}"


def _twin(
    entries: Mapping[Any, Any], header: Header, ties: Ties, capacity: int, place: str
) -> Twin | None:
    """The state dict ``entries``, if its tensors are as in ``header`` and can be grown."""
    tensors = tensors_in(entries)
    if len(tensors) != len(header):
        return None
    try:
        require_names(tensors, place)
        other = specs_of(tensors, capacity, place)
    except CheckpointError:
        return None
    if _bare_shapes(other) != _bare_shapes(header):
        return None
    own = joined(ties_of(tensors), renamed(ties, header, other))
    equal = all(same_bits(tensors[first], tensors[name]) for first, *more in own for name in more)
    return Twin(other, own) if equal else None


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
    own = tensors_in(old)
    for key, value in old.items():
        if key in tensors:
            made[key] = tensors[key]
        elif key not in own and entry_name(name, key) not in left_out:
            made[key] = value
    made.update((key, tensor) for key, tensor in tensors.items() if key not in made)
    if isinstance(old, OrderedDict) and "_metadata" in vars(old):
        vars(made)["_metadata"] = vars(old)["_metadata"]
    return made


def _bare_shapes(header: Header) -> dict[str, tuple[int, ...]]:
    prefix = common_prefix(header)
    return {name.removeprefix(prefix): spec.shape for name, spec in header.items()}


def _holding_arrays(values: Iterable[Any]) -> set[int]:
    """Which of ``values``, by their id, hold what belongs to old shapes.

    What comes out of a pickle may be nested deeply, in itself, and in a thousand places: everything
    is looked at once, and then traced back to what refers to it.
    """
    referring: dict[int, list[int]] = {}
    known: set[int] = set()
    found: list[int] = []
    waiting = list(values)
    while waiting:
        each = waiting.pop()
        if id(each) in known:
            continue
        known.add(id(each))
        if _is_array(each):
            found.append(id(each))
        for part in _parts(each):
            referring.setdefault(id(part), []).append(id(each))
            waiting.append(part)
    holding: set[int] = set()
    while found:
        each = found.pop()
        if each not in holding:
            holding.add(each)
            found.extend(referring.get(each, ()))
    return holding


def _is_array(value: Any) -> bool:
    """Floating-point numbers along an axis, or an optimizer, even one that has no state yet."""
    if isinstance(value, Mapping):
        return value.keys() >= _OPTIMIZER
    return is_tensor(value) and value.is_floating_point() and value.ndim > 0


def _parts(value: Any) -> Iterator[Any]:
    """What may hold tensors, or is one."""
    if isinstance(value, Mapping):
        value = value.values()
    elif not isinstance(value, list | tuple | set | frozenset):
        return
    for each in value:
        if isinstance(each, Mapping | list | tuple | set | frozenset) or is_tensor(each):
            yield each
