"""What a format adapter is: named tensors read by rows, and written by rows.

Rows are slices of a tensor's first axis (a scalar has one row). Readers and writers are used from
several threads at once.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from ckgrow.header import Header

PROVENANCE_KEY = "ckgrow"


@dataclass(frozen=True)
class Contents:
    """What a file holds besides the tensors that are its weights.

    ``metadata`` are the file's own string entries, ``weights`` the name of the state dict inside
    a container (None for a bare one), ``dropped`` the entries beside it that are no weights.
    """

    metadata: Mapping[str, str]
    weights: str | None = None
    dropped: tuple[str, ...] = ()


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

    def unchanged(self) -> bool:
        """Whether the file is still the one that was opened."""
        ...

    def close(self) -> None:
        """Gives the file back."""
        ...


class Writer(Protocol):
    """A checkpoint being written; the file is complete only after ``finish``."""

    def write(self, name: str, start: int, rows: np.ndarray) -> None:
        """Writes ``rows`` of tensor ``name`` from row ``start`` on."""
        ...

    def finish(self, replacements: Mapping[str, str]) -> None:
        """Replaces placeholders in the metadata by texts of equal length, flushes, and closes."""
        ...

    def abandon(self) -> None:
        """Closes without finishing; whoever made the path removes it."""
        ...


class Format(Protocol):
    """A format adapter."""

    name: str
    suffixes: tuple[str, ...]
    writable: bool

    def recognises(self, path: Path, start: bytes) -> bool:
        """Whether the file at ``path``, whose first bytes are ``start``, is of this format."""
        ...

    def open(self, path: Path, weights: str | None) -> Reader:
        """Opens a checkpoint; ``weights`` names the state dict of a container."""
        ...

    def create(self, path: Path, header: Header, metadata: Mapping[str, str]) -> Writer:
        """Opens ``path`` for writing tensors as in ``header``; an existing file is overwritten."""
        ...
