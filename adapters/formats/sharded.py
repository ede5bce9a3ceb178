"""Checkpoints in several safetensors files and an index of them (read and written)."""

from __future__ import annotations

from ckgrow.checkpoint import Content, File, Target
from ckgrow.errors import CheckpointError, CkgrowError, FileError, SpecError
from ckgrow.files import RegularFile

from ._sharded_index import SHARD_SUFFIX, SUFFIX, is_shard_of, read_index, stem_of
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
        """Reads the index and the headers of all shards; there are no ``weights`` to choose."""
        try:
            if weights is not None:
                raise SpecError(
                    f"{file.place} is an index of safetensors files and holds one set of weights; "
                    "choosing weights by name is for torch files"
                )
            return ShardedReader(file)
        except BaseException:
            file.close()
            raise

    def create(self, target: Target, content: Content) -> ShardedWriter:
        """Makes all shards, and reserves their space; existing files there are overwritten.

        Shards of the checkpoint that is there now, and that the new one does not have, will go.
        Raises CheckpointError for what the format cannot hold, FileError when the space is not
        there.
        """
        if content.shard_size is None:
            raise CheckpointError("a checkpoint in parts needs to know how large they may be")
        return ShardedWriter(target, content, content.shard_size)


ADAPTER = Sharded()
