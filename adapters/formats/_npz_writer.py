"""Writes an npz file whose every offset is known before the first tensor is computed."""

from __future__ import annotations

import threading
import zlib
from collections.abc import Mapping

import numpy as np

from ckgrow.checkpoint import Target

from ._checksums import Pieces, combined
from ._npz_layout import RAW_DTYPES, Layout
from ._output_file import OutputFile
from ._rows import packed
from ._side_file import SideFile, write_side_file
from ._writing import replaced


class NpzWriter:
    """An npz file being written, from several threads at once."""

    def __init__(self, target: Target, layout: Layout, metadata: Mapping[str, str]) -> None:
        self._target = target
        self._layout = layout
        self._metadata = metadata
        self._pieces = {name: Pieces() for name in layout.header}
        self._lock = threading.Lock()
        self._file = OutputFile(target.path, layout.size)

    def write(self, name: str, start: int, rows: np.ndarray) -> None:
        """Writes ``rows`` of tensor ``name`` from row ``start`` on, each row once.

        Raises ValueError when they do not fit the tensor, FileError when they cannot be stored.
        """
        begin, data = packed(name, self._layout.header[name], start, rows)
        self._file.write(data, self._layout.offsets[name] + begin)
        checksum = zlib.crc32(data)
        with self._lock:
            self._pieces[name].add(begin, len(data), checksum)

    def finish(self, replacements: Mapping[str, str]) -> None:
        """Writes headers, directory and side file, flushes, and closes.

        Raises ValueError when rows are missing or a placeholder is not in the metadata once.
        """
        checksums = {name: self._checksum(name) for name in self._layout.header}
        metadata = replaced(self._metadata, replacements)
        for offset, text in self._layout.closing(checksums):
            self._file.write(text, offset)
        dtypes = {
            name: spec.dtype
            for name, spec in self._layout.header.items()
            if spec.dtype in RAW_DTYPES
        }
        write_side_file(self._target, SideFile(metadata, dtypes))
        self._file.finish()

    def abandon(self) -> None:
        """Closes without finishing; whoever made the paths removes the files."""
        self._file.abandon()

    def _checksum(self, name: str) -> int:
        """Of a member: numpy's header and the tensor."""
        size = self._layout.header[name].nbytes
        tensor = self._pieces[name].whole(size)
        if tensor is None:
            raise ValueError(f"rows of {name!r} were not written, or some twice")
        return combined(zlib.crc32(self._layout.heads[name]), tensor, size)
