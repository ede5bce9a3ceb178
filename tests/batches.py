"""Folders with teachers, a spec and a manifest, and what batches leave behind."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
from commands import WIDEN, saved, tensors, written
from safetensors.numpy import save_file

GLOB = """\
jobs:
  - teacher: "runs/*/best.safetensors"
    spec: widen.yaml
    output: "grown/{parent}/{stem}-{spec}.safetensors"
"""
"""Every run's best checkpoint, each student in a folder called like its run."""


def runs(folder: Path, count: int, hidden: int = 6) -> Path:
    """Teachers ``runs/rN/best.safetensors``, a spec, and the manifest ``jobs.yaml``."""
    for number in range(count):
        place = folder / f"runs/r{number}"
        place.mkdir(parents=True)
        saved(place / "best.safetensors", tensors(number, hidden))
    written(folder / "widen.yaml", WIDEN)
    return written(folder / "jobs.yaml", GLOB)


def large_runs(folder: Path, count: int, width: int) -> Path:
    """The same with a teacher of two square layers, which takes a while to grow, for all runs."""
    manifest = runs(folder, count)
    random = np.random.default_rng(0)
    shapes = {
        "0.weight": (width, width),
        "0.bias": (width,),
        "2.weight": (width, width),
        "2.bias": (width,),
    }
    first, *others = sorted(folder.glob("runs/*/best.safetensors"))
    values = {name: random.standard_normal(size, np.float32) for name, size in shapes.items()}
    save_file(values, first)
    for other in others:
        other.unlink()
        other.hardlink_to(first)
    return manifest


def records(path: Path) -> list[dict]:
    """The lines of a file of results."""
    return [json.loads(line) for line in path.read_text().splitlines()]


def students(folder: Path) -> set[str]:
    """Everything that is below ``grown``, part files and folders included."""
    found = (folder / "grown").rglob("*")
    return {str(path.relative_to(folder / "grown")) for path in found}


def group_of(leader: int) -> set[int]:
    """Processes that live in the group of the process ``leader``, itself included."""
    members = set()
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                fields = Path(f"/proc/{entry}/stat").read_text().rpartition(")")[2].split()
            except OSError:  # it ended
                continue
            state, group = fields[0], int(fields[2])
            if group == leader and state != "Z":
                members.add(int(entry))
    return members
