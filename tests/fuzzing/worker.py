"""Reads damaged checkpoints one after another, in little memory, and says what came of each.

    python -m fuzzing.worker KIND FIRST COUNT FOLDER

is seeds FIRST to FIRST + COUNT of a kind of samples. Before each its seed is printed, after it a
line of JSON: the kind of outcome and, unless that is fine, what is wrong. A seed is always the same
file, so one that fails is tried again alone.
"""

from __future__ import annotations

import faulthandler
import json
import os
import resource
import shutil
import sys
import traceback
import warnings
from pathlib import Path
from random import Random

import numpy as np

from ckgrow import apply, convert, inspect, plan
from ckgrow.checkpoint import Reader
from ckgrow.errors import CkgrowError
from ckgrow.loading import open_source
from ckgrow.reports.documents import to_json

from .mutants import mutant
from .oracles import Said, said
from .samples import Sample, samples

SECONDS = 5.0
MEMORY = 512 << 20
"""Bytes of addresses beyond what the process has before it reads anything damaged."""

EXPANSION = 1100
"""Deflate makes at most so many bytes of one."""

SPEC = {"steps": [{"widen": "0", "factor": 2}]}
REFUSED, RIGHT, PLAIN, UNCONFIRMED, WRONG = "refused", "right", "plain", "unconfirmed", "WRONG"
"""``plain``: no other library reads the file, but the bytes of all its tensors stand in it."""


def main(kind: str, first: int, count: int, folder: Path) -> None:
    """Runs the seeds; ends by itself only when a seed takes too long."""
    valid = samples(kind)
    for sample in valid:  # whatever is imported late is imported now
        outcome = tried(kind, sample, folder, thorough=True)
        if outcome[0] != RIGHT:
            raise SystemExit(f"{kind}: a valid file is {outcome}")
    used = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, used + MEMORY))
    resource.setrlimit(resource.RLIMIT_FSIZE, (MEMORY, MEMORY))
    for seed in range(first, first + count):
        print(seed, flush=True)
        random = Random(f"{kind} {seed}")
        sample = mutant(random, kind, random.choice(valid))
        faulthandler.dump_traceback_later(SECONDS, exit=True)
        outcome = tried(kind, sample, folder, thorough=kind == "record" or seed % 8 == 0)
        faulthandler.cancel_dump_traceback_later()
        print(json.dumps(outcome), flush=True)


def tried(kind: str, sample: Sample, folder: Path, *, thorough: bool) -> tuple[str, str]:
    """What came of one checkpoint, and why if that is not as it should be."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for name, data in sample.files.items():
        (folder / name).write_bytes(data)
    path = folder / sample.entry
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            weights, found = _read(path, sum(map(len, sample.files.values())))
            outcome = ""
    except CkgrowError as refusal:
        outcome = REFUSED
        fault = _unfit(refusal)
    except BaseException:  # noqa: BLE001 - that is what is looked for
        return WRONG, traceback.format_exc()
    if outcome == REFUSED and fault:
        return WRONG, fault
    if thorough and (fault := _used(path, folder)):
        return WRONG, fault
    return (REFUSED, "") if outcome == REFUSED else _confirmed(kind, path, weights, found)


def _read(path: Path, size: int) -> tuple[str | None, dict[str, Said]]:
    """Every tensor, in two pieces."""
    reader = open_source(path).reader
    try:
        found = {}
        for name, spec in reader.header.items():
            if spec.nbytes > EXPANSION * size:
                raise AssertionError(f"{name!r} has {spec.nbytes} bytes in a file of {size}")
            rows = spec.shape[0] if spec.shape else 1
            parts = [
                reader.read(name, 0, rows // 2),
                reader.read(name, rows // 2, rows),
            ]
            for part, expected in zip(parts, (rows // 2, rows - rows // 2), strict=True):
                if part.shape != (expected, *spec.shape[1:]) or part.dtype.name != spec.dtype:
                    raise AssertionError(f"{name!r} is {spec} and was read as {part.dtype}")
            data = b"".join(part.tobytes() for part in parts)
            _require_span(reader, name, data)
            found[name] = (spec.dtype, tuple(spec.shape), data)
        return reader.contents.weights, found
    finally:
        reader.close()


def _require_span(reader: Reader, name: str, data: bytes) -> None:
    span = reader.span(name)
    if span is not None:
        with span.path.open("rb") as file:
            file.seek(span.offset)
            if file.read(span.size) != data:
                raise AssertionError(f"{name!r} is not at its span {span}")


def _used(path: Path, folder: Path) -> str:
    """The commands on it, each of which may refuse it; what is wrong with that, or ""."""
    before = set(folder.iterdir())
    runs = {
        "inspect": lambda: to_json(inspect(path)),
        "plan": lambda: to_json(plan(path, SPEC)),
        "convert": lambda: convert(path, folder / "converted.safetensors", workers=1),
        "apply": lambda: apply(path, SPEC, folder / "student.safetensors", check=False, workers=1),
    }
    for name, run in runs.items():
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                run()
        except CkgrowError as refusal:
            if fault := _unfit(refusal):
                return f"{name}: {fault}"
        except BaseException:  # noqa: BLE001
            return f"{name}: {traceback.format_exc()}"
    left = {each.name for each in set(folder.iterdir()) - before}
    if left - {"converted.safetensors", "student.safetensors"}:
        return f"left behind: {left}"
    return ""


def _unfit(refusal: CkgrowError) -> str:
    """Why a message cannot be shown as one line on a terminal."""
    text = str(refusal)
    if not text.isprintable() or len(text) > 2000 or not 2 <= refusal.exit_code <= 4:
        return f"{type(refusal).__name__} says {text!r}"
    return ""


def _confirmed(
    kind: str, path: Path, weights: str | None, found: dict[str, Said]
) -> tuple[str, str]:
    """Whether another library reads the same from the same bytes."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            expected = said(kind, path, weights, list(found))
    except Exception as failure:  # noqa: BLE001 - libraries raise anything
        return _plain(path, found), f"{type(failure).__name__}: {failure}"
    for name, (dtype, shape, data) in found.items():
        if name not in expected:
            return _plain(path, {name: found[name]}), f"no {name!r} there"
        other = expected[name]
        if (other[0] or dtype, other[1], other[2]) != (dtype, shape, data):
            return WRONG, f"{name!r}: {dtype} {shape} here, {other[0]} {other[1]} there"
    return RIGHT, ""


def _plain(path: Path, found: dict[str, Said]) -> str:
    stored = [each.read_bytes() for each in path.parent.iterdir()]
    if all(any(data in each for each in stored) for _, _, data in found.values()):
        return PLAIN
    return UNCONFIRMED


if __name__ == "__main__":
    np.seterr(all="raise")
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), Path(sys.argv[4]))
