"""How long the commands take that people wait for: help, plans of large models, a small apply.

    python benchmarks/commands.py

Each figure is the median of several runs of the whole process, with the time of a bare
``python -c "import numpy"`` beside it, measured in turn: on a shared machine the ratio says more
than the seconds. Memory is the largest resident set. Results go to
``benchmarks/results/commands-DATE.md``.
"""

from __future__ import annotations

import datetime
import json
import os
import platform
import statistics
import struct
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from apply_teachers import Stack
from apply_teachers import spec as spec_of

ROOT = Path(__file__).parent.parent
RUNS = 9
LARGE = Stack("140 GB", 261, 16384, "bfloat16")
"""70 billion parameters, in a file that is all holes."""


def main() -> None:
    """Measures, prints and records."""
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        teacher = work / "resnet152.safetensors"
        write_sparse_resnet152(teacher)
        spec = work / "spec.yaml"
        spec.write_text('steps: [{widen: "layer*.conv[12]", factor: 1.5}]\n')
        large, large_spec = work / "large.safetensors", work / "large.yaml"
        LARGE.write_sparse(large)
        large_spec.write_text(spec_of(LARGE, "both", 1.5))
        small = ROOT / "specs/teachers/resnet.safetensors"
        command = [str(Path(sys.executable).with_name("ckgrow"))]
        student = work / "student.safetensors"
        rows = {
            "ckgrow --help": [*command, "--help"],
            "ckgrow plan, ResNet-152": [*command, "plan", str(teacher), str(spec)],
            "ckgrow plan, 140 GB": [*command, "plan", str(large), str(large_spec)],
            "ckgrow apply --no-verify, 0.7 MB": [
                *command,
                "apply",
                str(small),
                str(spec),
                "-o",
                str(student),
                "--force",
                "--no-verify",
            ],
        }
        lines = report({name: measured(run, student) for name, run in rows.items()})
    results = ROOT / "benchmarks/results" / f"commands-{datetime.date.today()}.md"
    results.write_text(lines)
    print(lines)


def measured(command: list[str], made: Path) -> tuple[float, float, int]:
    """Medians of ``command`` and of the bare process in seconds, and the most memory in bytes."""
    bare = [sys.executable, "-c", "import numpy"]
    costs: list[tuple[float, float, int]] = []
    for _ in range(RUNS + 1):  # the first warms the caches
        made.unlink(missing_ok=True)
        seconds, resident = timed(command)
        costs.append((seconds, timed(bare)[0], resident))
    ours, theirs, memory = zip(*costs[1:], strict=True)
    return statistics.median(ours), statistics.median(theirs), max(memory)


def timed(command: list[str]) -> tuple[float, int]:
    """Wall time of a whole process, and its largest resident set in bytes."""
    start = time.perf_counter()
    # as users have it: Python keeps what it has compiled
    surroundings = {**os.environ, "PYTHONDONTWRITEBYTECODE": ""}
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, env=surroundings)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{command[0]} failed with exit code {process.returncode}")
    return time.perf_counter() - start, usage.ru_maxrss * 1024


def report(rows: dict[str, tuple[float, float, int]]) -> str:
    """A table for the results folder."""
    said = [
        f"Medians of {RUNS} runs; {platform.machine()}, {os.cpu_count()} cores, "
        f"Python {platform.python_version()}, {datetime.date.today()}.",
        "",
        '| command | seconds | times `python -c "import numpy"` | memory, MB |',
        "|---|---|---|---|",
    ]
    said += [
        f"| `{name}` | {ours:.2f} | {ours / bare:.1f} | {memory / 1e6:.0f} |"
        for name, (ours, bare, memory) in rows.items()
    ]
    return "\n".join(said) + "\n"


def write_sparse_resnet152(path: Path) -> None:
    """A file with torchvision's resnet152 header and holes for data; it occupies no space."""
    header: dict[str, object] = {}
    end = 0

    def tensor(name: str, *shape: int, dtype: str = "F32", size: int = 4) -> None:
        nonlocal end
        start = end
        count = 1
        for each in shape:
            count *= each
        end += count * size
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [start, end]}

    def batch_norm(name: str, width: int) -> None:
        for part in ("weight", "bias", "running_mean", "running_var"):
            tensor(f"{name}.{part}", width)

    tensor("conv1.weight", 64, 3, 7, 7)
    batch_norm("bn1", 64)
    stream = 64
    for stage, blocks in enumerate((3, 8, 36, 3)):
        width = 64 << stage
        for block in range(blocks):
            path_ = f"layer{stage + 1}.{block}"
            sides = ((width, stream, 1), (width, width, 3), (4 * width, width, 1))
            for number, (out, inner, kernel) in enumerate(sides, start=1):
                tensor(f"{path_}.conv{number}.weight", out, inner, kernel, kernel)
                batch_norm(f"{path_}.bn{number}", out)
            if block == 0:
                tensor(f"{path_}.downsample.0.weight", 4 * width, stream, 1, 1)
                batch_norm(f"{path_}.downsample.1", 4 * width)
            stream = 4 * width
    tensor("fc.weight", 1000, stream)
    tensor("fc.bias", 1000)
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        file.truncate(8 + len(text) + end)


if __name__ == "__main__":
    main()
