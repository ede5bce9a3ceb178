"""Checkpoints in several safetensors files and an index of them (read and written)."""

from __future__ import annotations

from contextlib import closing

from ckgrow.checkpoint import Content, File, Reader, Target
from ckgrow.errors import CkgrowError

from ._sharded_index import (
    SHARD_SUFFIX,
    SUFFIX,
    cut,
    index_of,
    is_shard_of,
    read_index,
    shard_name,
    stem_of,
)
from ._sharded_reader import ShardedReader
from ._sharded_writer import ShardedWriter

_STARTS = (b'{"metadata":', b'{"weight_map":')
_TELLING = 6
"""How many characters of a start must be there to tell an index from other JSON."""


class Sharded:
    """The format adapter."""

    name = "sharded"
    suffixes = (SUFFIX,)
    writable = True
    containers = False
    shards = SHARD_SUFFIX

    def recognises(self, file: File, start: bytes) -> bool:
        """JSON whose first entry is one of an index."""
        said = b"".join(start.split())
        return len(said) >= _TELLING and any(
            said.startswith(each) or each.startswith(said) for each in _STARTS
        )

    def open(self, file: File, weights: str | None) -> ShardedReader:
        """Reads the index and the headers of all shards."""
        return ShardedReader(file)

    def create(self, target: Target, content: Content) -> ShardedWriter:
        """Makes all shards, and reserves their space; existing files there are overwritten.

        Shards of the checkpoint that is there now, and that the new one does not have, will go.
        Raises CheckpointError for what the format cannot hold, FileError when the space is not
        there.
        """
        writer = ShardedWriter(target, content, _shard_size(content))
        for name in _own_shards(target) - writer.names:
            target.outdate(name)
        return writer

    def companion(self, name: str) -> str:
        """The only shard of a small checkpoint."""
        return shard_name(stem_of(name), 1, 1)

    def main_of(self, name: str) -> str | None:
        """The index, if ``name`` is that of a shard."""
        return index_of(name)

    def holds(self, reader: Reader, content: Content) -> bool:
        """Whether the tensors are in parts of the size that is wanted."""
        wanted = frozenset(frozenset(each) for each in cut(content.header, _shard_size(content)))
        return isinstance(reader, ShardedReader) and reader.parts() == wanted


def _shard_size(content: Content) -> int:
    if content.shard_size is None:
        raise ValueError("a checkpoint in parts needs to know how large they may be")
    return content.shard_size


def _own_shards(target: Target) -> set[str]:
    """Shards of the checkpoint that will be replaced, if they are called as ckgrow calls them."""
    stem = stem_of(target.name)
    try:
        file = target.replaced()
        if file is None:
            return set()
        with closing(file):
            names = read_index(file).weight_map.values()
    except CkgrowError:  # no index, or none that could say what belongs to it
        return set()
    return {name for name in names if is_shard_of(stem, name)}


ADAPTER = Sharded()
