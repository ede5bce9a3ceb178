"""Is the verdict ever wrong? Sound students must pass all checks, broken ones must be found.

    python benchmarks/verdict.py                        300 students, 1,150 faults: most of an hour
    python benchmarks/verdict.py --small --sound 20 --faults 100
    python benchmarks/verdict.py --record run.jsonl     goes on where an earlier run stopped

Random teachers (mlp, convnet, resnet18, resnet50, googlenet) are grown by many methods in three
dtypes. Each student is judged by ``verify`` in float64, by ``--quick`` and by the proof: as it is,
and with single faults of twelve kinds. Two judges that share nothing with these say what a fault
does: the equations of the layers, summed up in numpy from the recorded maps
(``verdict_equations``), and torch's own forward in float64 (``verdict_forward``).

The table goes to ``benchmarks/results/verdict-DATE.txt``. Exit 1 where a check was
wrong, or too few of the layers at fault were named.
"""

from __future__ import annotations

import argparse
import datetime
import os
import platform
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "benchmarks")]

import conftest  # noqa: F401  # declares the operators that torchvision may lack
import torch
from verdict_record import Record
from verdict_students import Case, cases
from verdict_table import errors, located_enough, table
from verdict_trial import SAMPLES, Trial, tried

RESULTS = ROOT / "benchmarks" / "results"
SHARES = {
    "mlp": (0.27, 0.25),
    "convnet": (0.27, 0.25),
    "resnet18": (0.18, 0.19),
    "resnet50": (0.1, 0.12),
    "googlenet": (0.18, 0.19),
}
"""Of all students and of all faults: fewer where they take longer."""
SHRINK = 4
"""What ``--small`` divides the widths of the large networks by."""


@dataclass(frozen=True)
class Size:
    """How large a run is: at least so many students, and so many faults in them."""

    sound: int = 300
    faults: int = 1150
    small: bool = False

    def work(self) -> Iterator[tuple[Case, int]]:
        """Every student, and how many faults are put into it."""
        for network, (students, faults) in SHARES.items():
            count = -int(-self.sound * students // 1)
            broken = -int(-self.faults * faults // 1)
            for number, case in enumerate(cases(network, count, SHRINK if self.small else 1)):
                yield case, broken // count + (number < broken % count)


def main() -> int:
    """Runs, prints and records."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--sound", type=int, default=Size.sound, help="students at least")
    parser.add_argument("--faults", type=int, default=Size.faults, help="faults at least")
    parser.add_argument("--small", action="store_true", help="narrow networks; nothing is filed")
    parser.add_argument("--record", type=Path, help="trials so far: read at first, and added to")
    given = parser.parse_args()
    size = Size(given.sound, given.faults, given.small)
    trials = list(run(size, given.record))
    text = f"{machine()}\n\n{table(trials)}"
    print(text, end="")
    if not size.small:
        (RESULTS / f"verdict-{datetime.date.today()}.txt").write_text(text, encoding="utf-8")
    return int(bool(errors(trials)) or not located_enough(trials))


def run(size: Size, path: Path | None = None) -> Iterator[Trial]:
    """All trials; those that the record at ``path`` knows are not made again."""
    work = list(size.work())
    record = Record(path)
    with tempfile.TemporaryDirectory(prefix="ckgrow-verdict-") as folder:
        for number, (case, count) in enumerate(work, start=1):
            trial = record.known(case, count)
            if trial is None:
                trial = tried(case, Path(folder), count)
                record.add(trial)
                _sweep(Path(folder), case)
            said = "".join(f"\n    {each}" for each in errors([trial]))
            name = f"{case.network} {case.recipe} {case.dtype} seed {case.spec_seed}"
            print(f"{number} of {len(work)}: {name}{said}", file=sys.stderr, flush=True)
            yield trial


def _sweep(folder: Path, case: Case) -> None:
    """Drops students that no other trial reads; teachers are used again."""
    for path in folder.glob(f"*-of-{case.network}-*"):
        path.unlink()


def machine() -> str:
    """Where and how the figures were measured."""
    return (
        f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}, "
        f"PyTorch {torch.__version__}, {datetime.date.today()}.\n"
        f"64 pixels (mlp 16 inputs, convnet 8 pixels); {SAMPLES} normal samples, zeros, ones."
    )


if __name__ == "__main__":
    sys.exit(main())
