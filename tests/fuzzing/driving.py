"""Runs the process that reads damaged files, and another one where it has died of a file."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

HERE = Path(__file__).parent
MOST_DEATHS = 20


@dataclass
class Tally:
    """How often each outcome was, and of each seed that ended wrongly what happened."""

    outcomes: Counter[str] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)


def fuzzed(kind: str, count: int, folder: Path, *modules: Path) -> Tally:
    """``count`` damaged files of a kind, read in ``folder``; it may import ``modules`` besides."""
    tally, first, deaths = Tally(), 0, 0
    while first < count and deaths < MOST_DEATHS:
        seed, fault = _run(kind, first, count - first, folder, modules, tally)
        if fault:
            tally.faults.append(f"{kind} {seed}: {fault}")
            deaths += 1
        first = seed + 1
    return tally


def _run(
    kind: str, first: int, count: int, folder: Path, modules: tuple[Path, ...], tally: Tally
) -> tuple[int, str]:
    """The last seed that was begun, and how the process died of it, "" if it did not."""
    command = [sys.executable, "-m", "fuzzing.worker", kind, str(first), str(count), str(folder)]
    settings = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(map(str, (*modules, HERE.parent))),
        "OMP_NUM_THREADS": "1",
        "MALLOC_ARENA_MAX": "2",  # an arena takes addresses, which are limited, and no memory
    }
    seed = None
    with (folder.parent / f"{folder.name}.log").open("w+") as log:
        with subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=log, text=True, env=settings
        ) as worker:
            assert worker.stdout is not None
            for line in worker.stdout:
                if not line.startswith("["):
                    seed = int(line)
                    continue
                outcome, fault = json.loads(line)
                tally.outcomes[outcome] += 1
                if outcome == "WRONG":
                    tally.faults.append(f"{kind} {seed}: {fault}")
        log.seek(0)
        said = f"the process ended with {worker.returncode}:\n{log.read()}"
    if seed is None:
        raise RuntimeError(said)  # before it had read anything damaged
    return seed, said if worker.returncode else ""
