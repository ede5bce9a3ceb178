"""The command line, in this process or as one of its own, and small teachers to call it on."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file
from typer.testing import CliRunner, Result

from ckgrow.cli.main import app

CKGROW = Path(sys.executable).with_name("ckgrow")
WIDEN = 'steps:\n  - widen: "0"\n    factor: 2\n'
NOISY = WIDEN + "    noise: {kind: gaussian, scale: 0.1}\n"
TIMEOUT = 120
"""Seconds after which a process hangs; a machine under load is slow."""


def ckgrow(*arguments: object) -> Result:
    """The command in this process; a failure that is no exit is raised."""
    done = CliRunner().invoke(app, [str(each) for each in arguments])
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    assert "Traceback" not in done.stderr
    return done


def document(*arguments: object, code: int = 0) -> dict[str, Any]:
    """What a command prints with ``--json``: one document, and nothing for people."""
    done = ckgrow(*arguments, "--json")
    assert done.exit_code == code, done.output
    assert done.stderr == ""
    return json.loads(done.stdout)


def process(*arguments: object, **settings: Any) -> subprocess.CompletedProcess[str]:
    """The installed command as a process."""
    command = [str(CKGROW), *map(str, arguments)]
    return subprocess.run(
        command, capture_output=True, text=True, timeout=TIMEOUT, check=False, **settings
    )


def python(code: str, *arguments: object, **settings: Any) -> subprocess.CompletedProcess[str]:
    """A piece of Python as a process."""
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.run(
        command, capture_output=True, text=True, timeout=TIMEOUT, check=False, **settings
    )


def tensors(seed: int = 0, hidden: int = 6) -> dict[str, np.ndarray]:
    """An MLP of 4, ``hidden`` and 3 units, as an nn.Sequential with an activation names it."""
    random = np.random.default_rng(seed)
    shapes = {
        "0.weight": (hidden, 4),
        "0.bias": (hidden,),
        "2.weight": (3, hidden),
        "2.bias": (3,),
    }
    return {name: random.normal(size=shape).astype("f4") for name, shape in shapes.items()}


def saved(path: Path, values: dict[str, np.ndarray]) -> Path:
    """``values`` as a safetensors file."""
    save_file(values, path)
    return path


def written(path: Path, text: str) -> Path:
    """``text`` as a file."""
    path.write_text(text, encoding="utf-8")
    return path


def listing(folder: Path) -> dict[str, bytes | None]:
    """Every entry of a folder, hidden ones too, with the bytes of regular files."""
    with os.scandir(folder) as entries:
        return {
            entry.name: Path(entry.path).read_bytes() if Path(entry.path).is_file() else None
            for entry in entries
        }
