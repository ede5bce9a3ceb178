"""safetensors files: a JSON header, then the data of all tensors (read and written).

Opening reads the header and nothing else, so its cost does not grow with the data.
"""

from __future__ import annotations

import numpy as np

from ckgrow.checkpoint import Content, Contents, File, Span, Target
from ckgrow.errors import CheckpointError
from ckgrow.header import numpy_dtype
from ckgrow.names import shown_path

from ._rows import rows_shape
from ._safetensors_layout import MAX_LENGTH, PREFIX_LENGTH, Layout, compose
from ._safetensors_parsing import parse
from ._safetensors_writer import SafetensorsWriter


class SafetensorsReader:
    """An open safetensors file."""

    def __init__(self, file: File, layout: Layout) -> None:
        self.header = layout.header
        self.contents = Contents(metadata=layout.metadata)
        self._file = file
        self._offsets = layout.offsets

    def read(self, name: str, start: int, stop: int) -> np.ndarray:
        """Rows ``start`` to ``stop`` of tensor ``name``, in an array of their own."""
        spec = self.header[name]
        rows = np.empty(rows_shape(name, spec, start, stop), numpy_dtype(spec.dtype))
        if rows.size:
            skipped = start * (rows.nbytes // len(rows))
            data = rows.reshape(-1).view(np.uint8)  # the same memory, as bytes
            self._file.read_into(data.data, self._offsets[name] + skipped)
        return rows

    def span(self, name: str) -> Span | None:
        """Where the tensor stands in the file, if that is on this machine."""
        if self._file.path is None:
            return None
        return Span(self._file.path, self._offsets[name], self.header[name].nbytes)

    def files(self) -> tuple[File, ...]:
        """The one file."""
        return (self._file,)

    def unchanged(self) -> bool:
        """Whether the file is still the one that was opened."""
        return self._file.unchanged()

    def close(self) -> None:
        """Gives the file back."""
        self._file.close()


class Safetensors:
    """The format adapter."""

    name = "safetensors"
    suffixes = (".safetensors",)
    writable = True
    containers = False
    shards = ""

    def recognises(self, file: File, start: bytes) -> bool:
        """A length that may be a header's, and the brace that opens it."""
        return start[PREFIX_LENGTH:].startswith(b"{") and _length(start) <= MAX_LENGTH

    def open(self, file: File, weights: str | None) -> SafetensorsReader:
        """Reads the header."""
        return SafetensorsReader(file, read_layout(file))

    def create(self, target: Target, content: Content) -> SafetensorsWriter:
        """Writes the header and reserves the space; an existing file is overwritten.

        Raises CheckpointError for what the format cannot hold, FileError when the space is not
        there; then an empty file may be left at the path.
        """
        start, layout = compose(content.header, content.metadata, shown_path(target.path))
        return SafetensorsWriter(target.path, start, layout)


def read_layout(file: File) -> Layout:
    """What the header of a file says; CheckpointError when it is damaged or no such file."""
    if file.size < PREFIX_LENGTH:
        raise CheckpointError(
            f"{file.place} is no safetensors file: it has {file.size} bytes, the shortest has "
            f"{PREFIX_LENGTH + 2}; fetch or save it again"
        )
    length = _length(file.read(0, PREFIX_LENGTH))
    if not 0 < length <= MAX_LENGTH:
        raise CheckpointError(
            f"{file.place} is no safetensors file: it declares a header of {length} bytes; 1 to "
            f"{MAX_LENGTH} are allowed"
        )
    if PREFIX_LENGTH + length > file.size:
        raise CheckpointError(
            f"{file.place} is cut short: it has {file.size} bytes, and its header alone needs "
            f"{PREFIX_LENGTH + length}; fetch or save it again"
        )
    return parse(file.read(PREFIX_LENGTH, length), file.size, file.place)


def _length(start: bytes) -> int:
    return int.from_bytes(start[:PREFIX_LENGTH], "little")


ADAPTER = Safetensors()
