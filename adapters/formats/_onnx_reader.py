"""Reads the initialisers of an ONNX model by rows, wherever they stand."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext

import numpy as np

from ckgrow.checkpoint import Contents, File, Span
from ckgrow.errors import CheckpointError
from ckgrow.header import Header, numpy_dtype
from ckgrow.names import shown

from ._onnx_parsing import Model
from ._onnx_tensors import Initialiser
from ._onnx_varints import Varints
from ._rows import rows_shape
from ._siblings import Siblings


class OnnxReader:
    """An open model, with the files that its tensors stand in.

    Raises CheckpointError where such a file is missing, too short, or not beside the model.
    """

    def __init__(self, file: File, model: Model) -> None:
        self.header = Header({name: each.spec for name, each in model.tensors.items()})
        self.contents = Contents(metadata=model.metadata, dropped=model.constants)
        self._tensors = model.tensors
        self._file = file
        self._others = _others(file, model.tensors.values())
        self._siblings = Siblings(file, self._others)
        self._packed = {
            name: Varints(name, each.spec, file, each.offset, each.size)
            for name, each in model.tensors.items()
            if each.packed
        }

    def read(self, name: str, start: int, stop: int) -> np.ndarray:
        """Rows ``start`` to ``stop`` of tensor ``name``, in an array of their own."""
        spec = self.header[name]
        shape = rows_shape(name, spec, start, stop)
        width = math.prod(shape[1:])
        if name in self._packed:
            return self._packed[name].read(start * width, stop * width).reshape(shape)
        rows = np.empty(shape, numpy_dtype(spec.dtype))
        if rows.size:
            own = self._tensors[name]
            data = rows.reshape(-1).view(np.uint8)  # the same memory, as bytes
            offset = own.offset + start * width * spec.itemsize
            with self._holding(own) as file:
                file.read_into(data.data, offset)
        return rows

    def span(self, name: str) -> Span | None:
        """Where the tensor stands, unless it is packed or its file is elsewhere."""
        own = self._tensors[name]
        path = (self._file if own.location is None else self._others[own.location]).path
        if own.packed or path is None:
            return None
        return Span(path, own.offset, own.size)

    def files(self) -> tuple[File, ...]:
        """The model, and the files of its tensors."""
        return (self._file, *self._siblings.files())

    def unchanged(self) -> bool:
        """Whether all files are still those that were opened."""
        return all(file.unchanged() for file in self.files())

    def close(self) -> None:
        """Gives all files back."""
        self._siblings.close()
        self._file.close()

    def _holding(self, tensor: Initialiser) -> AbstractContextManager[File]:
        """The file in which a tensor stands."""
        return (
            nullcontext(self._file)
            if tensor.location is None
            else self._siblings.use(tensor.location)
        )


def _others(model: File, tensors: Iterable[Initialiser]) -> dict[str, File]:
    """The files of tensors that are not in the model itself, by their locations."""
    files: dict[str, File] = {}
    for each in tensors:
        if each.location is None:
            continue
        if each.location not in files:
            files[each.location] = _beside(model, each.location)
        file = files[each.location]
        if each.offset + each.size > file.size:
            raise CheckpointError(
                f"{file.place} is too short: tensor {shown(each.name)} of {model.place} ends "
                f"at byte {each.offset + each.size}, the file has {file.size}; fetch it again"
            )
    return files


def _beside(model: File, location: str) -> File:
    """A file that the model names, closed again."""
    file = model.sibling(location)
    if file is None:
        raise CheckpointError(
            f"{model.place} needs the file {shown(location)} for its tensors, which is not beside "
            "it; put it there"
        )
    try:
        # A name of any other file of this machine may be made here by whoever may write here.
        if file.path is not None and os.stat(file.path).st_nlink > 1:
            raise CheckpointError(
                f"{model.place} names the file {shown(location)}, which has another name "
                "elsewhere (a hard link); put a copy there"
            )
    finally:
        file.close()
    return file
