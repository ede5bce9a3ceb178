"""Makes jobs of the entries of a manifest, and refuses those that would get in each other's way."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from functools import cache

from ckgrow.batches.globs import files_of, is_glob, matches
from ckgrow.batches.jobs import Job, absolute
from ckgrow.batches.manifest import Entry
from ckgrow.batches.templates import filled
from ckgrow.checkpoint import SeveralFiles
from ckgrow.errors import SpecError
from ckgrow.names import first_few, quoted, shown_path, without_secrets
from ckgrow.places import beside, is_remote, name_of
from ckgrow.registry import format_named, formats

MOST_PROBLEMS = 20
"""Most problems that one message lists."""


def expanded(entries: Iterable[Entry], folder: str) -> tuple[Job, ...]:
    """The jobs of a manifest in ``folder``: every teacher of an entry by every spec of it.

    Raises SpecError for a glob that matches nothing, a template that cannot be filled, an output
    that no format writes, and for jobs that collide, of which it names all.
    """
    folder = os.path.abspath(folder)
    jobs: list[Job] = []
    problems: list[str] = []
    for entry in entries:
        for job in _jobs(entry, folder):
            jobs.append(job)
            problems += _trap(job, entry)
    problems = _collisions(jobs) + problems
    if problems:
        more = len(problems) - MOST_PROBLEMS
        lines = problems[:MOST_PROBLEMS] + ([f"... and {more} more"] if more > 0 else [])
        raise SpecError("\n".join(lines))
    return tuple(jobs)


def _jobs(entry: Entry, folder: str) -> Iterable[Job]:
    teachers = _unique(entry.teachers, folder, f"{entry.where}: teacher")
    specs = _unique(entry.specs, folder, f"{entry.where}: spec")
    for teacher in teachers:
        for spec in specs:
            output = filled(entry.output, absolute(folder, teacher), spec, entry.where)
            writing = format_named(name_of(output))
            if writing is None or not writing.writable:
                shown = quoted(without_secrets(output))
                raise SpecError(
                    f"{entry.where}: the suffix of output {shown} is none that ckgrow writes; "
                    "`ckgrow adapters` lists the formats"
                )
            yield Job(entry.where, folder, teacher, spec, output, entry.weights, entry.verify)


def _unique(places: Sequence[str], folder: str, what: str) -> dict[str, None]:
    """Every file once, though several globs may match it."""
    return dict.fromkeys(each for place in places for each in files_of(place, folder, what))


def _trap(job: Job, entry: Entry) -> Iterable[str]:
    """A glob of teachers that would take this job's student for a teacher, the next time."""
    for pattern in filter(is_glob, entry.teachers):
        full = _plain(absolute(job.folder, pattern))
        for place in _files(job.output_place):
            if matches(_plain(place), full):
                what = "the output" if place == job.output_place else "a file of the output"
                yield (
                    f"{job.where}: teacher {quoted(without_secrets(pattern))} matches {what} "
                    f"{shown_path(job.output)} as well; write students elsewhere"
                )
                return


def _files(output: str) -> Iterable[str]:
    """The file that is opened, and one of those that may lie beside it."""
    yield output
    writing = format_named(name_of(output))
    if isinstance(writing, SeveralFiles):
        yield str(beside(output, writing.companion(name_of(output))))


def _plain(place: str) -> str:
    return place if is_remote(place) else os.path.normpath(place)


def _collisions(jobs: Sequence[Job]) -> list[str]:
    """One sentence for every output that several jobs write, or that is a teacher or a spec."""
    real = cache(os.path.realpath)  # many files are in few folders
    writing: dict[str, list[Job]] = {}
    for job in jobs:
        writing.setdefault(_identity(job.output_place, real), []).append(job)
    problems = [
        f"{shown_path(several[0].output)} is the output of {len(several)} jobs: "
        f"{first_few([_described(each) for each in several])}"
        for several in writing.values()
        if len(several) > 1
    ]
    told = set()

    def tell(job: Job, key: str, relation: str) -> None:
        if key in writing and (key, relation) not in told:
            told.add((key, relation))
            problems.append(
                f"{shown_path(writing[key][0].output)} is the output of a job "
                f"({_described(writing[key][0])}) and {relation} ({_described(job)})"
            )

    for job in jobs:
        for what, place in (("teacher", job.teacher_place), ("spec", job.spec_place)):
            tell(job, _identity(place, real), f"the {what} of one")
        for what in ("teacher", "output"):
            place = job.teacher_place if what == "teacher" else job.output_place
            for whole in _wholes(place):
                tell(job, _identity(whole, real), f"may have the {what} of one as its part")
    return problems


def _wholes(place: str) -> Iterable[str]:
    """The checkpoints that a file, called as it is, may be a part of."""
    for each in formats().values():
        main = each.main_of(name_of(place)) if isinstance(each, SeveralFiles) else None
        if main is not None:
            yield str(beside(place, main))


def _identity(place: str, real: Callable[[str], str]) -> str:
    """The same text for all names of a file, through links and dots."""
    if is_remote(place):
        return place.rstrip("/")
    folder, name = os.path.split(place)
    if name in ("", ".", ".."):
        return real(place)
    path = os.path.join(real(folder), name)
    return real(path) if os.path.islink(path) else path


def _described(job: Job) -> str:
    return f"{job.where}: {shown_path(job.teacher)} by {shown_path(job.spec)}"
