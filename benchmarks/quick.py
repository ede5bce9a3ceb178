"""What `verify --quick` costs beside the two runs that any comparison needs.

    python benchmarks/quick.py

Two convolutional networks of about 400 MB, a ResNet and its student, on 16 samples of 224 pixels,
to which the command adds one of zeros and one of ones. The bare process beside it imports numpy and
ONNX Runtime, reads the weights of one network after the other, and runs them on 16 samples with the
same session options, models and batches. Both are whole processes, run in turn. Anonymous memory is
the largest RssAnon seen; the time of the processors says more where others use them too. Results go
to ``benchmarks/results/quick-DATE.md``.
"""

from __future__ import annotations

import datetime
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from ckgrow.adapters.runtimes import onnxruntime as ours
from safetensors.numpy import save_file

from ckgrow import apply
from ckgrow.loading import Wish, load
from ckgrow.random import Stream
from ckgrow.verdict.running import Side, batch_rows

ROOT = Path(__file__).parent.parent
RUNS = 3
WIDTH = 160
"""Channels inside the first blocks: twice and a half those of resnet50, four times its bytes."""
SIZE = 224
SEEN_EVERY = 0.01

BARE = """
import json, sys
import numpy as np
import onnxruntime

options = onnxruntime.SessionOptions()
options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
options.enable_cpu_mem_arena = False
options.enable_mem_pattern = False
samples, rows = np.load(sys.argv[1]), int(sys.argv[2])
made = []
for place in sys.argv[3:]:
    names = json.load(open(place + ".json"))
    session = onnxruntime.InferenceSession(
        place + ".onnx", options, providers=["CPUExecutionProvider"]
    )
    weights = {}
    with open(names["file"], "rb") as file:
        for inner, (dtype, shape, start) in names["weights"].items():
            file.seek(start)
            array = np.fromfile(file, dtype, int(np.prod(shape))).reshape(shape)
            weights[inner] = onnxruntime.OrtValue.ortvalue_from_numpy(array)
    for start in range(0, len(samples), rows):
        batch = onnxruntime.OrtValue.ortvalue_from_numpy(samples[start : start + rows])
        feeds = {**weights, names["input"]: batch}
        (value,) = session.run_with_ort_values(names["outputs"], feeds)
        made.append(value.numpy())
    del session, weights, feeds
half = len(made) // 2
print(max(np.abs(a - b).max() for a, b in zip(made[:half], made[half:])))
"""


@dataclass(frozen=True)
class Cost:
    """Of one process."""

    seconds: float
    processor: float
    anonymous: int


def main() -> None:
    """Measures, prints and records."""
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        teacher, student = made(work)
        rows = exported(teacher, student)
        samples = work / "samples.npy"
        np.save(samples, drawn(16))
        places = [str(path.with_suffix("")) for path in (teacher, student)]
        bare = [sys.executable, "-c", BARE, str(samples), str(rows), *places]
        command = str(Path(sys.executable).with_name("ckgrow"))
        quick = [command, "verify", str(teacher), str(student), "--quick"]
        costs: list[tuple[Cost, Cost]] = []
        for number in range(RUNS + 1):  # the first warms the caches
            first, second = (bare, quick) if number % 2 else (quick, bare)
            pair = measured(first), measured(second)
            costs.append(pair[::-1] if number % 2 else pair)
            print(f"run {number}: {costs[-1]}", flush=True)
        lines = report(costs[1:], teacher.stat().st_size, student.stat().st_size)
    results = ROOT / "benchmarks/results" / f"quick-{datetime.date.today()}.md"
    results.write_text(lines)
    print(lines)


def report(costs: list[tuple[Cost, Cost]], teacher: int, student: int) -> str:
    """A table for the results folder."""
    said = [
        f"Medians of {RUNS} runs in turn; {platform.machine()}, {os.cpu_count()} cores, "
        f"Python {platform.python_version()}, {datetime.date.today()}.",
        f"Files of {teacher / 1e6:.0f} and {student / 1e6:.0f} MB, 16 samples of {SIZE} pixels.",
        "",
        "| process | seconds | of the processors | anonymous memory, MB |",
        "|---|---|---|---|",
    ]
    for name, each in zip(
        ("`ckgrow verify --quick`", "bare"), zip(*costs, strict=True), strict=True
    ):
        seconds = statistics.median(cost.seconds for cost in each)
        processor = statistics.median(cost.processor for cost in each)
        anonymous = statistics.median(cost.anonymous for cost in each) / 1e6
        said.append(f"| {name} | {seconds:.1f} | {processor:.1f} | {anonymous:.0f} |")
    ratio = statistics.median(a.seconds / b.seconds for a, b in costs)
    of_processors = statistics.median(a.processor / b.processor for a, b in costs)
    more = statistics.median(a.anonymous - b.anonymous for a, b in costs) / 1e6
    said += [
        "",
        f"{ratio:.2f} times the seconds, {of_processors:.2f} times the processors' time, "
        f"{more:.0f} MB more.",
    ]
    return "\n".join(said) + "\n"


def measured(command: list[str]) -> Cost:
    """A whole process; its output is not wanted, its success is."""
    start, anonymous = time.perf_counter(), 0
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    while True:
        ended, status, usage = os.wait4(process.pid, os.WNOHANG)
        if ended:
            break
        anonymous = max(anonymous, anonymous_memory(process.pid))
        time.sleep(SEEN_EVERY)
    seconds = time.perf_counter() - start
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command)
    return Cost(seconds, usage.ru_utime + usage.ru_stime, anonymous)


def anonymous_memory(pid: int) -> int:
    """RssAnon in bytes, 0 once the process is gone."""
    try:
        text = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0
    found = [line.split()[1] for line in text.splitlines() if line.startswith("RssAnon:")]
    return int(found[0]) * 1024 if found else 0


def made(work: Path) -> tuple[Path, Path]:
    """The teacher, random, and its student."""
    teacher, student = work / "teacher.safetensors", work / "student.safetensors"
    save_file({name: values(name, shape) for name, shape in shapes().items()}, teacher)
    spec = {"steps": [{"widen": "layer[123].*.conv1", "factor": 1.1}]}
    apply(teacher, spec, student, check=False)
    return teacher, student


def values(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """He's initialisation for kernels, statistics near the initial ones."""
    length = int(np.prod(shape[1:]))
    drawn = Stream("benchmark", name).normal_rows(np.arange(shape[0]), length).reshape(shape)
    if len(shape) > 1:
        drawn *= np.sqrt(2 / length)
    elif name.endswith("bias") or name.endswith("mean"):
        drawn *= 0.1
    else:
        drawn = 1.0 + 0.1 * np.tanh(drawn)
    return drawn.astype(np.float32)


def shapes() -> dict[str, tuple[int, ...]]:
    """Those of torchvision's resnet50 with blocks of another width."""
    found: dict[str, tuple[int, ...]] = {"conv1.weight": (64, 3, 7, 7), **batch_norm("bn1", 64)}
    stream = 64
    for stage, blocks in enumerate((3, 4, 6, 3)):
        width, wide = WIDTH << stage, 256 << stage
        for block in range(blocks):
            path = f"layer{stage + 1}.{block}"
            sides = ((width, stream, 1), (width, width, 3), (wide, width, 1))
            for number, (out, inner, kernel) in enumerate(sides, start=1):
                found[f"{path}.conv{number}.weight"] = (out, inner, kernel, kernel)
                found |= batch_norm(f"{path}.bn{number}", out)
            if block == 0:
                found[f"{path}.downsample.0.weight"] = (wide, stream, 1, 1)
                found |= batch_norm(f"{path}.downsample.1", wide)
            stream = wide
    return {**found, "fc.weight": (1000, stream), "fc.bias": (1000,)}


def batch_norm(name: str, width: int) -> dict[str, tuple[int, ...]]:
    """Its four tensors."""
    parts = ("weight", "bias", "running_mean", "running_var")
    return {f"{name}.{part}": (width,) for part in parts}


def drawn(count: int) -> np.ndarray:
    """Inputs for the bare process, which need not be ours."""
    flat = Stream("benchmark").normal_rows(np.arange(count), 3 * SIZE * SIZE)
    return flat.astype(np.float32).reshape(count, 3, SIZE, SIZE)


def exported(*paths: Path) -> int:
    """Writes the very models that our runtime runs; returns how many rows it runs at a time."""
    sides = []
    for path in paths:
        with load(path, Wish(options={"input": [3, SIZE, SIZE]})) as loaded:
            graph, header = loaded.network.graph, loaded.header
            sides.append(Side(str(path), graph, header, loaded.tensor))
            model = ours._Model(graph, header, graph.outputs)
        path.with_suffix(".onnx").write_bytes(model.proto.SerializeToString())
        stored = offsets(path)
        document = {
            "file": str(path),
            "input": model.names[next(iter(graph.inputs))],
            "outputs": [model.names[name] for name in graph.outputs],
            "weights": {model.names[name]: stored[name] for name in graph.parameters()},
        }
        path.with_suffix(".json").write_text(json.dumps(document))
    return batch_rows(sides)


def offsets(path: Path) -> dict[str, tuple[str, list[int], int]]:
    """(dtype, shape, place in the file) of every float32 tensor of a safetensors file."""
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(length))
    header.pop("__metadata__", None)
    return {
        name: ("<f4", entry["shape"], 8 + length + entry["data_offsets"][0])
        for name, entry in header.items()
    }


if __name__ == "__main__":
    main()
