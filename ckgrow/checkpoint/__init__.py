"""What a format adapter is: named tensors read by rows, and written by rows.

Rows are slices of a tensor's first axis (a scalar has one row). Readers and writers are used from
several threads at once.
"""

from ckgrow.checkpoint.file import File
from ckgrow.checkpoint.formats import ComparingFormat, Format, GraphFormat, SeveralFiles
from ckgrow.checkpoint.reading import ContainerReader, Contents, Reader, Span
from ckgrow.checkpoint.writing import (
    ContainerWriter,
    Content,
    Shard,
    ShardedWriter,
    Sink,
    Target,
    Writer,
)

PROVENANCE_KEY = "ckgrow"

__all__ = (
    "PROVENANCE_KEY",
    "ComparingFormat",
    "ContainerReader",
    "ContainerWriter",
    "Content",
    "Contents",
    "File",
    "Format",
    "GraphFormat",
    "Reader",
    "SeveralFiles",
    "Shard",
    "ShardedWriter",
    "Sink",
    "Span",
    "Target",
    "Writer",
)
