"""What a format adapter is: it recognises files, opens them and makes them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol, runtime_checkable

from ckgrow.checkpoint.file import File
from ckgrow.checkpoint.reading import Reader, Span
from ckgrow.checkpoint.writing import Content, Target, Writer


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
        """Opens a checkpoint, which owns ``file`` from now on; if this fails, the caller does.

        ``weights`` names the state dict of a container; SpecError where there is none. Formats
        without ``containers`` are not given any.
        """
        ...

    def create(self, target: Target, content: Content) -> Writer:
        """Opens the files of ``target`` for writing; existing files there are overwritten."""
        ...


@runtime_checkable
class ComparingFormat(Format, Protocol):
    """A format whose files hold more than named tensors and texts, or can be laid out otherwise."""

    def holds(self, reader: Reader, content: Content) -> bool:
        """Whether an open file of it is as ``create`` would make it for ``content``.

        Numbers in state dicts are not looked at, nor is the metadata. Raises CheckpointError where
        that cannot be told.
        """
        ...


@runtime_checkable
class SeveralFiles(Format, Protocol):
    """A format whose checkpoints may have further files beside the one that is opened."""

    def companion(self, name: str) -> str:
        """What one of the further files of a checkpoint called ``name`` may be called."""
        ...

    def main_of(self, name: str) -> str | None:
        """What a checkpoint is called that a file ``name`` may belong to; None where there is none.

        Upper and lower case are those of ``name``.
        """
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
