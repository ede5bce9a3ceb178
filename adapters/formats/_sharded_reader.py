"""Reads a checkpoint in several safetensors files.

Opening reads the headers of all shards.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from ckgrow.checkpoint import Contents, File, Span
from ckgrow.errors import CheckpointError, FileError
from ckgrow.header import Header
from ckgrow.names import shown

from ._safetensors_layout import Layout
from ._sharded_index import read_index
from ._siblings import Siblings
from .safetensors import SafetensorsReader, read_layout


@dataclass(frozen=True)
class Shard:
    """One of the files: ``file`` is closed, and still knows whether it is the one on the disk."""

    file: File
    layout: Layout


class ShardedReader:
    """An open checkpoint in parts; it owns ``file``, its index.

    Raises CheckpointError where index and shards contradict each other.
    """

    def __init__(self, file: File) -> None:
        index = read_index(file)
        names = sorted(set(index.weight_map.values()))
        self._file = file
        self._shards = {name: _shard(file, name) for name in names}
        self._weight_map = index.weight_map
        _require_same(file, index.weight_map, self._shards)
        self.header = Header(
            {name: self._shards[at].layout.header[name] for name, at in self._weight_map.items()}
        )
        shared = _shared([shard.layout.metadata for shard in self._shards.values()])
        self.contents = Contents(metadata={**shared, **index.metadata})
        self._siblings = Siblings(file, {at: shard.file for at, shard in self._shards.items()})

    def read(self, name: str, start: int, stop: int) -> np.ndarray:
        """Rows ``start`` to ``stop`` of tensor ``name``, in an array of their own."""
        at = self._weight_map[name]
        with self._siblings.use(at) as file:
            return SafetensorsReader(file, self._shards[at].layout).read(name, start, stop)

    def span(self, name: str) -> Span | None:
        """Where the tensor stands in its shard, if that is on this machine."""
        shard = self._shards[self._weight_map[name]]
        if shard.file.path is None:
            return None
        size = self.header[name].nbytes
        return Span(shard.file.path, shard.layout.offsets[name], size)

    def files(self) -> tuple[File, ...]:
        """Index and shards."""
        return (self._file, *self._siblings.files())

    def parts(self) -> frozenset[frozenset[str]]:
        """Which tensors stand in one shard together."""
        return frozenset(frozenset(shard.layout.header) for shard in self._shards.values())

    def unchanged(self) -> bool:
        """Whether index and shards are still those that were opened."""
        return all(file.unchanged() for file in self.files())

    def close(self) -> None:
        """Gives all files back."""
        self._siblings.close()
        self._file.close()


def _shard(index: File, name: str) -> Shard:
    file = index.sibling(name)
    if file is None:
        raise FileError(
            f"{index.place} needs the file {shown(name)} beside it, which is missing; fetch all "
            "of its shards"
        )
    try:
        return Shard(file, read_layout(file))
    finally:
        file.close()


def _require_same(index: File, weight_map: Mapping[str, str], shards: Mapping[str, Shard]) -> None:
    """Every tensor is in the one shard that the index names, and in no other."""
    for name, at in weight_map.items():
        if name not in shards[at].layout.header:
            raise CheckpointError(
                f"{index.place} says that tensor {shown(name)} is in {shown(at)}, which does not "
                "hold it: they are not of one checkpoint; fetch all of it again"
            )
    for at, shard in shards.items():
        for name in shard.layout.header:
            named = weight_map.get(name)
            if named is None:
                raise CheckpointError(
                    f"{index.place} does not name tensor {shown(name)}, which is in {shown(at)}: "
                    "they are not of one checkpoint; fetch all of it again"
                )
            if named != at:
                raise CheckpointError(
                    f"{index.place}: tensor {shown(name)} is in {shown(named)}, as the index says, "
                    f"and in {shown(at)} too: nobody can tell which counts; fetch all of it again"
                )


def _shared(entries: Iterable[Mapping[str, str]]) -> dict[str, str]:
    """What the metadata of all shards agree in."""
    first, *others = list(entries) or [{}]
    return {
        key: text for key, text in first.items() if all(each.get(key) == text for each in others)
    }
