"""What a format adapter is: named tensors read by rows, and written by rows.

Rows are slices of a tensor's first axis (a scalar has one row). Readers and writers are used from
several threads at once.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, Protocol, runtime_checkable

import numpy as np

from ckgrow.graph import Graph
from ckgrow.header import Header

PROVENANCE_KEY = "ckgrow"


class File(Protocol):
    """The bytes of a file, wherever it is, read at any offset from several threads at once.

    ``place`` is where it is as messages name it, ``name`` its own name without folders, ``size``
    in bytes, ``path`` where this machine has it (None where it has not).
    """

    place: str
    name: str
    size: int
    path: Path | None

    def read(self, offset: int, size: int) -> bytes:
        """``size`` bytes from ``offset`` on; the errors of ``read_into``."""
        ...

    def read_into(self, buffer: memoryview, offset: int) -> None:
        """Fills ``buffer`` (of bytes) from ``offset`` on.

        Raises CheckpointError when the file ends before, FileError when it cannot be read.
        """
        ...

    def stream(self) -> BinaryIO:
        """The file as a Python stream from its beginning; closing it leaves the file open."""
        ...

    def sibling(self, name: str) -> File | None:
        """The file ``name`` in the same folder or below it, None when there is none.

        Raises CheckpointError for a name that leads out of the folder, by its words or by a
        symbolic link; names stand in files from elsewhere.
        """
        ...

    def unchanged(self) -> bool:
        """Whether it is still the file that was opened."""
        ...

    def close(self) -> None:
        """Gives the file back; closing twice does nothing."""
        ...


@dataclass(frozen=True)
class Contents:
    """What a file holds besides the tensors that are its weights.

    ``metadata`` are the file's own string entries, ``weights`` the name of the state dict inside
    a container (None for a bare one), ``dropped`` the entries beside it that are no weights.
    ``twins`` are other state dicts of the container with the same tensors, ``ungrown`` entries
    with tensors that are none (an optimizer's state), ``container`` is what the format itself
    needs to write such a container again. ``ties`` are names that share one tensor.
    """

    metadata: Mapping[str, str]
    weights: str | None = None
    dropped: tuple[str, ...] = ()
    twins: tuple[str, ...] = ()
    ungrown: tuple[str, ...] = ()
    container: Any = None
    ties: tuple[tuple[str, ...], ...] = ()


@dataclass(frozen=True)
class Span:
    """Where the bytes of a tensor stand in a row, as they are in memory."""

    path: Path
    offset: int
    size: int


class Reader(Protocol):
    """An open checkpoint."""

    header: Header
    contents: Contents

    def read(self, name: str, start: int, stop: int) -> np.ndarray:
        """Rows ``start`` to ``stop`` of tensor ``name`` in its stored dtype.

        Shape (stop - start, ...); a scalar comes with shape (1,). Raises CheckpointError when
        the file has shrunk or cannot be decoded, FileError when it cannot be read.
        """
        ...

    def span(self, name: str) -> Span | None:
        """Where tensor ``name`` stands in a file of this machine; None where it does not."""
        ...

    def unchanged(self) -> bool:
        """Whether the file is still the one that was opened."""
        ...

    def close(self) -> None:
        """Gives the file back."""
        ...


@runtime_checkable
class ContainerReader(Reader, Protocol):
    """An open checkpoint that may hold several state dicts."""

    def twin(self, name: str) -> Reader:
        """The state dict ``name`` of the same open file; closing it closes nothing."""
        ...


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


class Format(Protocol):
    """A format adapter; the longest of ``suffixes`` that a name ends in decides what is written.

    ``containers`` says whether a file may hold several state dicts, scalars and more. ``shards``
    is the suffix of the files that a checkpoint in parts consists of, "" for one in one file.
    """

    name: str
    suffixes: tuple[str, ...]
    writable: bool
    containers: bool
    shards: str

    def recognises(self, file: File, start: bytes) -> bool:
        """Whether ``file``, whose first bytes are ``start``, is of this format."""
        ...

    def open(self, file: File, weights: str | None) -> Reader:
        """Opens a checkpoint, which owns ``file`` from now on and closes it, here if this fails.

        ``weights`` names the state dict of a container; SpecError where there is none.
        """
        ...

    def create(self, target: Target, content: Content) -> Writer:
        """Opens the files of ``target`` for writing; existing files there are overwritten."""
        ...


@runtime_checkable
class GraphFormat(Format, Protocol):
    """A format of networks whose tensors may stand in other files."""

    def link(self, target: Target, content: Content, spans: Mapping[str, Span]) -> None:
        """Writes the network of ``content``, whose tensors stay where ``spans`` say.

        All but empty ones are in files in the folder of ``target.path`` or below it. Raises
        CheckpointError for what the format cannot hold, FileError when it cannot be written.
        """
        ...
