"""What a checkpoint being written is: where its files go, and named tensors written by rows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np

from ckgrow.checkpoint.file import File
from ckgrow.graph import Graph
from ckgrow.header import Header


class Target(Protocol):
    """Where a writer puts the files of a checkpoint, which get their names when all are whole.

    ``path`` is the main file, the one that a reader opens, ``name`` what it will be called.
    """

    @property
    def path(self) -> Path: ...  # noqa: D102 - said above

    @property
    def name(self) -> str: ...  # noqa: D102

    def companion(self, name: str) -> Path:
        """Where a further file is to be written that will be called ``name``, beside the main."""
        ...

    def replaced(self) -> File | None:
        """The main file that has the name now, to be closed again; None when there is none."""
        ...

    def outdate(self, name: str) -> None:
        """The file ``name`` belongs to the one that is replaced, and goes when that is."""
        ...


@dataclass(frozen=True)
class Content:
    """What a checkpoint to be written holds: tensors as in ``header``, and string entries.

    ``graph`` is the network for formats that hold one, whose parameters are called as in the
    header but without ``prefix``. ``ties`` are names that share one tensor, ``container`` what
    the same format's reader gave, without the entries ``drop``. A file of a checkpoint in parts
    has at most ``shard_size`` bytes of tensors.
    """

    header: Header
    metadata: Mapping[str, str] = field(default_factory=dict)
    graph: Graph | None = None
    prefix: str = ""
    ties: tuple[tuple[str, ...], ...] = ()
    container: Any = None
    drop: tuple[str, ...] = ()
    shard_size: int | None = None


class Sink(Protocol):
    """Where rows of tensors go."""

    def write(self, name: str, start: int, rows: np.ndarray) -> None:
        """Writes ``rows`` of tensor ``name`` from row ``start`` on, each row once."""
        ...


class Writer(Sink, Protocol):
    """A checkpoint being written; its files are complete only after ``finish``."""

    def finish(self, replacements: Mapping[str, str]) -> None:
        """Replaces placeholders in the metadata by texts of equal length, flushes, and closes."""
        ...

    def abandon(self) -> None:
        """Closes without finishing; whoever made the paths removes the files."""
        ...


@runtime_checkable
class ContainerWriter(Writer, Protocol):
    """A checkpoint being written that holds several state dicts."""

    def twin(self, name: str, header: Header, ties: tuple[tuple[str, ...], ...] = ()) -> Sink:
        """Where the tensors of the state dict ``name`` go, as in ``header`` and tied as stated."""
        ...


@dataclass(frozen=True)
class Shard:
    """A file of a checkpoint in parts, at ``path``: a checkpoint of its own."""

    path: Path
    header: Header
    metadata: Mapping[str, str]


@runtime_checkable
class ShardedWriter(Writer, Protocol):
    """A checkpoint in parts being written, whose parts others may write."""

    def hand_out(self) -> tuple[Shard, ...]:
        """The parts, which others write and flush from now on; ``finish`` writes the main file."""
        ...
