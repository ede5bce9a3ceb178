"""How much memory this process may still take: what the machine has left, and what it is allowed.

Everything is read from the files in which Linux tells it (proc(5), cgroups(7)). What does not stand
there limits nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path, PurePosixPath

ROOT = Path("/")


def available_memory(root: Path = ROOT) -> int | None:
    """Bytes, None where nothing tells. ``root`` is where ``/proc`` and ``/sys`` are looked for."""
    return min((*_of_machine(root), *_of_groups(root), *_of_process(root)), default=None)


def _of_machine(root: Path) -> Iterator[int]:
    """What can be had without swapping, by the kernel's own estimate."""
    yield from _fields(root / "proc/meminfo", "MemAvailable:", 1024)


def _of_process(root: Path) -> Iterator[int]:
    """What is left of ``ulimit -v``."""
    for line in _lines(root / "proc/self/limits"):
        if line.startswith("Max address space"):
            soft = line.removeprefix("Max address space").split()[0]
            for used in _fields(root / "proc/self/status", "VmSize:", 1024):
                if soft.isdigit():
                    yield max(0, int(soft) - used)


def _of_groups(root: Path) -> Iterator[int]:
    """What is left in every control group that the process is in, of version 2 and of version 1.

    Cached pages of files count as used there, but the kernel drops them when others need room.
    """
    for line in _lines(root / "proc/self/cgroup"):
        number, controllers, path = line.split(":", 2)
        if number == "0":
            top, files = "sys/fs/cgroup", ("memory.max", "memory.current", "inactive_file ")
        elif "memory" in controllers.split(","):
            top = "sys/fs/cgroup/memory"
            files = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file ")
        else:
            continue
        limit, used, dropped = files
        inside = PurePosixPath(path.lstrip("/"))
        for folder in (root / top / each for each in (inside, *inside.parents)):
            yield from (
                max(0, allowed - taken + next(_fields(folder / "memory.stat", dropped), 0))
                for allowed in _fields(folder / limit)
                for taken in _fields(folder / used)
            )


def _fields(path: Path, label: str = "", unit: int = 1) -> Iterator[int]:
    """Whole numbers behind ``label`` at the beginning of a line; ``max`` is none."""
    for line in _lines(path):
        words = line.removeprefix(label).split()
        if line.startswith(label) and words and words[0].isdigit():
            yield int(words[0]) * unit


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        return []
