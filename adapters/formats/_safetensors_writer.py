"""Writes a safetensors file whose every offset is known before the first tensor is computed."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from ._output_file import OutputFile
from ._rows import packed
from ._safetensors_layout import Layout
from ._writing import Missing, rewritten


class SafetensorsWriter:
    """A safetensors file being written, from several threads at once."""

    def __init__(self, path: Path, start: bytes, layout: Layout) -> None:
        self._start = start
        self._layout = layout
        self._missing = Missing(layout.header)
        total = sum(spec.nbytes for spec in layout.header.values())
        self._file = OutputFile(path, len(start) + total)
        try:
            self._file.write(start, 0)
        except BaseException:
            self.abandon()
            raise

    def write(self, name: str, start: int, rows: np.ndarray) -> None:
        """Writes ``rows`` of tensor ``name`` from row ``start`` on, each row once.

        Raises ValueError when they do not fit the tensor, FileError when they cannot be stored.
        """
        begin, data = packed(name, self._layout.header[name], start, rows)
        self._file.write(data, self._layout.offsets[name] + begin)
        self._missing.wrote(len(data))

    def finish(self, replacements: Mapping[str, str]) -> None:
        """Replaces placeholders in the metadata by texts of equal length, flushes, and closes.

        Each placeholder stands exactly once in the header, and neither text needs an escape in
        JSON. Raises ValueError otherwise, and when rows are missing.
        """
        self._missing.require_none()
        for text in (*replacements, *replacements.values()):
            _require_plain(text)
        for offset, after in rewritten(self._start, replacements):
            self._file.write(after, offset)
        self._file.finish()

    def abandon(self) -> None:
        """Closes without finishing; whoever made the path removes it."""
        self._file.abandon()


def _require_plain(text: str) -> None:
    if json.dumps(text, ensure_ascii=False) != f'"{text}"':
        raise ValueError(f"{text!r} needs an escape in JSON")
