"""A network's layers by stage and block, as their names tell."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

from ckgrow.reports.page.layers import Change

_SEPARATORS = re.compile(r"[./]")
_DEEPEST = 8
"""Names are taken apart this far."""

Paths = Mapping[int, tuple[str, ...]]
"""Names taken apart, by the identity of what bears them."""
Row = tuple[Change, ...]
"""Layers of one rank, which stand beside each other."""


@dataclass(frozen=True)
class Block:
    """Part of a stage: ``rows`` of layers."""

    name: str
    rows: tuple[Row, ...]

    @property
    def changes(self) -> tuple[Change, ...]:
        """All layers of the block."""
        return tuple(change for row in self.rows for change in row)


@dataclass(frozen=True)
class Stage:
    """A run of blocks with one name in front."""

    name: str
    blocks: tuple[Block, ...]

    @property
    def changes(self) -> tuple[Change, ...]:
        """All layers of the stage."""
        return tuple(change for block in self.blocks for change in block.changes)


def stages(changes: Sequence[Change]) -> tuple[Stage, ...]:
    """Layers in stages, in the order in which each stage first appears.

    A stage is the first part of a name (``layer3``, ``inception4a``), a block that part with the
    number behind it (``layer3.0``). Where one name stands before most of a network (``encoder``),
    its parts are the stages.
    """
    paths = {id(change): tuple(_SEPARATORS.split(change.layer.name)) for change in changes}
    heads = _heads(list(paths.values()))
    by_stage: dict[tuple[str, ...], list[Change]] = {}
    for change in changes:
        by_stage.setdefault(_stage(paths[id(change)], heads), []).append(change)
    return tuple(
        Stage(".".join(head), _blocks(members, paths, len(head)))
        for head, members in by_stage.items()
    )


def _blocks(members: list[Change], paths: Paths, length: int) -> tuple[Block, ...]:
    """Neighbouring layers with one name up to the number behind a stage's name."""

    def path(change: Change) -> tuple[str, ...]:
        whole = paths[id(change)]
        numbered = len(whole) > length and whole[length].isdigit()
        return whole[: length + numbered]

    return tuple(
        Block(".".join(block), _rows(list(inside))) for block, inside in groupby(members, path)
    )


def _heads(paths: list[tuple[str, ...]]) -> set[tuple[str, ...]]:
    """Names that are no stages themselves, since most of the network is inside them."""
    heads: set[tuple[str, ...]] = set()
    inside = paths
    for depth in range(_DEEPEST):
        counts: dict[tuple[str, ...], int] = {}
        for path in inside:
            if len(path) > depth + 1:
                counts[path[: depth + 1]] = counts.get(path[: depth + 1], 0) + 1
        head = max(counts, key=lambda key: counts[key], default=())
        inside = [path for path in inside if path[: depth + 1] == head and len(path) > depth + 1]
        children = {path[depth + 1] for path in inside}
        if 2 * len(inside) <= len(paths) or all(child.isdigit() for child in children):
            break
        heads.add(head)
    return heads


def _stage(path: tuple[str, ...], heads: set[tuple[str, ...]]) -> tuple[str, ...]:
    length = 1
    while path[:length] in heads and length < len(path):
        length += 1
    return path[:length]


def _rows(members: list[Change]) -> tuple[Row, ...]:
    by_rank: dict[int, list[Change]] = {}
    for change in members:
        by_rank.setdefault(change.layer.rank, []).append(change)
    return tuple(tuple(by_rank[rank]) for rank in sorted(by_rank))
