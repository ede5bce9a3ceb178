"""A job: which teacher grows by which spec into which file."""

from __future__ import annotations

import os
from dataclasses import dataclass

from ckgrow.names import without_secrets
from ckgrow.places import is_remote, local


@dataclass(frozen=True)
class Job:
    """One apply.

    ``teacher``, ``spec`` and ``output`` are places as the manifest names them: local ones relative
    to ``folder``, the manifest's, unless they are absolute. URLs keep their passwords and queries,
    which go to workers and nowhere else: records have them without (:func:`recorded`). ``where`` is
    the line of the manifest that the job comes from, as messages begin. ``weights`` is the state
    dict inside a container, "" for the one that ``apply`` would take. ``verify`` says whether the
    student is verified.
    """

    where: str
    folder: str
    teacher: str
    spec: str
    output: str
    weights: str = ""
    verify: bool = True

    @property
    def teacher_place(self) -> str:
        """The teacher wherever the process that reads it was started."""
        return absolute(self.folder, self.teacher)

    @property
    def spec_place(self) -> str:
        """The spec, likewise."""
        return absolute(self.folder, self.spec)

    @property
    def output_place(self) -> str:
        """The output, likewise."""
        return absolute(self.folder, self.output)


def absolute(folder: str, place: str) -> str:
    """A place relative to ``folder`` as one that is not; URLs stay as they are."""
    return place if is_remote(place) else os.path.join(folder, local(place))


def recorded(place: str) -> str:
    """A place as records tell it: a URL without its password and its query."""
    return without_secrets(place) if is_remote(place) else place
