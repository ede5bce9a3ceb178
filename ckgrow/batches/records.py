"""What became of a job: one JSON object."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ckgrow.files import Stamps

DONE, SKIPPED, FAILED = "done", "skipped", "failed"


@dataclass(frozen=True)
class Record:
    """What became of a job.

    ``status`` is ``done``, ``skipped`` (the output is what the job would make again) or
    ``failed``; then ``error`` says why, and ``exit_code`` is what ``ckgrow apply`` would have
    ended with. ``verify`` says whether a verdict was asked for, ``preserved`` is the verdict, None
    without one. Places are as :func:`ckgrow.batches.jobs.recorded`. ``hashes`` are those of teacher
    and student, ``spec_hash`` covers what the spec means and the files it reads. ``files`` are
    stamps of the teacher's files and the output's, by path from the folder that it is in: while
    they are the same, so are the hashes.
    """

    teacher: str
    spec: str
    output: str
    status: str
    seconds: float
    error: str | None = None
    exit_code: int = 0
    preserved: bool | None = None
    weights: str = ""
    verify: bool = False
    version: str = ""
    spec_hash: str | None = None
    hashes: Mapping[str, str] = field(default_factory=dict)
    files: Mapping[str, Stamps] = field(default_factory=dict)

    def to_json(self) -> str:
        """One line, without its end."""
        return json.dumps(dataclasses.asdict(self), ensure_ascii=True)

    @staticmethod
    def from_json(line: bytes) -> Record:
        """The record in a line; ValueError where it is none. Unknown keys are passed over."""
        document = json.loads(line)
        if not isinstance(document, dict):
            raise ValueError("no JSON object")
        return record_of(document)


def record_of(document: Mapping[str, Any]) -> Record:
    """The record in a mapping; ValueError where it is none."""
    names = [each.name for each in dataclasses.fields(Record)]
    try:
        return Record(**{name: document[name] for name in names if name in document})
    except TypeError:
        raise ValueError("keys of a record are missing") from None
