"""Writes an ONNX model whose every offset is known before the first tensor is computed."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import closing

import numpy as np

from ckgrow.checkpoint import Content, Target
from ckgrow.errors import CheckpointError

from ._onnx_layout import Layout, Place, beside, compose
from ._onnx_parsing import parse
from ._output_file import OutputFile
from ._rows import packed
from ._writing import Missing, rewritten

EMBEDDED = 256_000_000
"""Most bytes of tensors in the model itself; more go to a file beside it.

Protocol buffers end at 2 GB, and who loads a model holds what is in it twice.
"""


class OnnxWriter:
    """A model being written, from several threads at once."""

    def __init__(self, target: Target, content: Content) -> None:
        self._header = content.header
        self._missing = Missing(content.header)
        places: dict[str, Place] = {}
        size = 0
        if sum(spec.nbytes for spec in content.header.values()) > EMBEDDED:
            places, size = beside(content, _data_name(target))
        self._layout = compose(content, places, target.name)
        self._offsets = {name: place.offset for name, place in places.items()}
        self._offsets |= self._layout.offsets
        self._main = write_model(target, self._layout)
        self._data = self._main
        try:
            if places:
                self._data = OutputFile(target.companion(_data_name(target)), size)
        except BaseException:
            self.abandon()
            raise

    def write(self, name: str, start: int, rows: np.ndarray) -> None:
        """Writes ``rows`` of tensor ``name`` from row ``start`` on, each row once.

        Raises ValueError when they do not fit the tensor, FileError when they cannot be stored.
        """
        begin, data = packed(name, self._header[name], start, rows)
        self._data.write(data, self._offsets[name] + begin)
        self._missing.wrote(len(data))

    def finish(self, replacements: Mapping[str, str]) -> None:
        """Replaces placeholders in the metadata by texts of equal length, flushes, and closes.

        Raises ValueError where a placeholder does not stand there once, or rows are missing.
        """
        self._missing.require_none()
        for offset, text in rewritten(self._layout.start, replacements):
            self._main.write(text, offset)
        if self._data is not self._main:
            self._data.finish()
        self._main.finish()

    def abandon(self) -> None:
        """Closes without finishing; whoever made the paths removes the files."""
        self._main.abandon()
        self._data.abandon()


def write_model(target: Target, layout: Layout) -> OutputFile:
    """The main file with everything in it but the numbers of tensors.

    The file of numbers that an earlier model of ours has beside it goes with that model.
    """
    if _has_numbers_beside(target):
        target.outdate(_data_name(target))
    file = OutputFile(target.path, layout.size)
    try:
        for offset, piece in layout.pieces.items():
            file.write(piece, offset)
    except BaseException:
        file.abandon()
        raise
    return file


def _data_name(target: Target) -> str:
    return f"{target.name}.data"


def _has_numbers_beside(target: Target) -> bool:
    earlier = target.replaced()
    if earlier is None:
        return False
    with closing(earlier):
        try:
            model = parse(earlier)
        except CheckpointError:  # it is no model
            return False
    locations = {each.location for each in model.tensors.values()}
    return model.ours and _data_name(target) in locations
