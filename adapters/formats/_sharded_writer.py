"""Writes a checkpoint as several safetensors files and their index."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from ckgrow.checkpoint import Content, Shard, Target
from ckgrow.errors import CheckpointError, FileError
from ckgrow.header import Header
from ckgrow.names import shown, shown_path

from ._open_few import OpenFew
from ._output_file import OutputFile, reported
from ._rows import packed
from ._safetensors_layout import Layout, compose
from ._sharded_index import LARGEST, Index, cut, shard_name, stem_of
from ._writing import Missing, replaced

FORMAT = "format"
"""The entry of a shard by which others know that its tensors are torch's."""


@dataclass(frozen=True)
class _Made:
    """A shard on the disk, with its header and room for its tensors."""

    shard: Shard
    layout: Layout
    size: int


class ShardedWriter:
    """A checkpoint in parts being written, from several threads at once.

    The space of all shards is reserved now. Raises CheckpointError for what the format cannot
    hold, FileError when the space is not there.
    """

    def __init__(self, target: Target, content: Content, shard_size: int) -> None:
        headers = list(cut(content.header, shard_size))
        metadata = dict(content.metadata)
        shared = {FORMAT: metadata.pop(FORMAT, "pt")}
        stem = stem_of(target.name)
        names = [shard_name(stem, number, len(headers)) for number in range(1, len(headers) + 1)]
        weight_map = {
            name: at for at, header in zip(names, headers, strict=True) for name in header
        }
        self._path = target.path
        self._index = Index(weight_map, metadata)
        self._total = sum(spec.nbytes for spec in content.header.values())
        self._missing = Missing(content.header)
        if len(self._index.text(self._total)) > LARGEST:
            raise CheckpointError(
                f"{shown(target.name)}: names and metadata need an index of more than {LARGEST} "
                "bytes"
            )
        self._made = {
            name: _made(Shard(target.companion(name), header, shared))
            for name, header in zip(names, headers, strict=True)
        }
        self._open = OpenFew(self._opened, OutputFile.abandon)

    @property
    def names(self) -> frozenset[str]:
        """What the shards will be called."""
        return frozenset(self._made)

    def write(self, name: str, start: int, rows: np.ndarray) -> None:
        """Writes ``rows`` of tensor ``name`` from row ``start`` on, each row once.

        Raises ValueError when they do not fit the tensor, FileError when they cannot be stored.
        """
        at = self._index.weight_map[name]
        layout = self._made[at].layout
        begin, data = packed(name, layout.header[name], start, rows)
        with self._open.use(at) as file:
            file.write(data, layout.offsets[name] + begin)
        self._missing.wrote(len(data))

    def hand_out(self) -> tuple[Shard, ...]:
        """The shards, which others write from now on; ``finish`` looks whether they are there."""
        self._missing = Missing(Header({}))
        return tuple(made.shard for made in self._made.values())

    def finish(self, replacements: Mapping[str, str]) -> None:
        """Flushes the shards, and writes the index with placeholders replaced.

        Raises ValueError when a placeholder does not stand exactly once in the metadata, and when
        rows are missing; FileError when a shard that others wrote is not as long as it has to be.
        """
        self._missing.require_none()
        self._open.close()
        for name, made in self._made.items():
            _flush(name, made)
        metadata = replaced(self._index.metadata, replacements)
        text = Index(self._index.weight_map, metadata).text(self._total)
        file = OutputFile(self._path, len(text))
        try:
            file.write(text, 0)
            file.finish()
        finally:
            file.abandon()

    def abandon(self) -> None:
        """Closes without finishing; whoever made the paths removes the files."""
        self._open.close()

    def _opened(self, name: str) -> OutputFile:
        return OutputFile(self._made[name].shard.path, None)


def _made(shard: Shard) -> _Made:
    start, layout = compose(shard.header, shard.metadata, shown_path(shard.path))
    size = len(start) + sum(spec.nbytes for spec in shard.header.values())
    file = OutputFile(shard.path, size)
    try:
        file.write(start, 0)
    finally:
        file.abandon()
    return _Made(shard, layout, size)


def _flush(name: str, made: _Made) -> None:
    with reported(shown(name)):
        size = made.shard.path.stat().st_size
    if size != made.size:
        raise FileError(f"{shown(name)} was changed while it was written; run again")
    file = OutputFile(made.shard.path, None)
    try:
        file.finish()
    finally:
        file.abandon()
