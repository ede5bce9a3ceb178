"""A plain chain: layers in order, each with its BatchNorm and the parameterless modules behind it.

An ``nn.Sequential`` leaves traces in its keys: modules without parameters take an index too, so
``0.weight`` and ``3.weight`` have two modules between them. Where indices tell, those modules keep
their real paths as node names, and inserted layers can shift them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ckgrow.architecture import Source
from ckgrow.header import Header

from ._chain_modules import Layer, Modules, Norm

BEHIND_THE_LAST = 3  # modules assumed to be there behind the last layer of an nn.Sequential
LONGEST_GAP = 8  # of a longer run of modules without keys only the first have a place
DEEPEST = 32  # indices in names with more components tell nothing


@dataclass(frozen=True)
class Step:
    """A layer, its BatchNorm, and the paths of the parameterless modules behind each.

    ``between`` stand before the BatchNorm, ``after`` behind both. ``counted`` says that ``after``
    are all there are, because the next layer stands in the same ``nn.Sequential``.
    """

    layer: Layer
    norm: Norm | None
    between: tuple[str, ...]
    after: tuple[str, ...]
    counted: bool

    @property
    def activated(self) -> bool:
        """Whether there is room for an activation behind the layer."""
        return bool(self.between or self.after or not self.counted)

    @property
    def rest(self) -> tuple[str, ...]:
        """Modules behind the layer and its activation."""
        return self.after if self.between else self.after[1:]

    def path(self, paths: tuple[str, ...], what: str) -> str:
        """The first of ``paths``, or a functional node's name."""
        return paths[0] if paths else f"{self.layer.name}/{what}"


@dataclass(frozen=True)
class Chain:
    """The whole network. ``first`` is a BatchNorm on the input.

    ``norms_known`` says where it is known from which BatchNorm belongs to which layer.
    """

    first: Norm | None
    steps: tuple[Step, ...]
    norms_known: Source

    @property
    def convs(self) -> tuple[Step, ...]:
        """The part that works on maps."""
        return tuple(step for step in self.steps if step.layer.is_conv)

    @property
    def linears(self) -> tuple[Step, ...]:
        """The part behind the flattening."""
        return tuple(step for step in self.steps if not step.layer.is_conv)


def chain(header: Header, found: Modules, layers: Sequence[Layer]) -> tuple[Chain, list[Norm]]:
    """The chain of ``layers`` (in order), and the BatchNorms that fit behind none of them."""
    owners, first, known = _owners(layers, found.norms)
    occupied = _occupied(header)
    sequential = _sequentials(layers, occupied)
    placed = {norm.name for norm in owners.values()} | ({first.name} if first else set())
    steps = tuple(
        _step(layer, owners.get(layer.name), following, occupied, sequential)
        for layer, following in zip(layers, (*layers[1:], None), strict=True)
    )
    loose = [norm for norm in found.norms if norm.name not in placed]
    return Chain(first, steps, known), loose


def _step(
    layer: Layer,
    norm: Norm | None,
    following: Layer | None,
    occupied: Mapping[str, set[int]],
    sequential: frozenset[str],
) -> Step:
    container, index = split(layer.name)
    if index is None or container not in sequential:
        return Step(layer, norm, (), (), counted=False)
    between: tuple[str, ...] = ()
    last = layer.name
    if norm is not None and split(norm.name)[0] == container:
        between = _free(layer.name, occupied)
        last = norm.name
    counted = following is not None and split(following.name)[0] == container
    return Step(layer, norm, between, _free(last, occupied), counted)


def split(name: str) -> tuple[str, int | None]:
    """The container of a module and its index there, None for one that is no number."""
    container, _, last = name.rpartition(".")
    return container, int(last) if _is_index(last) and name.count(".") < DEEPEST else None


def _is_index(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) < 10


def _join(container: str, index: int) -> str:
    return f"{container}.{index}" if container else str(index)


def _owners(
    layers: Sequence[Layer], norms: Sequence[Norm]
) -> tuple[Mapping[str, Norm], Norm | None, Source]:
    """The BatchNorm of each layer by the layer's name, one on the input, and how that is known.

    A BatchNorm belongs to the layer before it in the same container; else to the one with the
    same numbers in its name (``bn2``, ``fc2``); else to the only one whose width fits.
    """
    owners: dict[str, Norm] = {}
    first: Norm | None = None
    known: Source = "checkpoint"
    later: list[Norm] = []
    shelves = _shelves(layers)
    for norm in norms:
        beside = shelves.get(split(norm.name)[0], {})
        index = split(norm.name)[1]
        earlier = [place for place in beside if index is not None and place < index]
        before = beside[max(earlier)] if earlier else None
        if before is not None and before.outputs == norm.channels and before.name not in owners:
            owners[before.name] = norm
        elif before is None and _on_the_input(norm, layers[0]):
            first = norm
        else:
            later.append(norm)
    for label in (_numbered, _sized):
        alike: dict[object, list[Layer]] = {}
        for layer in layers:
            alike.setdefault(label(layer.name, layer.outputs), []).append(layer)
        for norm in later:
            fitting = alike.get(label(norm.name, norm.channels), [])
            free = [layer for layer in fitting if layer.name not in owners]
            if free:
                owners[free[0].name] = norm
                known = known if len(free) == 1 else "default"
        placed = {norm.name for norm in owners.values()}
        later = [norm for norm in later if norm.name not in placed]
    return owners, first, known


def _shelves(layers: Sequence[Layer]) -> Mapping[str, dict[int, Layer]]:
    """Layers by container and index."""
    shelves: dict[str, dict[int, Layer]] = {}
    for layer in layers:
        container, index = split(layer.name)
        if index is not None:
            shelves.setdefault(container, {})[index] = layer
    return shelves


def _on_the_input(norm: Norm, first: Layer) -> bool:
    """Whether a BatchNorm stands before the first layer, in the same container."""
    (home, index), (container, place) = split(norm.name), split(first.name)
    if index is None or place is None or home != container or first.is_conv:
        return False
    return index < place and norm.channels == first.inputs


def _numbered(name: str, width: int) -> object:
    """The same for a layer and a BatchNorm of one width and one number (``bn2`` and ``fc2``).

    Names without numbers are alike only to themselves.
    """
    return (*re.findall(r"[0-9]+", name), width) if re.search("[0-9]", name) else name


def _sized(_: str, width: int) -> object:
    return width


def _occupied(header: Header) -> Mapping[str, set[int]]:
    """For every container the indices under which there are keys."""
    occupied: dict[str, set[int]] = {}
    for key in header:
        parts = key.split(".", DEEPEST + 1)
        for depth, part in enumerate(parts[:-1][:DEEPEST]):
            if _is_index(part):
                occupied.setdefault(".".join(parts[:depth]), set()).add(int(part))
    return occupied


def _sequentials(layers: Sequence[Layer], occupied: Mapping[str, set[int]]) -> frozenset[str]:
    """Containers whose activations are modules: an index between is free, or it has one layer.

    One with several layers and no index free between them is an ``nn.ModuleList``, and its
    activations are functional.
    """
    return frozenset(
        container
        for container, shelf in _shelves(layers).items()
        if len(shelf) == 1
        or len(occupied[container]) <= max(occupied[container]) - min(occupied[container])
    )


def _free(name: str, occupied: Mapping[str, set[int]]) -> tuple[str, ...]:
    """Paths behind a module without keys, up to the next with keys."""
    container, index = split(name)
    if index is None:
        return ()
    taken = occupied[container]
    later = [place for place in taken if place > index]
    start = index + 1
    stop = min(*later, start + LONGEST_GAP) if later else start + BEHIND_THE_LAST
    return tuple(_join(container, place) for place in range(start, stop))
