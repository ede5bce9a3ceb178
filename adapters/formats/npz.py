"""npz files: a zip archive of arrays as numpy.savez writes it (read and written).

Arrays are read by rows. Only compressed ones, and those in column order, are unpacked as a whole
into memory when their first row is read, and stay there.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from ckgrow.checkpoint import Content, Contents, File, Span, Target
from ckgrow.header import Header, numpy_dtype
from ckgrow.names import shown_path

from ._npz_layout import SUFFIX, compose
from ._npz_reading import Array, arrays
from ._npz_rows import Streamed, Unpacked
from ._npz_writer import NpzWriter
from ._rows import rows_shape
from ._side_file import SideFile, main_name, read_side_file, side_name
from ._zip_reading import EMPTY, START, first_name, members


class NpzReader:
    """An open npz file."""

    def __init__(self, file: File, found: Mapping[str, Array], side: SideFile) -> None:
        self.header = Header({name: array.spec for name, array in found.items()})
        self.contents = Contents(metadata=side.metadata)
        self._file = file
        self._side = side
        self._arrays = found
        self._sources = {
            name: (Streamed if array.in_rows else Unpacked)(file, name, array)
            for name, array in found.items()
        }

    def read(self, name: str, start: int, stop: int) -> np.ndarray:
        """Rows ``start`` to ``stop`` of tensor ``name``, in an array of their own."""
        spec = self.header[name]
        rows = self._sources[name].rows(start, rows_shape(name, spec, start, stop))
        return rows.view(numpy_dtype(spec.dtype))

    def span(self, name: str) -> Span | None:
        """Where the tensor stands in the file, if it does so in rows and as this machine has it."""
        array = self._arrays[name]
        if self._file.path is None or not array.in_rows or not array.dtype.isnative:
            return None
        return Span(self._file.path, array.member.offset + array.skipped, array.spec.nbytes)

    def files(self) -> tuple[File, ...]:
        """The archive, and its side file if it has one."""
        return (self._file, *self._side.files)

    def unchanged(self) -> bool:
        """Whether the files are still those that were opened."""
        return all(file.unchanged() for file in self.files())

    def close(self) -> None:
        """Gives the file and the memory back."""
        self._file.close()
        self._sources = {}


class Npz:
    """The format adapter."""

    name = "npz"
    suffixes = (".npz",)
    writable = True
    containers = False
    shards = ""

    def recognises(self, file: File, start: bytes) -> bool:
        """A zip archive that begins with an array, or is empty."""
        return start.startswith(EMPTY) or (
            start.startswith(START) and first_name(file).endswith(SUFFIX.encode())
        )

    def open(self, file: File, weights: str | None) -> NpzReader:
        """Reads the directory, the arrays' headers and the side file."""
        side = read_side_file(file)
        return NpzReader(file, arrays(file, members(file), side.dtypes), side)

    def create(self, target: Target, content: Content) -> NpzWriter:
        """Reserves the space; an existing file is overwritten.

        Raises CheckpointError for what the format cannot hold, FileError when the space is not
        there; then an empty file may be left at the path.
        """
        layout = compose(content.header, shown_path(target.name))
        return NpzWriter(target, layout, content.metadata)

    def companion(self, name: str) -> str:
        """The side file."""
        return side_name(name)

    def main_of(self, name: str) -> str | None:
        """The file that a side file speaks of."""
        return main_name(name)


ADAPTER = Npz()
