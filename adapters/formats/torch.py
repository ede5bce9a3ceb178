"""torch files, .pt and its siblings: a pickled state dict, bare or in a container.

Loading holds the whole file in memory, and so does writing; torch is imported when a file is opened
or written, not before.
"""

from __future__ import annotations

import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from ckgrow.checkpoint import PROVENANCE_KEY, Content, Contents, File, Reader, Span, Target
from ckgrow.errors import CheckpointError, CkgrowError
from ckgrow.header import Header, numpy_dtype

from ._rows import rows_shape
from ._side_file import SideFile, main_name, read_side_file, side_name
from ._torch_container import Container, container_of
from ._torch_loading import ZIP_START, load
from ._torch_ties import ties_of
from ._torch_weights import Chosen, choose, specs_of, tensors_in
from ._torch_writer import TorchWriter

if TYPE_CHECKING:
    import torch

# A pickle, and the number whose first bytes open the layout of torch before 1.6; newer pickle
# protocols put a frame between the two.
_PICKLE_START = b"\x80"
_LEGACY_START = b"\x8a\nl\xfc\x9c"


class StateDictReader:
    """One state dict of a file that is loaded; the tensors are in memory and stay as they are."""

    def __init__(
        self,
        files: tuple[File, ...],
        header: Header,
        contents: Contents,
        tensors: Mapping[str, torch.Tensor],
    ) -> None:
        self.header = header
        self.contents = contents
        self._files = files
        self._tensors = tensors

    def read(self, name: str, start: int, stop: int) -> np.ndarray:
        """Rows ``start`` to ``stop`` of tensor ``name``, in an array of their own."""
        import torch

        spec, tensor = self.header[name], self._tensors[name]
        shape = rows_shape(name, spec, start, stop)
        rows = (tensor if spec.shape else tensor.reshape(1))[start:stop]
        copied = rows.clone(memory_format=torch.contiguous_format)
        data: np.ndarray = copied.reshape(-1).view(torch.uint8).numpy()
        return data.view(numpy_dtype(spec.dtype)).reshape(shape)

    def span(self, name: str) -> Span | None:
        """Nowhere: tensors were unpacked."""
        return None

    def files(self) -> tuple[File, ...]:
        """The torch file, and its side file if it has one."""
        return self._files

    def unchanged(self) -> bool:
        """Whether the files are still those that were opened."""
        return all(file.unchanged() for file in self._files)

    def close(self) -> None:
        """Closes nothing: the file is that of all its state dicts."""


class TorchReader(StateDictReader):
    """A torch file with the state dict that is its weights, and the other ones."""

    def __init__(self, file: File, container: Container, chosen: Chosen, capacity: int) -> None:
        header = specs_of(chosen.tensors, capacity, file.place)
        ties = ties_of(chosen.tensors)
        self._twins = container.twins(header, ties, capacity, file.place)
        side = _side_file(file, container)
        contents = Contents(
            side.metadata,
            chosen.name,
            chosen.dropped,
            tuple(self._twins),
            tuple(container.ungrown((chosen.name, *self._twins))),
            container,
            ties,
        )
        super().__init__((file, *side.files), header, contents, chosen.tensors)

    def twin(self, name: str) -> StateDictReader:
        """The state dict ``name``, one of ``contents.twins``; closing it closes nothing."""
        container: Container = self.contents.container
        twin = self._twins[name]
        contents = Contents(self.contents.metadata, name, ties=twin.ties)
        tensors = tensors_in(container.state_dict(name))
        return StateDictReader(self._files, twin.header, contents, tensors)

    def close(self) -> None:
        """Gives the file and the memory back."""
        self._files[0].close()
        self._tensors = {}
        self.contents = replace(self.contents, container=None)


class Torch:
    """The format adapter."""

    name = "torch"
    suffixes = (".pt", ".pth", ".th", ".bin", ".ckpt")
    writable = True
    containers = True
    shards = ""

    def recognises(self, file: File, start: bytes) -> bool:
        """The old layout by its first number, the new one by the pickle in its zip archive."""
        if start.startswith(_PICKLE_START) and _LEGACY_START in start:
            return True
        return start.startswith(ZIP_START) and _holds_a_pickle(file)

    def open(self, file: File, weights: str | None) -> TorchReader:
        """Loads the file; without ``weights`` the usual names of a state dict are looked for."""
        loaded, capacity = load(file)
        with _forgeries_told(file.place):
            chosen = choose(loaded, weights, file.place)
            return TorchReader(file, Container(loaded, chosen.name), chosen, capacity)

    def create(self, target: Target, content: Content) -> TorchWriter:
        """Writes the zip layout when everything is there; an existing file is overwritten.

        A container comes out as one. A bare state dict has no place for metadata, which stands in
        a side file then.
        """
        return TorchWriter(target, content)

    def companion(self, name: str) -> str:
        """The side file."""
        return side_name(name)

    def main_of(self, name: str) -> str | None:
        """The file that a side file speaks of."""
        return main_name(name)

    def holds(self, reader: Reader, content: Content) -> bool:
        """Whether the entries beside tensors that grow are those of the container, to the bit."""
        written, source = reader.contents, container_of(content)
        with _forgeries_told(reader.files()[0].place):
            return isinstance(written.container, Container) and written.container.carries(
                source, content.drop, (written.weights, *written.twins)
            )


@contextmanager
def _forgeries_told(place: str) -> Iterator[None]:
    """A pickle can give a dictionary attributes in the place of its methods, and more."""
    try:
        yield
    except CkgrowError:
        raise
    except Exception as failure:  # noqa: BLE001 - a forged file can make anything fail
        raise CheckpointError(
            f"{place}: its entries are not what torch.save writes ({type(failure).__name__}); it "
            "is damaged or forged, fetch or save it again"
        ) from None


def _side_file(file: File, container: Container) -> SideFile:
    """What stands beside a bare state dict; a container says it itself."""
    if container.record is not None:
        return SideFile({PROVENANCE_KEY: container.record})
    return read_side_file(file) if container.weights is None else SideFile()


def _holds_a_pickle(file: File) -> bool:
    """Whether a zip archive has torch's ``NAME/data.pkl``; a damaged archive shows nothing."""
    try:
        with file.stream() as stream, zipfile.ZipFile(stream) as archive:
            return any(name.endswith("/data.pkl") for name in archive.namelist())
    except Exception:  # noqa: BLE001 - zipfile answers forged archives with many kinds of error
        return False


ADAPTER = Torch()
