"""The function that workers run: one part of a student, from places and names alone.

Planning is quick and comes out the same everywhere, so a worker plans again rather than being sent
a plan; and measures again what a plan leaves to be measured.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from blake3 import blake3

from ckgrow.batches.halting import Obedient
from ckgrow.checkpoint import Content, File
from ckgrow.errors import CheckpointError, CkgrowError, FileError, SpecError, Terminated
from ckgrow.execute import execute
from ckgrow.header import Header
from ckgrow.loading import Loaded, Wish, load
from ckgrow.making import made_tensors
from ckgrow.names import shown_path
from ckgrow.planning import make_plan
from ckgrow.reasons import words
from ckgrow.registry import format_named
from ckgrow.spec import from_dict
from ckgrow.version import VERSION

KINDS = (SpecError, CheckpointError, FileError)
"""What may go wrong in a worker and is raised again where the student is wanted."""


@dataclass(frozen=True)
class Grown:
    """What became of a part: hashes of its tensors by name, or the ``error`` of a ``kind``.

    ``kind`` counts in ``KINDS``; without one it is an error inside ckgrow. Both are missing where
    the task was stopped.
    """

    digests: Mapping[str, str] | None = None
    error: str = ""
    kind: int | None = None


@dataclass(frozen=True)
class Teacher:
    """Where the teacher is, and ``signs`` by which a worker knows that it is the same one."""

    place: str = field(repr=False)
    weights: str | None
    signs: str


@dataclass(frozen=True)
class Student:
    """What is made of the teacher: ``spec`` as plain values, whose paths begin in ``folder``.

    It is made without its noise where ``quiet``, by the ckgrow of the same ``version``.
    """

    spec: Mapping[str, Any]
    folder: str
    quiet: bool
    version: str = VERSION


@dataclass(frozen=True)
class Part:
    """One file of it at ``path``, which is there already, for the tensors ``names``."""

    path: str
    suffix: str
    names: Sequence[str]
    metadata: Mapping[str, str]


def grow_part(teacher: Teacher, student: Student, part: Part, sign: str, parent: int) -> Grown:
    """Writes one part in one thread, and says what became of it.

    ``sign`` and ``parent`` stop it, as in :class:`ckgrow.batches.halting.Obedient`.
    """
    try:
        return Grown(_grown(teacher, student, part, Obedient(sign, parent)))
    except Terminated:
        return Grown()
    except CkgrowError as failure:
        kind = next((n for n, each in enumerate(KINDS) if isinstance(failure, each)), None)
        return Grown(error=str(failure), kind=kind)
    except OSError as failure:
        error = f"{part.path}: {words(failure)}"
        return Grown(error=error, kind=KINDS.index(FileError))
    except Exception as failure:  # noqa: BLE001 - told where the student is wanted
        return Grown(error=f"{type(failure).__name__}: {failure}")


def signs_of(teacher: Loaded) -> str:
    """What tells a teacher from another without reading it: header, sizes and times."""
    header = sorted((name, spec.dtype, spec.shape) for name, spec in teacher.header.items())
    stamps = [(file.name, file.stamp) for file in teacher.reader.files()]
    return str(blake3(repr((header, stamps)).encode()).hexdigest())


def _grown(teacher: Teacher, student: Student, part: Part, watching: Obedient) -> dict[str, str]:
    watching.begin("starting", 0)
    path = Path(part.path)
    if student.version != VERSION:
        raise FileError(
            f"a worker has ckgrow {VERSION} where {student.version} is needed; install the same "
            "version on all machines"
        )
    if not path.exists():
        raise FileError(
            f"a worker does not find the file {shown_path(path)}, which it is to write; the "
            "folder of the output has to be there, under the same name, on all machines"
        )
    spec = from_dict(student.spec, str(Path(student.folder) / "spec"))
    wish = Wish(spec.teacher.architecture, spec.teacher.options, teacher.weights)
    with load(teacher.place, wish) as loaded:
        if signs_of(loaded) != teacher.signs:
            raise _changed(loaded)
        made = made_tensors(make_plan(loaded, spec), quiet=student.quiet)
        chosen = {name: made[name] for name in part.names}
        header = Header({name: recipe.spec for name, recipe in chosen.items()})
        form = format_named(part.suffix)
        if form is None:
            raise FileError(f"a worker knows no format of {part.suffix} files; install its package")
        writer = form.create(_Alone(path), Content(header, part.metadata))
        try:
            digests = execute(chosen, loaded.read, writer, 1, watching.advance)
            writer.finish({})
        except BaseException:
            writer.abandon()
            raise
        if not loaded.reader.unchanged():
            raise _changed(loaded)
    return digests


def _changed(teacher: Loaded) -> FileError:
    return FileError(
        f"{teacher.label} is not, for a worker, the file that it was for the plan: it changed, or "
        "another machine has another file of that name; run again when nothing writes to it"
    )


@dataclass(frozen=True)
class _Alone:
    """A target that is one file."""

    path: Path

    @property
    def name(self) -> str:
        """As it is called now."""
        return self.path.name

    def companion(self, name: str) -> Path:
        """There are none."""
        raise FileError(f"{shown_path(self.path)} cannot have files beside it")

    def replaced(self) -> File | None:
        """Nothing is."""
        return None

    def outdate(self, name: str) -> None:
        """Nothing goes."""
