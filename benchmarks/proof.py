"""What a proof costs, beside reading and hashing the same two files.

    python benchmarks/proof.py

A stack of linear layers, of 0.5, 1 and 2 GB in float32 and of 1 GB in bfloat16, and its student
with a quarter more units in every layer, by net2wider. Three whole processes, run in turn: `ckgrow
verify --proof`; one that hashes both files, as `verify` does first; and one that reads
both files and does nothing. The page cache is warm for all. Anonymous memory is the largest RssAnon
seen. Results go to ``benchmarks/results/proof-DATE.md``.
"""

from __future__ import annotations

import datetime
import os
import platform
import statistics
import sys
import tempfile
from pathlib import Path

import ml_dtypes
import numpy as np
from quick import Cost, measured
from safetensors.numpy import save_file

from ckgrow import apply

ROOT = Path(__file__).parent.parent
RUNS = 5
LAYERS = 8
SIZES = ((0.5, np.float32), (1.0, np.float32), (2.0, np.float32), (1.0, ml_dtypes.bfloat16))
"""Gigabytes of a teacher, and what they store."""

READING = """
import sys
for name in sys.argv[1:]:
    with open(name, "rb", buffering=0) as file:
        while file.read(1 << 24):
            pass
"""
HASHING = """
import sys
from ckgrow.loading import Wish, load
from ckgrow.verifying import hash_checkpoint
for name in sys.argv[1:]:
    with load(name, Wish()) as file:
        hash_checkpoint(file, 2)
"""


def main() -> None:
    """Measures, prints and records."""
    lines = [
        f"Medians of {RUNS} runs in turn; {platform.machine()}, {os.cpu_count()} cores, "
        f"Python {platform.python_version()}, {datetime.date.today()}.",
        "",
        "| teacher | both files, GB | `verify --proof`, s | GB/s | hashing, s | reading, s "
        "| anonymous memory of the proof, MB |",
        "|---|---|---|---|---|---|---|",
    ]
    for size, dtype in SIZES:
        with tempfile.TemporaryDirectory() as folder:
            teacher, student = made(Path(folder), size, np.dtype(dtype))
            total = (teacher.stat().st_size + student.stat().st_size) / 1e9
            proof, hashing, reading = costs(teacher, student)
        name = f"{size:g} GB, {np.dtype(dtype).name}"
        lines.append(
            f"| {name} | {total:.1f} | {seconds(proof):.1f} | {total / seconds(proof):.2f} "
            f"| {seconds(hashing):.1f} | {seconds(reading):.1f} "
            f"| {statistics.median(cost.anonymous for cost in proof) / 1e6:.0f} |"
        )
        print(lines[-1], flush=True)
    text = "\n".join(lines) + "\n"
    (ROOT / "benchmarks/results" / f"proof-{datetime.date.today()}.md").write_text(text)
    print(text)


def made(work: Path, size: float, dtype: np.dtype[np.generic]) -> tuple[Path, Path]:
    """A teacher of so many gigabytes, random, and its student."""
    teacher, student = work / "teacher.safetensors", work / "student.safetensors"
    width = int((size * 1e9 / dtype.itemsize / LAYERS) ** 0.5)
    random = np.random.default_rng(0)
    tensors = {}
    for layer in range(LAYERS):
        drawn = random.standard_normal((width, width), dtype=np.float32) / width**0.5
        tensors[f"{2 * layer}.weight"] = drawn.astype(dtype)
        tensors[f"{2 * layer}.bias"] = np.zeros(width, dtype)
    save_file(tensors, teacher)
    apply(teacher, {"steps": [{"widen": "*", "factor": 1.25}]}, student, check=False)
    return teacher, student


def costs(teacher: Path, student: Path) -> tuple[list[Cost], ...]:
    """Of proving, hashing and reading."""
    files = [str(teacher), str(student)]
    command = str(Path(sys.executable).with_name("ckgrow"))
    processes = (
        [command, "verify", *files, "--proof"],
        [sys.executable, "-c", HASHING, *files],
        [sys.executable, "-c", READING, *files],
    )
    found: tuple[list[Cost], ...] = ([], [], [])
    for number in range(RUNS + 1):  # the first warms the page cache
        for process, each in zip(processes, found, strict=True):
            cost = measured(process)
            if number:
                each.append(cost)
    return found


def seconds(found: list[Cost]) -> float:
    """The median."""
    return statistics.median(cost.seconds for cost in found)


if __name__ == "__main__":
    main()
