"""Strikes the running command while it writes a student, in every format that it writes.

A strike is a signal that the process sends to itself at the n-th call of the functions by which
files come into being, so that every state that a disk can be left in is reached.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from commands import TIMEOUT, WIDEN, ckgrow, listing, saved, tensors, written

# Runs the command, and does something to its own process or machine at the n-th call of the
# functions by which a file comes into being. Without an n, prints how many calls there are.
LAUNCHER = """
import os, signal, sys, threading
from ckgrow.cli.main import run

CHANGING = ("ftruncate", "posix_fallocate", "pwrite", "fsync", "link", "replace", "unlink")
number, blow = int(sys.argv[1]), int(sys.argv[2])
calls, lock = 0, threading.Lock()

def counted(whole):
    def call(*args, **kwargs):
        global calls
        with lock:
            calls += 1
            struck = calls == number
        if struck:
            os.kill(os.getpid(), blow)
        return whole(*args, **kwargs)
    return call

for name in CHANGING:
    setattr(os, name, counted(getattr(os, name)))
sys.argv[:3] = ["ckgrow"]
try:
    run()
finally:
    if not number:
        print("calls:", calls)
"""

# Says that it is there, then runs the command.
READY = "import sys\nfrom ckgrow.cli.main import run\nprint('ready', flush=True)\nrun()\n"

# Small models have their numbers in a file of their own as well.
APART = "import ckgrow.adapters.formats._onnx_writer as writer\nwriter.EMBEDDED = 0\n"

SOURCES = {"teacher.safetensors", "spec.yaml"}
PART = ".ckgrow-part"
"""How the names of unfinished files end."""


@dataclass(frozen=True)
class Student:
    """What is written: the main file, the options that it takes, and what is run before."""

    main: str
    options: tuple[str, ...] = ()
    before: str = ""

    @property
    def command(self) -> tuple[str, ...]:
        """The arguments of the command that writes it here."""
        return self.grown("teacher.safetensors", "spec.yaml")

    def grown(self, teacher: object, spec: object, folder: Path = Path()) -> tuple[str, ...]:
        """The arguments of the command that writes it to a folder."""
        output = folder / self.main.replace(".index.json", "")
        return ("apply", str(teacher), str(spec), "-o", str(output), *self.options)


STUDENTS = {
    "safetensors": Student("student.safetensors"),
    "sharded": Student("student.safetensors.index.json", ("--shard-size", "50")),
    "torch": Student("student.pt"),
    "npz": Student("student.npz"),
    "onnx": Student("student.onnx"),
    "onnx with data": Student("student.onnx", before=APART),
}


def furnished(folder: Path) -> Path:
    """A folder with a teacher and a spec."""
    saved(folder / "teacher.safetensors", tensors())
    written(folder / "spec.yaml", WIDEN)
    return folder


def launched(
    student: Student, number: int, blow: int, *options: str
) -> subprocess.CompletedProcess[str]:
    """The command that writes ``student``, struck at the n-th call; 0 strikes at none."""
    code = student.before + LAUNCHER
    command = [sys.executable, "-c", code, str(number), str(int(blow)), *student.command, *options]
    return subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT, check=False)


def calls(done: subprocess.CompletedProcess[str]) -> int:
    """How many calls there were in a run that was not struck."""
    assert done.returncode == 0, done.stderr
    return int(done.stdout.rpartition("calls:")[2])


def chosen(amount: Callable[[int, int], int], total: int, sample: int = 5) -> list[int]:
    """Every call with --full, else some from the first to the last."""
    return spread(min(amount(sample, total), total), total)


def spread(count: int, total: int) -> list[int]:
    """So many numbers from 1 to ``total``, evenly; one alone is of the later ones."""
    if count == 1:
        return [1 + 2 * total // 3]
    return sorted({1 + round(step * (total - 1) / (count - 1)) for step in range(count)})


def made(folder: Path) -> dict[str, bytes | None]:
    """The files of a student, unfinished ones and sources left out."""
    files = listing(folder)
    return {
        name: data
        for name, data in files.items()
        if name not in SOURCES and not name.endswith(PART)
    }


def clear(folder: Path, keep: Iterable[str] = SOURCES) -> None:
    """Takes everything but the sources out of a folder."""
    for name in set(listing(folder)) - set(keep):
        (folder / name).unlink()


def outcome(
    student: Student,
    folder: Path,
    old: Mapping[str, bytes | None],
    new: Mapping[str, bytes | None],
) -> str:
    """What a strike has left: a whole student or none, and nothing else that has a name.

    ``old`` and ``new`` are the files of the student before and of a run that nothing happens to.
    """
    found = made(folder)
    unfinished = any(name.endswith(PART) for name in listing(folder))
    ending = ", unfinished files left" if unfinished else ", nothing else"
    if student.main not in found:
        assert set(found) <= set(old) | set(new)
        return f"no student{ending}"
    for files, what in ((new, "the new student whole"), (old, "the old student whole")):
        if files and all(found.get(name) == data for name, data in files.items()):
            assert set(found) <= set(old) | set(new)
            return f"{what}{ending}"
    raise AssertionError(f"a mix of students: {sorted(found)}")


def check_next_run(
    student: Student, folder: Path, new: Mapping[str, bytes | None], *options: str
) -> None:
    """The next run makes the student whatever the last one left, and leaves just that."""
    done = ckgrow(*student.command, *options)
    assert done.exit_code == 0, done.output
    assert made(folder) == new
    assert set(listing(folder)) == SOURCES | set(new)
