"""Writes a safetensors file whose every offset is known before the first tensor is computed."""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from ._output_file import OutputFile
from ._rows import packed
from ._safetensors_layout import Layout


class SafetensorsWriter:
    """A safetensors file being written, from several threads at once."""

    def __init__(self, path: Path, start: bytes, layout: Layout) -> None:
        self._start = start
        self._layout = layout
        self._missing = sum(spec.nbytes for spec in layout.header.values())
        self._lock = threading.Lock()
        self._file = OutputFile(path, len(start) + self._missing)
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
        with self._lock:
            self._missing -= len(data)

    def finish(self, replacements: Mapping[str, str]) -> None:
        """Replaces placeholders in the metadata by texts of equal length, flushes, and closes.

        Each placeholder stands exactly once in the header, and neither text needs an escape in
        JSON. Raises ValueError otherwise, and when rows are missing.
        """
        if self._missing:
            raise ValueError(f"{self._missing} bytes of tensors were not written, or some twice")
        for placeholder, text in replacements.items():
            before, after = _plain(placeholder), _plain(text)
            if len(before) != len(after) or self._start.count(before) != 1:
                raise ValueError(f"{placeholder!r} cannot be replaced by {text!r}")
            self._file.write(after, self._start.index(before))
        self._file.finish()

    def abandon(self) -> None:
        """Closes without finishing; whoever made the path removes it."""
        self._file.abandon()


def _plain(text: str) -> bytes:
    if json.dumps(text, ensure_ascii=False) != f'"{text}"':
        raise ValueError(f"{text!r} needs an escape in JSON")
    return text.encode()
