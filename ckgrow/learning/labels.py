"""What the user's samples are to be answered with: class indices, or outputs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ckgrow.errors import CheckpointError
from ckgrow.graph import Shape
from ckgrow.header import FLOAT_DTYPES
from ckgrow.names import shown, shown_path
from ckgrow.shapes import infer_shapes
from ckgrow.verdict.arrays import load_arrays
from ckgrow.verdict.running import Side


@dataclass(frozen=True)
class Labels:
    """Arrays by output, "count ..." each: whole numbers are classes; ``source`` says whence."""

    source: str
    arrays: Mapping[str, np.ndarray]

    def first(self, count: int) -> Labels:
        """Those of the first samples."""
        return Labels(self.source, {name: each[:count] for name, each in self.arrays.items()})


def read_labels(path: Path, teacher: Side, student: Side, count: int) -> Labels:
    """The labels of ``count`` samples: .npy, .npz or a checkpoint format.

    Class indices belong to every output of the shape [N, classes], unless they are named after one.
    Raises FileError when the file cannot be read, CheckpointError when its arrays fit no output.
    """
    outputs = _Outputs(path, _shapes(teacher), _shapes(student), count)
    found = load_arrays(path)
    if not found:
        raise CheckpointError(f"{shown_path(path)} holds no array; expected labels")
    if len(found) == 1 and (alone := next(iter(found.values()))).dtype.kind in "iu":
        name = next(iter(found))
        places = [name] if name in outputs.student else outputs.with_classes()
        labels = {place: outputs.classes(place, alone) for place in places}
        return Labels(f"cross-entropy against the classes in {path.name}", labels)
    if len(found) == len(outputs.student) == 1:
        found = dict(zip(outputs.student, found.values(), strict=True))
    labels = {name: outputs.label(name, array) for name, array in found.items()}
    kinds = {array.dtype.kind for array in labels.values()}
    loss = " and ".join(
        words
        for kind, words in (("i", "cross-entropy"), ("f", "mean square error"))
        if kind in kinds
    )
    return Labels(f"{loss} against {path.name}", labels)


@dataclass(frozen=True)
class _Outputs:
    """The outputs that labels have to fit, by name."""

    path: Path
    teacher: Mapping[str, Shape]
    student: Mapping[str, Shape]
    count: int

    def with_classes(self) -> list[str]:
        """The outputs whose entries are classes."""
        places = [name for name, shape in self.student.items() if len(shape) == 2]
        if not places:
            raise CheckpointError(
                f"{shown_path(self.path)} holds whole numbers, which are taken for classes, but no "
                f"output has the shape [N, classes]: there are {_listed(self.student)}"
            )
        return places

    def label(self, name: str, array: np.ndarray) -> np.ndarray:
        """One array, checked; classes as int64, outputs as float64."""
        if name not in self.student:
            raise CheckpointError(
                f"{shown_path(self.path)}: the array {shown(name)} is no output of the student; "
                f"expected {_listed(self.student)}"
            )
        if array.dtype.kind in "iu":
            return self.classes(name, array)
        what = f"{shown_path(self.path)}: the labels of {shown(name)}"
        if array.dtype.name not in FLOAT_DTYPES:
            raise CheckpointError(
                f"{what} are {array.dtype}; expected whole numbers (classes) or floating point "
                "(outputs)"
            )
        shapes = dict.fromkeys((self.student[name], self.teacher.get(name, self.student[name])))
        fitting = [(self.count, *shape[1:]) for shape in shapes]
        if array.shape not in fitting:
            expected = " or ".join(str(list(shape)) for shape in fitting)
            raise CheckpointError(
                f"{what} have shape {list(array.shape)}; expected {expected} for {self.count} "
                "samples"
            )
        double = array.astype(np.float64)
        if not np.isfinite(double).all():
            broken = int((~np.isfinite(double)).sum())
            raise CheckpointError(f"{what} hold NaN or infinity ({broken} of {double.size} values)")
        return double

    def classes(self, name: str, array: np.ndarray) -> np.ndarray:
        """Class indices of an output, checked."""
        what = f"{shown_path(self.path)}: the classes of {shown(name)}"
        shape = self.student[name]
        if len(shape) != 2 or not isinstance(shape[1], int):
            raise CheckpointError(f"{what} cannot be: its shape is {list(shape)}, not [N, classes]")
        if array.ndim != 1:
            hint = "; of one-hot rows take array.argmax(1)" if array.ndim == 2 else ""
            raise CheckpointError(
                f"{what} have shape {list(array.shape)}; expected one per sample, "
                f"[{self.count}]{hint}"
            )
        if len(array) != self.count:
            raise CheckpointError(f"{what}: {len(array)} for {self.count} samples")
        lowest, highest = int(array.min()), int(array.max())
        if lowest < 0 or highest >= shape[1]:
            wrong = lowest if lowest < 0 else highest
            raise CheckpointError(
                f"{what}: there is a class {wrong}; the student has 0 to {shape[1] - 1}"
            )
        known = self.teacher.get(name, shape)[1]
        if isinstance(known, int) and lowest >= known:
            raise CheckpointError(
                f"{what}: none is below {known}, so the teacher has none of them, and the student "
                "is seen beside it; add samples of the teacher's classes"
            )
        return array.astype(np.int64)


def _shapes(side: Side) -> dict[str, Shape]:
    shapes = infer_shapes(side.graph, side.header)
    return {name: shapes[name] for name in side.graph.outputs}


def _listed(shapes: Mapping[str, Shape]) -> str:
    return ", ".join(f"{shown(name)} {list(shape)}" for name, shape in shapes.items())
