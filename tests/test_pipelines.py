"""The examples of docs/pipelines.md, run by the tools that they are for."""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from batches import records, runs
from commands import TIMEOUT, saved, tensors

PAGE = Path(__file__).parents[1] / "docs" / "pipelines.md"
FILE = re.compile(r"^```\w+\n# ([\w.-]+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
TOOLS = Path(sys.executable).parent


@pytest.fixture
def folder(tmp_path):
    """Three runs, and the files of the page beside them."""
    runs(tmp_path, 3)
    for name, text in FILE.findall(PAGE.read_text()):
        (tmp_path / name).write_text(text)
    return tmp_path


def typed(folder, *command, code=0, **more):
    """What a command prints, the tools of this environment first on its path."""
    path = f"{TOOLS}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        command,
        cwd=folder,
        env={**os.environ, "PATH": path, "OMP_NUM_THREADS": "1", **more},
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
        check=False,
    )
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout + done.stderr


def needs(tool):
    if shutil.which(tool, path=f"{TOOLS}{os.pathsep}{os.environ['PATH']}") is None:
        pytest.skip(f"{tool} is not installed here; its example was not run")


def students(folder):
    return {path.name: path.read_bytes() for path in (folder / "grown").iterdir()}


def test_make(folder):
    needs("make")
    typed(folder, "make", "-j", "2")
    assert set(students(folder)) == {f"r{number}.safetensors" for number in range(3)}
    assert "Nothing to be done" in typed(folder, "make", "students")
    before = students(folder)
    saved(folder / "runs/r1/best.safetensors", tensors(9))
    assert typed(folder, "make").count("ckgrow apply") == 1
    changed = {name for name, content in students(folder).items() if content != before[name]}
    assert changed == {"r1.safetensors"}
    os.utime(folder / "runs/r2/best.safetensors")  # newer, with the same content
    assert "up to date" in typed(folder, "make")
    assert "Nothing to be done" in typed(folder, "make", "students")
    (folder / "runs/r0/best.safetensors").write_bytes(b"no checkpoint")
    old = students(folder)
    assert "Error 3" in typed(folder, "make", "--keep-going", code=2)
    assert students(folder) == old


def test_dvc(folder):
    needs("dvc")
    needs("git")
    quiet = {"DVC_NO_ANALYTICS": "1", "HOME": str(folder)}
    typed(folder, "git", "init", "-q", **quiet)
    typed(folder, "dvc", "init", "-q", **quiet)
    typed(folder, "dvc", "repro", **quiet)
    before = students(folder)
    assert set(before) == {f"r{number}.safetensors" for number in range(3)}
    assert "didn't change, skipping" in typed(folder, "dvc", "repro", **quiet)
    saved(folder / "runs/r1/best.safetensors", tensors(9))
    typed(folder, "dvc", "repro", **quiet)
    changed = {name for name, content in students(folder).items() if content != before[name]}
    assert changed == {"r1.safetensors"}
    (folder / "runs/r0/best.safetensors").write_bytes(b"no checkpoint")
    said = typed(folder, "dvc", "repro", code=255, **quiet)
    assert "exited with 1" in said


def test_a_scheduler(folder):
    typed(folder, "bash", "nightly.sh")
    assert len(students(folder)) == 3
    before = (folder / "jobs.results.jsonl").read_text()
    typed(folder, "bash", "nightly.sh")
    assert (folder / "jobs.results.jsonl").read_text() == before
    (folder / "runs/r0/best.safetensors").write_bytes(b"no checkpoint")
    said = typed(folder, "bash", "nightly.sh", code=1)
    assert said.startswith("grown/r0.safetensors\t3\t")
    assert len(records(folder / "jobs.results.jsonl")) == 4


def test_a_scheduler_while_another_run_is_at_work(folder):
    with open(folder / "jobs.results.jsonl", "w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        typed(folder, "bash", "nightly.sh", code=4, PAUSE="0")
    assert not (folder / "grown").exists()
