"""The inputs both networks are run on: seeded ones, or the user's own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import numpy as np

from ckgrow.errors import CheckpointError, SpecError
from ckgrow.graph import BATCH, Graph, Shape
from ckgrow.names import shown, shown_path
from ckgrow.random import Stream
from ckgrow.verdict.arrays import read_arrays, read_headers


@dataclass(frozen=True)
class Samples:
    """Float32 arrays by graph input, "count ..." each; ``source`` says where they come from.

    ``of_student`` are the student's, where its inputs have other channels; None where both sides
    read the same arrays.
    """

    source: str
    arrays: Mapping[str, np.ndarray]
    of_student: Mapping[str, np.ndarray] | None = None

    @property
    def count(self) -> int:
        """Number of samples; 0 when there is no input at all."""
        return min((len(array) for array in self.arrays.values()), default=0)

    def for_student(self) -> Samples:
        """The same samples as the student reads them."""
        return self if self.of_student is None else Samples(self.source, self.of_student)

    def rows(self, start: int, stop: int) -> dict[str, np.ndarray]:
        """A part of the batch."""
        return {name: array[start:stop] for name, array in self.arrays.items()}


def seeded_samples(graph: Graph, count: int, seed: int) -> Samples:
    """``count`` standard normal samples, one of zeros and one of ones, for every graph input."""
    if count < 1:
        raise SpecError(f"verify needs at least one normal sample, not {count}")
    arrays: dict[str, np.ndarray] = {}
    for name, shape in graph.inputs.items():
        sizes = _sizes(name, shape)
        length = int(np.prod(sizes))
        normal = Stream("samples", seed, name).normal_rows(np.arange(count), length)
        rows = np.concatenate([normal, np.zeros((1, length)), np.ones((1, length))])
        arrays[name] = rows.astype(np.float32).reshape(count + 2, *sizes)
    plural = "sample" if count == 1 else "samples"
    return Samples(f"{count} seeded normal {plural}, zeros, ones", arrays)


def from_file(
    path: Path, graph: Graph, others: Mapping[str, Shape] = MappingProxyType({})
) -> Samples:
    """The user's inputs: one array per graph input; a single array may bear any name.

    Arrays may instead have the shapes ``others``. Raises FileError when the file cannot be read,
    CheckpointError when it is no such file, or its arrays have other names, shapes or dtypes than
    the graph's inputs, are empty, or are not finite.
    """
    arrays = read_arrays(path, graph.inputs, "graph input", others)
    count = _count(path, graph, {name: len(array) for name, array in arrays.items()})
    with np.errstate(over="ignore"):
        single = {name: array.astype(np.float32) for name, array in arrays.items()}
    for name, array in single.items():
        if not np.isfinite(array).all():
            raise CheckpointError(
                f"{shown_path(path)}: {shown(name)} has values too large for float32"
            )
    return Samples(f"{count} samples from {path.name}", single)


def count_in_file(path: Path, graph: Graph, advice: str = "") -> int:
    """How many samples :func:`from_file` would read, from what the file says of its arrays.

    Raises what that raises, but for values; ``advice`` is for samples of another size.
    """
    found = read_headers(path, graph.inputs, "graph input", advice)
    return _count(path, graph, {name: spec.shape[0] for name, spec in found.items()})


def _count(path: Path, graph: Graph, lengths: Mapping[str, int]) -> int:
    missing = [name for name in graph.inputs if name not in lengths]
    if missing:
        raise CheckpointError(
            f"{shown_path(path)}: no array for the graph input {shown(missing[0])}"
        )
    counts = set(lengths.values())
    if len(counts) > 1:
        raise CheckpointError(
            f"{shown_path(path)}: the arrays hold different numbers of samples: {counts}"
        )
    return counts.pop()


def _sizes(name: str, shape: Shape) -> tuple[int, ...]:
    sizes = tuple(size for size in shape[1:] if isinstance(size, int))
    if shape[:1] != (BATCH,) or len(sizes) != len(shape) - 1:
        raise CheckpointError(
            f"graph input {shown(name)} has shape {list(shape)}; samples need a batch dimension "
            "first and whole sizes after it: give your own with --inputs"
        )
    return sizes
