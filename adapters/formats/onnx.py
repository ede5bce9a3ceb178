"""ONNX models, .onnx: their initialisers are the tensors (read and written).

Opening looks at names, shapes and the names that nodes read; numbers are read by rows, whether
they are in the model or in files beside it. The onnx package is imported when a model is written.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from ckgrow.checkpoint import Content, File, Span, Target

from ._onnx_parsing import parse
from ._onnx_reader import OnnxReader

if TYPE_CHECKING:
    from ._onnx_writer import OnnxWriter

_VERSION_KEY = 0x08  # of field 1, ir_version, which writers put first
_NEXT_KEYS = (0x12, 0x1A, 0x22, 0x28, 0x32, 0x3A, 0x42, 0x72)  # of the fields that may follow
_LAST_VERSION = 0x1F


class Onnx:
    """The format adapter."""

    name = "onnx"
    suffixes = (".onnx",)
    writable = True
    containers = False
    shards = ""

    def recognises(self, file: File, start: bytes) -> bool:
        """A small version number and a field of a model after it; there is no magic number."""
        if len(start) < 3 or start[8:9] == b"{":  # the length and the brace of safetensors
            return False
        version, following = start[1], start[2]
        return start[0] == _VERSION_KEY and 0 < version <= _LAST_VERSION and following in _NEXT_KEYS

    def open(self, file: File, weights: str | None) -> OnnxReader:
        """Reads everything but the tensors' numbers."""
        return OnnxReader(file, parse(file))

    def create(self, target: Target, content: Content) -> OnnxWriter:
        """Writes everything but the tensors' numbers, and reserves the space for those.

        Raises CheckpointError for what the format cannot hold, FileError when the space is not
        there.
        """
        from ._onnx_writer import OnnxWriter

        return OnnxWriter(target, content)

    def link(self, target: Target, content: Content, spans: Mapping[str, Span]) -> None:
        """Writes a model whose tensors stay where they are, in or below the target's folder.

        Raises CheckpointError for what the format cannot hold, FileError when it cannot be
        written.
        """
        from ._onnx_layout import Place, compose
        from ._onnx_writer import write_model

        folder = target.path.parent
        places = {
            name: Place(span.path.relative_to(folder).as_posix(), span.offset)
            for name, span in spans.items()
        }
        write_model(target, compose(content, places, target.name)).finish()


ADAPTER = Onnx()
