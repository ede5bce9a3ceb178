"""The order of layers in a plain chain, from their shapes and names.

A layer is an edge from the width it reads to the width it makes, and an order in which each layer
reads what the one before it made is a trail that takes every edge once (Euler, 1736). Where
several trails exist, the natural sort of the names chooses, and the order counts as known only if
the names are numbered alike.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from ckgrow.architecture import Source
from ckgrow.names import natural_key
from ckgrow.naming import ungrown

from ._chain_modules import Layer

SEARCHED = 256  # above as many layers only the order of the names is tried


@dataclass(frozen=True)
class Ordering:
    """Layers in the order of the forward pass, and where that order is known from."""

    layers: tuple[Layer, ...]
    source: Source


@dataclass(frozen=True)
class _Link:
    """A layer with those that ckgrow has inserted behind it, as one edge."""

    layers: tuple[Layer, ...]

    @property
    def inputs(self) -> int:
        return self.layers[0].inputs

    @property
    def outputs(self) -> int:
        return self.layers[-1].passed

    @property
    def family(self) -> str:
        """The name without its numbers: layers of one family are ordered by them."""
        return re.sub(r"\d+", "#", self.layers[0].name)


def chained(layers: Sequence[Layer]) -> bool:
    """Whether each layer reads what the one before it makes."""
    return all(after.reads(before.passed) for before, after in pairwise(layers))


def order(layers: Sequence[Layer]) -> Ordering | None:
    """The order of a non-empty chain; None when there is none in which the shapes fit.

    Layers that ckgrow inserted stand in numeric order behind the one they are named after, unless
    shapes say otherwise.
    """
    by_name = sorted(layers, key=lambda layer: natural_key(layer.name))
    links = _links(by_name)
    found = _ordered(links)
    if found is None and len(links) < len(by_name):
        found = _ordered([_Link((layer,)) for layer in by_name])
    return found


def in_natural_order(layers: Sequence[Layer]) -> tuple[Layer, ...]:
    """The layers by name, numbers as numbers, inserted ones behind the one they are named after."""
    links = _links(sorted(layers, key=lambda layer: natural_key(layer.name)))
    return tuple(layer for link in links for layer in link.layers)


def _ordered(links: Sequence[_Link]) -> Ordering | None:
    natural = tuple(layer for link in links for layer in link.layers)
    in_order = chained(natural)
    if in_order and len({link.family for link in links}) == 1:
        return Ordering(natural, "checkpoint")
    trail = _trail(links) if len(links) <= SEARCHED else None
    if trail is None:
        return Ordering(natural, "default") if in_order else None
    found, known = trail
    if in_order and not known:
        return Ordering(natural, "default")
    walked = tuple(layer for link in found for layer in link.layers)
    if not chained(walked):
        return None
    return Ordering(walked, "checkpoint" if known else "default")


def _links(layers: Sequence[Layer]) -> list[_Link]:
    """Layers in natural order; ``fc1_grown1`` stands behind ``fc1``, wherever that goes."""
    runs: dict[str, list[Layer]] = {}
    for layer in layers:
        runs.setdefault(ungrown(layer.name), []).append(layer)
    return [_Link(tuple(run)) for run in runs.values()]


def _trail(links: Sequence[_Link]) -> tuple[list[_Link], bool] | None:
    """The naturally first trail, and whether shapes and numbers leave no other (Fleury, 1883)."""
    start = _start(links)
    if start is None or not _connected(links, start):
        return None
    here = start
    remaining, walked = list(links), list[_Link]()
    forced = numbered = _is_end(links, start)
    while remaining:
        first_of_kind: dict[tuple[int, str], _Link] = {}
        for link in remaining:
            if link.inputs == here:
                first_of_kind.setdefault((link.outputs, link.family), link)
        choices = list(first_of_kind.values())
        if len(choices) > 1:
            choices = [
                link
                for link in choices
                if _connected([other for other in remaining if other is not link], link.outputs)
            ]
        forced &= len(choices) == 1
        numbered &= len({link.family for link in choices}) == 1
        here = choices[0].outputs
        remaining.remove(choices[0])
        walked.append(choices[0])
    return walked, forced or (numbered and _in_numeric_order(walked))


def _balance(links: Sequence[_Link]) -> Counter[int]:
    """For every width, the layers that read it less those that make it."""
    balance: Counter[int] = Counter()
    for link in links:
        balance[link.inputs] += 1
        balance[link.outputs] -= 1
    return balance


def _start(links: Sequence[_Link]) -> int | None:
    """The width at which a trail starts; None when so many ends are loose that none exists."""
    loose = {width: count for width, count in _balance(links).items() if count}
    if not loose:
        return links[0].inputs
    starts = [width for width, count in loose.items() if count == 1]
    return starts[0] if len(starts) == 1 and sorted(loose.values()) == [-1, 1] else None


def _is_end(links: Sequence[_Link], start: int) -> bool:
    """Whether every trail starts at ``start``; a closed one could start at any of its widths."""
    balance = _balance(links)
    return balance[start] == 1 or len(balance) == 1


def _connected(links: Sequence[_Link], start: int) -> bool:
    """Whether every edge can be reached from ``start`` (directions do not matter here)."""
    neighbours: dict[int, set[int]] = {}
    for link in links:
        neighbours.setdefault(link.inputs, set()).add(link.outputs)
        neighbours.setdefault(link.outputs, set()).add(link.inputs)
    seen, front = {start}, [start]
    while front:
        for width in neighbours.get(front.pop(), set()) - seen:
            seen.add(width)
            front.append(width)
    return seen >= set(neighbours)


def _in_numeric_order(links: Sequence[_Link]) -> bool:
    families: dict[str, list[_Link]] = {}
    for link in links:
        families.setdefault(link.family, []).append(link)
    keys = [[natural_key(link.layers[0].name) for link in family] for family in families.values()]
    return all(family == sorted(family) for family in keys)
