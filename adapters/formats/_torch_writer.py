"""Writes torch files: tensors are collected in memory, and saved when all are there."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from ckgrow.checkpoint import PROVENANCE_KEY, Content, Target
from ckgrow.errors import CheckpointError, FileError
from ckgrow.header import Header, common_prefix

from ._output_file import OutputFile
from ._rows import packed
from ._side_file import SideFile, write_side_file
from ._torch_container import Container, container_of
from ._torch_ties import Ties, same_bits
from ._writing import Missing, replaced

if TYPE_CHECKING:
    import torch


class StateDict:
    """The tensors of one state dict, written to from several threads at once."""

    def __init__(self, header: Header, ties: Ties) -> None:
        self.header = header
        self._ties = ties
        self._bytes = {name: np.empty(spec.nbytes, np.uint8) for name, spec in header.items()}
        self._missing = Missing(header)

    def write(self, name: str, start: int, rows: np.ndarray) -> None:
        """Keeps ``rows`` of tensor ``name`` from row ``start`` on, each row once.

        Raises ValueError when they do not fit the tensor.
        """
        begin, data = packed(name, self.header[name], start, rows)
        self._bytes[name][begin : begin + len(data)] = data
        self._missing.wrote(len(data))

    def tensors(self) -> dict[str, torch.Tensor]:
        """All of them, tied ones as one; ValueError when rows are missing or ties differ."""
        self._missing.require_none()
        made = {name: self._tensor(name) for name in self.header}
        for first, *others in self._ties:
            for name in others:
                if not same_bits(made[first], made[name]):
                    raise ValueError(f"{first!r} and {name!r} are tied and differ")
                made[name] = made[first]
        return made

    def release(self) -> None:
        """Gives the memory back."""
        self._bytes = {}

    def _tensor(self, name: str) -> torch.Tensor:
        import torch

        spec = self.header[name]
        dtype: torch.dtype = getattr(torch, spec.dtype)
        if not spec.size:
            return torch.empty(spec.shape, dtype=dtype)
        return torch.from_numpy(self._bytes[name]).view(dtype).reshape(spec.shape)


class TorchWriter(StateDict):
    """A torch file being written: the state dict that is its weights, and their twins."""

    def __init__(self, target: Target, content: Content) -> None:
        super().__init__(content.header, content.ties)
        self._container = container_of(content)
        self._target = target
        self._metadata = content.metadata
        self._drop = content.drop
        self._twins: dict[str, StateDict] = {}
        self._file = OutputFile(target.path, 0)

    def twin(self, name: str, header: Header, ties: Ties = ()) -> StateDict:
        """Where the tensors of another state dict of the container go."""
        self._twins[name] = StateDict(header, ties)
        return self._twins[name]

    def finish(self, replacements: Mapping[str, str]) -> None:
        """Replaces placeholders in the metadata, saves everything, flushes, and closes.

        Raises ValueError when rows are missing, or a placeholder is not there exactly once.
        """
        metadata = replaced(self._metadata, replacements)
        record = metadata.get(PROVENANCE_KEY)
        weights = self.tensors()
        state_dicts: dict[str | None, dict[str, torch.Tensor]] = {self._container.weights: weights}
        for name, twin in self._twins.items():
            made = twin.tensors()
            shares = self._container.same(name)
            state_dicts[name] = _sharing(made, weights) if shares else made
        _save(self._container.rebuilt(state_dicts, self._drop, record), self._file)
        self._file.finish()
        if self._container.weights is None:
            write_side_file(self._target, SideFile(metadata))
        self.release()

    def abandon(self) -> None:
        """Closes without finishing, and gives the memory back."""
        self._file.abandon()
        self.release()

    def release(self) -> None:
        """Gives the memory back, that of twins and of the teacher's entries as well."""
        super().release()
        self._twins = {}
        self._container = Container({}, None)


class _Stream:
    """The file as torch writes it, from its beginning to its end."""

    def __init__(self, file: OutputFile) -> None:
        self._file = file
        self._position = 0
        self.failure: FileError | None = None

    def write(self, data: bytes | memoryview) -> int:
        """Appends ``data``."""
        view = memoryview(data).cast("B")
        try:
            self._file.write(view, self._position)
        except FileError as failure:
            self.failure = failure
            raise
        self._position += len(view)
        return len(view)

    def flush(self) -> None:
        """Nothing is held back."""


def _save(value: Mapping[object, object], file: OutputFile) -> None:
    import torch

    stream = _Stream(file)
    try:
        torch.save(value, stream)  # type: ignore[arg-type]  # it writes and flushes, no more
    except Exception as failure:  # noqa: BLE001 - what was in a forged file can make it raise any
        if stream.failure is not None:  # of which torch speaks in words of its own
            raise stream.failure from None
        raise CheckpointError(
            f"{file.place}: an entry of the teacher's file cannot be saved again "
            f"({type(failure).__name__}): it is nested too deeply, or damaged; leave it out with "
            "--drop"
        ) from None


def _sharing(
    twin: Mapping[str, torch.Tensor], weights: Mapping[str, torch.Tensor]
) -> dict[str, torch.Tensor]:
    """A twin whose tensors were the weights' own: they are again where they are the same."""
    before, after = common_prefix(twin), common_prefix(weights)
    made = dict(twin)
    for name, tensor in twin.items():
        own = weights.get(after + name.removeprefix(before))
        if own is not None and same_bits(own, tensor):
            made[name] = own
    return made
