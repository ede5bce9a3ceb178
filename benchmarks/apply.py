"""How fast `ckgrow apply --no-verify` is, and in how much memory.

    python benchmarks/apply.py [--cases NAME ...] [--folder FOLDER]

Beside it, in turn and as whole processes: `cp --reflink=never STUDENT COPY && sync COPY`, which
copies the file that ckgrow has written and flushes it to the disk, as ckgrow does; and the
in-memory script of ``apply_script.py`` followed by the same sync. Before every run the outputs of
the runs before are gone, everything else is flushed, the page cache holds the teacher (and what cp
copies), and a pause lets the machine settle. Seconds are medians, memory is the largest resident
set (``ru_maxrss`` of the process: its libraries count, the page cache does not, since ckgrow maps
no file). Results go to ``benchmarks/results/apply-DATE.md``.
"""

from __future__ import annotations

import argparse
import datetime
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from apply_teachers import GROWTHS, Stack, spec

ROOT = Path(__file__).parent.parent
SCRIPT = Path(__file__).with_name("apply_script.py")
PAUSE = 3.0
"""Seconds before a run, for a system that gives memory back to its host."""

STACKS = (
    Stack("1 GB, 30 large, float32", 30, 3000, "float32"),
    Stack("1 GB, 30 large, bfloat16", 30, 4240, "bfloat16"),
    Stack("1 GB, 3,000 small, float32", 1000, 512, "float32"),
    Stack("1 GB, 3,000 small, bfloat16", 1000, 724, "bfloat16"),
    Stack("2 GB, 60 large, float32", 60, 3000, "float32"),
    Stack("2 GB in one, float32", 1, 23170, "float32"),
    Stack("4 GB, 120 large, float32", 120, 3000, "float32"),
)
TIMED = ("1 GB", "4 GB")
"""Cases that are timed against the others; for the rest, memory is what matters."""


@dataclass(frozen=True)
class Cost:
    """Of one run: seconds, and the largest resident set in bytes."""

    seconds: float
    resident: int


@dataclass(frozen=True)
class Row:
    """One teacher grown in one way; costs of ckgrow, cp, and the script ("" where not run)."""

    stack: Stack
    growth: str
    student_bytes: int
    costs: dict[str, list[Cost]]

    def seconds(self, name: str) -> float | None:
        """The median."""
        found = self.costs.get(name)
        return statistics.median(cost.seconds for cost in found) if found else None

    @property
    def resident(self) -> int:
        """The largest of ckgrow's runs."""
        return max(cost.resident for cost in self.costs["ckgrow"])


def main(arguments: Sequence[str] | None = None) -> None:
    """Measures, prints and records."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--cases", nargs="*", default=[""], help="parts of the teachers' names")
    parser.add_argument("--growths", nargs="*", default=list(GROWTHS), help="rows, columns, both")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--folder", type=Path, help="where files of up to 30 GB may lie")
    parser.add_argument("--results", type=Path, default=ROOT / "benchmarks/results")
    parser.add_argument("--only-ckgrow", action="store_true", help="nothing beside it; no record")
    chosen = parser.parse_args(arguments)
    stacks = [each for each in STACKS if any(part in each.name for part in chosen.cases)]
    with tempfile.TemporaryDirectory(dir=chosen.folder) as folder:
        rows: list[Row] = []
        for stack in stacks:
            timed = any(each in stack.name for each in TIMED) and not chosen.only_ckgrow
            rows += measured(stack, chosen.growths, Path(folder), chosen.runs, beside=timed)
    lines = report(rows, chosen.runs)
    if not chosen.only_ckgrow:
        results = chosen.results / f"apply-{datetime.date.today()}.md"
        results.write_text(lines)
    print(lines)


def measured(
    stack: Stack, growths: Sequence[str], folder: Path, runs: int, *, beside: bool
) -> list[Row]:
    """Each growth of one teacher; with ``beside``, cp and the script too."""
    teacher, student, other = (folder / f"{name}.safetensors" for name in ("t", "s", "o"))
    stack.write(teacher)
    rows: list[Row] = []
    for growth in growths:
        factor = 1.25 if growth == "both" and stack.nbytes > 3e9 else 1.5
        wish = folder / "spec.yaml"
        wish.write_text(spec(stack, growth, factor))
        ckgrow = [str(Path(sys.executable).with_name("ckgrow")), "apply", str(teacher), str(wish)]
        ckgrow += ["-o", str(student), "--no-verify"]
        copy = ["cp", "--reflink=never", str(student), str(other)]
        script = [sys.executable, str(SCRIPT), str(teacher), str(other), growth, str(factor)]
        sync = ["sync", str(other)]
        costs: dict[str, list[Cost]] = {"ckgrow": []}
        for _ in range(runs):
            costs["ckgrow"].append(run([ckgrow], student, teacher))
            if beside:
                costs.setdefault("cp", []).append(run([copy, sync], other, student))
                costs.setdefault("script", []).append(run([script, sync], other, teacher))
        rows.append(Row(stack, growth, student.stat().st_size, costs))
        print(line(rows[-1]), flush=True)
        student.unlink()
        other.unlink(missing_ok=True)
    teacher.unlink()
    return rows


def run(commands: Sequence[Sequence[str]], made: Path, read: Path) -> Cost:
    """The commands one after the other, which read ``read`` and make ``made``."""
    made.unlink(missing_ok=True)
    os.sync()
    warm(read)
    time.sleep(PAUSE)
    resident = 0
    # as users have it: Python keeps what it has compiled
    surroundings = {**os.environ, "PYTHONDONTWRITEBYTECODE": ""}
    start = time.perf_counter()
    for command in commands:
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, env=surroundings)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            raise SystemExit(f"{command[0]} failed with exit code {process.returncode}")
        resident = max(resident, usage.ru_maxrss * 1024)
    return Cost(time.perf_counter() - start, resident)


def warm(path: Path) -> None:
    """Reads a file once, so that the page cache has it."""
    buffer = bytearray(1 << 22)
    with path.open("rb", buffering=0) as file:
        while file.readinto(buffer):
            pass


def report(rows: Sequence[Row], runs: int) -> str:
    """A table for the results folder and the README."""
    said = [
        f"Medians of {runs} runs in turn; {machine()}, Python {platform.python_version()}, "
        f"{datetime.date.today()}. `cp` is `cp --reflink=never STUDENT COPY && sync COPY`, the "
        "script indexes and divides in memory and is followed by the same sync. Memory is the "
        "largest resident set of `ckgrow apply --no-verify`.",
        "",
        "| teacher | grown | student, GB | ckgrow, s | cp, s | script, s | times cp "
        "| times script | memory, MB |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    return "\n".join([*said, *map(line, rows)]) + "\n"


def line(row: Row) -> str:
    """One row of the table."""
    ours = row.seconds("ckgrow")
    copied, scripted = row.seconds("cp"), row.seconds("script")
    show: Callable[[float | None], str] = lambda value: "" if value is None else f"{value:.2f}"  # noqa: E731
    cells = [
        row.stack.name,
        row.growth,
        f"{row.student_bytes / 1e9:.2f}",
        *map(show, (ours, copied, scripted)),
        *(show(ours / each if ours and each else None) for each in (copied, scripted)),
        f"{row.resident / 1e6:.0f}",
    ]
    return f"| {' | '.join(cells)} |"


def machine() -> str:
    """Processor, cores and file system."""
    information = Path("/proc/cpuinfo")
    lines = information.read_text().splitlines() if information.exists() else []
    models = [each.partition(":")[2].strip() for each in lines if each.startswith("model name")]
    return f"{models[0] if models else platform.machine()}, {os.cpu_count()} cores"


if __name__ == "__main__":
    main()
