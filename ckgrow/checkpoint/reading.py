"""What an open checkpoint is: named tensors read by rows, and what stands beside them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np

from ckgrow.checkpoint.file import File
from ckgrow.header import Header


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

    def files(self) -> tuple[File, ...]:
        """Every file that the checkpoint consists of, the main one first; some may be closed."""
        ...

    def unchanged(self) -> bool:
        """Whether the files are still those that were opened."""
        ...

    def close(self) -> None:
        """Gives the files back."""
        ...


@runtime_checkable
class ContainerReader(Reader, Protocol):
    """An open checkpoint that may hold several state dicts."""

    def twin(self, name: str) -> Reader:
        """The state dict ``name`` of the same open file; closing it closes nothing."""
        ...
