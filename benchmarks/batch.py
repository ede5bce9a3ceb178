"""What a batch costs beside its jobs, whether ten thousand go as ten, and what two workers bring.

    python benchmarks/batch.py [--jobs 10000] [--seconds-jobs 16]

Small jobs: checkpoints of 100 KB in one worker process that is warm, against the same function
called in a loop in this process; the difference is the overhead. The rate and the memory of the
worker are taken in ten parts of the run. Jobs of about a second: a worker against two, started and
warm before the clock is. Every job verifies its student, as ``ckgrow batch`` does. Results go to
``benchmarks/results/batch-DATE.md``.
"""

from __future__ import annotations

import argparse
import datetime
import os
import platform
import shutil
import statistics
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

from ckgrow.batches.pools import Call, open_pool
from ckgrow.batches.working import run_job

ROOT = Path(__file__).parent.parent
SPEC = 'steps:\n  - widen: "0"\n    factor: 2\n'
THOROUGH = f"{SPEC}verify: {{samples: 2048}}\n"
"""Of the second that a large job takes, its verdict takes most: the disk is one for all workers."""
SMALL, LARGE = 112, 1600
"""Widths of two square layers: 100 KB, and what takes about a second."""
PARTS = 10
ROUNDS = 3


@dataclass(frozen=True)
class Small:
    """Seconds per job in a worker and in a loop, and per part of the run; memory in MB."""

    pooled: float
    alone: float
    parts: tuple[float, ...]
    memory: tuple[float, ...]


def main() -> None:
    """Measures, prints and records."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--jobs", type=int, default=10_000, help="small ones")
    parser.add_argument("--seconds-jobs", type=int, default=16, help="of about a second each")
    given = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"  # for what runs in this process, as for workers
    with tempfile.TemporaryDirectory() as folder:
        small = small_jobs(Path(folder), given.jobs)
        one, two, took = speed_up(Path(folder), given.seconds_jobs)
    lines = report(given.jobs, small, one, two, took)
    results = ROOT / "benchmarks/results" / f"batch-{datetime.date.today()}.md"
    results.write_text(lines)
    print(lines)


def teacher(path: Path, width: int) -> Path:
    """An MLP of two square layers."""
    random = np.random.default_rng(0)
    shapes = {"0.weight": (width, width), "0.bias": (width,), "2.weight": (width, width)}
    shapes["2.bias"] = (width,)
    tensors = {k: random.standard_normal(v, dtype=np.float32) for k, v in shapes.items()}
    save_file(tensors, path)
    return path


def calls(folder: Path, width: int, count: int) -> Iterator[Call]:
    """Jobs that each write a student of their own."""
    spec = folder / f"{width}.yaml"
    spec.write_text(THOROUGH if width == LARGE else SPEC)
    source = str(teacher(folder / f"{width}.safetensors", width))
    students = folder / "students"
    shutil.rmtree(students, ignore_errors=True)
    students.mkdir()
    for number in range(count):
        yield run_job, (source, str(spec), str(students / f"{number}.safetensors")), {}


def small_jobs(folder: Path, count: int) -> Small:
    """The overhead of a job, and whether the last ones are like the first."""
    some = max(20, min(200, count))
    for function, places, named in calls(folder, SMALL, 10):  # imports, caches
        function(*places, **named)
    begun = time.perf_counter()
    for function, places, named in calls(folder, SMALL, some):
        _require_done(function(*places, **named))
    alone = (time.perf_counter() - begun) / some
    with open_pool("loky", 1, None, 1) as pool:
        worker = set(pool.run([(os.getpid, (), {})] * 4, 1)) | set(
            pool.run([(os.getpid, (), {})] * 4, 1)
        )
        for record in pool.run(calls(folder, SMALL, 20), pool.most):
            _require_done(record)
        parts, memory = [], []
        begun = last = time.perf_counter()
        for number, record in enumerate(pool.run(calls(folder, SMALL, count), pool.most), 1):
            _require_done(record)
            if number % max(1, count // PARTS) == 0:
                now = time.perf_counter()
                parts.append((now - last) / max(1, count // PARTS))
                memory.append(max(map(resident, worker)))
                last = now
        pooled = (time.perf_counter() - begun) / count
    return Small(pooled, alone, tuple(parts), tuple(memory))


def resident(pid: int) -> float:
    """The resident memory of a process in MB."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    return 0.0


def speed_up(folder: Path, count: int) -> tuple[float, float, float]:
    """Seconds for all jobs with one worker and with two, and of a job alone: medians."""
    seconds: dict[int, list[float]] = {1: [], 2: []}
    alone: list[float] = []
    for _ in range(ROUNDS):  # in turn, so that whatever else the machine does hits both
        for workers in (1, 2):
            with open_pool("loky", workers, None, workers) as pool:
                for record in pool.run(calls(folder, SMALL, 8), pool.most):
                    _require_done(record)
                jobs = list(calls(folder, LARGE, count))
                begun = time.perf_counter()
                for record in pool.run(jobs, pool.most):
                    _require_done(record)
                    if workers == 1:
                        alone.append(record["seconds"])
                seconds[workers].append(time.perf_counter() - begun)
    medians = (statistics.median(seconds[workers]) for workers in (1, 2))
    return (*medians, statistics.median(alone))  # type: ignore[return-value]


def _require_done(record: dict[str, object]) -> None:
    if record["status"] != "done":
        raise SystemExit(f"a job failed: {record['error']}")


def report(count: int, small: Small, one: float, two: float, took: float) -> str:
    """A table for the results folder."""
    load = os.getloadavg()[0]
    rows = {
        f"seconds per job of 100 KB, {count:,} in a warm worker": f"{small.pooled:.4f}",
        "the same in a loop, without a pool": f"{small.alone:.4f}",
        "overhead per job": f"{1000 * (small.pooled - small.alone):.1f} ms",
        "seconds per job, tenths of the run": " ".join(f"{part:.4f}" for part in small.parts),
        "MB of the worker, likewise": " ".join(f"{part:.0f}" for part in small.memory),
        f"one worker, jobs of {took:.2f} s": f"{one:.2f} s",
        "two workers": f"{two:.2f} s",
        "speed-up": f"{one / two:.2f}",
    }
    said = [
        f"{platform.machine()}, {os.cpu_count()} cores, load {load:.1f} at the end; "
        f"Python {platform.python_version()}.",
        "",
        "| what | measured |",
        "|---|---|",
        *(f"| {name} | {value} |" for name, value in rows.items()),
        "",
    ]
    return "\n".join(said)


if __name__ == "__main__":
    main()
