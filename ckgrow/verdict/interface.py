"""Two networks whose inputs or outputs have different channels, compared on those they share.

A student with more input channels computes its teacher's function of the teacher's channels, and
ignores the others; a student with more classes computes the teacher's logits, and others. Which
channels are whose stands in the student's record: for a graph input or output a map from the
teacher's channels to the student's. So the student is fed the teacher's inputs in the places of
their copies, with random values in new ones, and of its outputs the first copies are compared.
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

        None where there is no map, or one that does not fit, or leaves out a channel.
        """
        dim, grown = grown_dim(teacher, student), self.maps.get(name)
        if dim is None or grown is None or (grown.counts == 0).any():
            return None
        return dim if (grown.width, len(grown)) == (teacher[dim], student[dim]) else None

    def note(self, name: str, teacher: Shape, student: Shape) -> str:
        """How two shapes of ``name`` were brought together, or what is missing for it."""
        dim = grown_dim(teacher, student)
        if dim is None:
            return ""
        if self.dim(name, teacher, student) is not None:
            return f"compared on the teacher's {teacher[dim]} of {student[dim]} channels"
        return self.missing or "its record in the student's file does not tell of this change"

    def old(self, name: str, array: np.ndarray, shape: Shape) -> np.ndarray:
        """Of a student's input or output the teacher's, of ``shape``: the first copies."""
        dim = self.dim(name, shape, array.shape)
        if dim is None:
            return array
        grown = self.maps[name]
        first = np.flatnonzero((grown.sources >= 0) & (grown.ranks == 0))
        return np.take(array, first[np.argsort(grown.sources[first])], axis=dim)

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
                for_student[name] = _extended(array, dim, self.maps[name], (seed, name))
                drawn.append(name)
        more = f"; new channels of {', '.join(drawn)} seeded normal" if drawn else ""
        return replace(
            samples, source=samples.source + more, arrays=for_teacher, of_student=for_student
        )


SAME = Interface()
"""Both sides have the same channels."""


def grown_dim(teacher: Shape, student: Shape) -> int | None:
    """The only dimension that differs, if the student's is larger; the batch aside."""
    if len(teacher) != len(student):
        return None
    differing = [dim for dim in range(1, len(teacher)) if teacher[dim] != student[dim]]
    if len(differing) != 1:
        return None
    before, after = teacher[differing[0]], student[differing[0]]
    larger = isinstance(before, int) and isinstance(after, int) and before < after
    return differing[0] if larger else None


def _extended(array: np.ndarray, dim: int, grown: ChannelMap, key: tuple[int, str]) -> np.ndarray:
    """The array with the entries of copies along ``dim``, and normal ones for fresh units."""
    source = np.moveaxis(array, dim, 1)
    count, _, *rest = source.shape
    length = grown.fresh_count * math.prod(rest)
    drawn = Stream("new channels", *key).normal_rows(np.arange(count), length)
    fresh = drawn.reshape(count, grown.fresh_count, *rest).astype(array.dtype)
    made = np.zeros((count, len(grown), *rest), array.dtype)
    copied, units = grown.sources >= 0, grown.fresh_units
    made[:, copied] = source[:, grown.sources[copied]]
    made[:, units >= 0] = fresh[:, units[units >= 0]]
    return np.ascontiguousarray(np.moveaxis(made, 1, dim))
