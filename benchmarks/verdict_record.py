"""Trials of benchmarks/verdict.py in a file, a line of JSON each, so that a run can be resumed."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from verdict_students import Case
from verdict_trial import Broken, Said, Trial


class Record:
    """The trials that a file holds. Without a path, nothing is known and nothing is kept."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._known: dict[tuple[Case, int], Trial] = {}
        if path is not None and path.exists():
            for line in path.read_text(encoding="utf-8").splitlines():
                trial = _trial(json.loads(line))
                self._known[trial.case, len(trial.broken)] = trial

    def known(self, case: Case, faults: int) -> Trial | None:
        """The trial of a student with so many faults, if it was made before."""
        return self._known.get((case, faults))

    def add(self, trial: Trial) -> None:
        """One line more."""
        if self._path is not None:
            with self._path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(asdict(trial)) + "\n")


def _trial(line: dict[str, Any]) -> Trial:
    broken = tuple(Broken(**{**each, "said": _said(each["said"])}) for each in line["broken"])
    return Trial(Case(**line["case"]), line["promised"], _said(line["sound"]), broken)


def _said(entry: dict[str, Any]) -> Said:
    return Said(**{name: tuple(v) if isinstance(v, list) else v for name, v in entry.items()})
