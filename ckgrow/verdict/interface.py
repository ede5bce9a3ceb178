"""Two networks whose inputs or outputs have different channels, compared on those they share.

A student with more input channels computes its teacher's function of the teacher's channels, and
ignores the others; a student with more classes computes the teacher's logits, and others. Which
channels are whose stands in the student's record: for a graph input or output a map from the
teacher's channels to the student's. Only maps that keep the old channels under their old numbers
are believed. The student is fed the teacher's inputs with random values in the new channels behind
them, and of its outputs the old channels are compared.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from ckgrow.graph import Graph, Shape
from ckgrow.maps import ChannelMap
from ckgrow.random import Stream
from ckgrow.verdict.samples import Samples


@dataclass(frozen=True)
class Interface:
    """``maps`` from the teacher's channels to the student's, by graph input and output.

    What has no map has the same channels on both sides. ``missing`` says why there is no record
    of them, "" where there is one.
    """

    maps: Mapping[str, ChannelMap] = field(default_factory=dict)
    missing: str = ""

    def joins(self, teacher: Graph, student: Graph) -> bool:
        """Whether both graphs can be fed the same samples."""
        before, after = dict(teacher.inputs), dict(student.inputs)
        return before.keys() == after.keys() and all(
            shape == after[name] or self.dim(name, shape, after[name]) is not None
            for name, shape in before.items()
        )

    def dim(self, name: str, teacher: Shape, student: Shape) -> int | None:
        """The dimension along which the map of ``name`` leads from one shape to the other.

        None where there is no map, or one that does not fit, or moves an old channel.
        """
        differing, grown = _differing_dims(teacher, student), self.maps.get(name)
        if len(differing) != 1 or grown is None:
            return None
        dim = differing[0]
        fits = (grown.width, len(grown)) == (teacher[dim], student[dim])
        kept = np.array_equal(grown.sources[: grown.width], np.arange(grown.width))
        return dim if fits and kept else None

    def note(self, name: str, teacher: Shape, student: Shape) -> str:
        """How two shapes of ``name`` were brought together, or what is missing for it."""
        dim = self.dim(name, teacher, student)
        if dim is not None:
            return f"compared on the teacher's {teacher[dim]} of {student[dim]} channels"
        if not _is_larger(teacher, student):
            return ""
        return self.missing or "the student's record does not tell of this change"

    def old(self, name: str, array: np.ndarray, shape: Shape) -> np.ndarray:
        """Of a student's input or output the teacher's channels, whose ``shape`` is this."""
        dim = self.dim(name, shape, array.shape)
        return array if dim is None else np.take(array, np.arange(self.maps[name].width), dim)

    def shared(self, samples: Samples, teacher: Graph, student: Graph, seed: int) -> Samples:
        """The samples for both sides; those of ``samples`` are of either one.

        New channels that they do not have are standard normal: a student that does not ignore
        them is found out.
        """
        for_teacher, for_student = dict(samples.arrays), dict(samples.arrays)
        drawn = []
        for name, array in samples.arrays.items():
            before, after = teacher.inputs[name], student.inputs.get(name, ())
            dim = self.dim(name, before, after)
            if dim is None:
                continue
            if array.shape[dim] == after[dim]:
                for_teacher[name] = self.old(name, array, before)
            else:
                for_student[name] = _extended(array, dim, int(after[dim]), (seed, name))
                drawn.append(name)
        more = f"; new channels of {', '.join(drawn)} seeded normal" if drawn else ""
        return replace(
            samples, source=samples.source + more, arrays=for_teacher, of_student=for_student
        )


SAME = Interface()
"""Both sides have the same channels."""


def _differing_dims(teacher: Shape, student: Shape) -> list[int]:
    """The dimensions that differ between shapes of one rank; the batch aside."""
    if len(teacher) != len(student):
        return []
    return [dim for dim in range(1, len(teacher)) if teacher[dim] != student[dim]]


def _is_larger(teacher: Shape, student: Shape) -> bool:
    """Whether the student has more of one thing: growth, perhaps, rather than another network."""
    sizes = [(teacher[dim], student[dim]) for dim in _differing_dims(teacher, student)]
    return len(sizes) == 1 and all(
        isinstance(a, int) and isinstance(b, int) and a < b for a, b in sizes
    )


def _extended(array: np.ndarray, dim: int, size: int, key: tuple[int, str]) -> np.ndarray:
    """The array with normal entries behind its own, ``size`` of them along ``dim`` in all."""
    shape = (*array.shape[:dim], size - array.shape[dim], *array.shape[dim + 1 :])
    drawn = Stream("new channels", *key).normal_rows(np.arange(len(array)), math.prod(shape[1:]))
    return np.concatenate([array, drawn.reshape(shape).astype(array.dtype)], axis=dim)
