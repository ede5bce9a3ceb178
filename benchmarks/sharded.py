"""What planning costs on a checkpoint of 70 billion parameters, in one file and in 30 shards.

    python benchmarks/sharded.py

The files have holes for data: 140 GB that occupy no space. Each figure is the median of several
runs of the whole process; memory is the largest resident set that the system reports of it.
Results go to ``benchmarks/results/sharded-DATE.md``.
"""

from __future__ import annotations

import datetime
import json
import os
import platform
import statistics
import struct
import sys
import tempfile
import time
from pathlib import Path

RUNS = 9
WIDTH = 16_384
LAYERS = 260
SHARDS = 30
SPEC = 'steps: [{widen: "layers.[0-9]*", factor: 1.5}]\n'


def main() -> None:
    """Measures, prints and records."""
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        spec = folder / "spec.yaml"
        spec.write_text(SPEC)
        places = {"one file": folder / "model.safetensors", f"{SHARDS} shards": folder / "shards"}
        write_file(places["one file"], tensors())
        write_shards(places[f"{SHARDS} shards"], tensors())
        rows = {}
        for what, place in places.items():
            for command in (("inspect", str(place)), ("plan", str(place), str(spec))):
                rows[f"{command[0]}, {what}"] = measured(command)
    lines = report(rows)
    results = Path(__file__).parent / "results" / f"sharded-{datetime.date.today()}.md"
    results.write_text(lines)
    print(lines)


def tensors() -> dict[str, tuple[int, ...]]:
    """Shapes of a stack of equal layers, in bfloat16."""
    shapes: dict[str, tuple[int, ...]] = {}
    for number in range(LAYERS):
        shapes[f"layers.{2 * number}.weight"] = (WIDTH, WIDTH)
        shapes[f"layers.{2 * number}.bias"] = (WIDTH,)
    return shapes


def write_file(path: Path, shapes: dict[str, tuple[int, ...]]) -> None:
    """A safetensors file without data."""
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, shape in shapes.items():
        begin, end = end, end + 2 * _product(shape)
        header[name] = {"dtype": "BF16", "shape": list(shape), "data_offsets": [begin, end]}
    text = json.dumps(header).encode()
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        file.truncate(8 + len(text) + end)


def write_shards(folder: Path, shapes: dict[str, tuple[int, ...]]) -> None:
    """The same in parts of equal length, with the index."""
    folder.mkdir()
    names = list(shapes)
    each = -(-len(names) // SHARDS)
    weight_map = {}
    for number in range(SHARDS):
        part = f"model-{number + 1:05d}-of-{SHARDS:05d}.safetensors"
        held = names[number * each : (number + 1) * each]
        write_file(folder / part, {name: shapes[name] for name in held})
        weight_map |= dict.fromkeys(held, part)
    total = sum(2 * _product(shape) for shape in shapes.values())
    index = {"metadata": {"total_size": total}, "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index, indent=2))


def measured(command: tuple[str, ...]) -> tuple[float, float]:
    """Medians of seconds and of MB."""
    program = str(Path(sys.executable).with_name("ckgrow"))
    seconds, sizes = [], []
    for _ in range(RUNS + 1):  # the first warms the caches
        start = time.perf_counter()
        child = os.posix_spawn(
            program,
            [program, *command, "--json"],
            os.environ,
            file_actions=[(os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0)],
        )
        _, status, usage = os.wait4(child, 0)
        seconds.append(time.perf_counter() - start)
        if status:
            raise SystemExit(f"ckgrow {' '.join(command)} ended with {status}")
        sizes.append(usage.ru_maxrss / 1000)  # KiB on Linux
    return statistics.median(seconds[1:]), statistics.median(sizes[1:])


def report(rows: dict[str, tuple[float, float]]) -> str:
    """A table for the results folder."""
    parameters = sum(_product(shape) for shape in tensors().values())
    said = [
        f"{parameters / 1e9:.1f} billion parameters in bfloat16, {2 * LAYERS} tensors; medians of "
        f"{RUNS} runs; {platform.machine()}, {os.cpu_count()} cores, "
        f"Python {platform.python_version()}, {datetime.date.today()}.",
        "",
        "| `ckgrow` | seconds | MB resident at most |",
        "|---|---|---|",
    ]
    said += [f"| {name} | {wall:.2f} | {size:.0f} |" for name, (wall, size) in rows.items()]
    return "\n".join(said) + "\n"


def _product(shape: tuple[int, ...]) -> int:
    count = 1
    for each in shape:
        count *= each
    return count


if __name__ == "__main__":
    main()
