"""torch files, .pt and its siblings: a pickled state dict, bare or in a container (read only).

Loading holds the whole file in memory; torch is imported when a file is opened, not before.
"""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from typing import TYPE_CHECKING, NoReturn

import numpy as np

from ckgrow.checkpoint import Content, Contents, File, Span, Target
from ckgrow.errors import SpecError
from ckgrow.header import Header, numpy_dtype

from ._rows import rows_shape
from ._torch_loading import ZIP_START, load
from ._torch_weights import choose, specs_of

if TYPE_CHECKING:
    import torch

# A pickle, and the number whose first bytes open the layout of torch before 1.6; newer pickle
# protocols put a frame between the two.
_PICKLE_START = b"\x80"
_LEGACY_START = b"\x8a\nl\xfc\x9c"


class TorchReader:
    """A torch file, loaded; the tensors are in memory and stay as they are."""

    def __init__(
        self,
        file: File,
        header: Header,
        contents: Contents,
        tensors: Mapping[str, torch.Tensor],
    ) -> None:
        self.header = header
        self.contents = contents
        self._file = file
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

    def unchanged(self) -> bool:
        """Whether the file is still the one that was opened."""
        return self._file.unchanged()

    def close(self) -> None:
        """Gives the file and the memory back."""
        self._file.close()
        self._tensors = {}


class Torch:
    """The format adapter."""

    name = "torch"
    suffixes = (".pt", ".pth", ".th", ".bin", ".ckpt")
    writable = False
    containers = True
    shards = ""

    def recognises(self, file: File, start: bytes) -> bool:
        """The old layout by its first number, the new one by the pickle in its zip archive."""
        if start.startswith(_PICKLE_START) and _LEGACY_START in start:
            return True
        return start.startswith(ZIP_START) and _holds_a_pickle(file)

    def open(self, file: File, weights: str | None) -> TorchReader:
        """Loads the file; without ``weights`` the usual names of a state dict are looked for."""
        try:
            loaded, capacity = load(file)
            chosen = choose(loaded, weights, file.place)
            header = specs_of(chosen.tensors, capacity, file.place)
            contents = Contents(metadata={}, weights=chosen.name, dropped=chosen.dropped)
            return TorchReader(file, header, contents, chosen.tensors)
        except BaseException:
            file.close()
            raise

    def create(self, target: Target, content: Content) -> NoReturn:
        """Raises SpecError: writing is not supported."""
        raise SpecError(
            f"{target.name}: torch output is not supported yet; name an output that ends in "
            ".safetensors"
        )


def _holds_a_pickle(file: File) -> bool:
    """Whether a zip archive has torch's ``NAME/data.pkl``; a damaged archive shows nothing."""
    try:
        with file.stream() as stream, zipfile.ZipFile(stream) as archive:
            return any(name.endswith("/data.pkl") for name in archive.namelist())
    except Exception:  # noqa: BLE001 - zipfile answers forged archives with many kinds of error
        return False


ADAPTER = Torch()
