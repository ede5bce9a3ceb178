"""Cheap signs that a checkpoint and a spec are still what they were."""

from __future__ import annotations

import json
import os
from contextlib import closing
from functools import lru_cache
from pathlib import Path

from blake3 import blake3

from ckgrow.batches.records import Stamps
from ckgrow.drafts.calibrating import hash_calibrations
from ckgrow.files import open_checkpoint
from ckgrow.places import is_remote
from ckgrow.spec import Spec, canonical, parse

_INDEX = ".index.json"
_SPECS = 64


def stamps_of(place: str) -> dict[str, tuple[int, int]]:
    """Size and time of every file that the checkpoint at ``place`` consists of.

    Empty where they cannot be told: elsewhere, or in an index that does not say which tensor
    stands where. Raises OSError, and what opening a checkpoint raises.
    """
    if is_remote(place):
        return {}
    path = Path(place)
    if path.is_dir():
        names = [path, *sorted(each for each in path.iterdir() if each.is_file())]
        return {os.path.relpath(each, path.parent): _stamp(each) for each in names}
    with closing(open_checkpoint(path)) as reader:
        spans = [reader.span(name) for name in reader.header]
    if path.name.endswith(_INDEX) and None in spans:
        return {}
    files = {path, *(span.path for span in spans if span is not None)}
    return {os.path.relpath(each, path.parent): _stamp(each) for each in sorted(files)}


def unchanged(place: str, stamps: Stamps) -> bool:
    """Whether the files of which ``stamps`` speak, one at least, are all as they were."""
    folder = Path(place).parent
    try:
        return bool(stamps) and all(
            _stamp(folder / name) == tuple(stamp) for name, stamp in stamps.items()
        )
    except (OSError, TypeError, ValueError):
        return False


def hash_spec(place: str) -> str:
    """A hash of what a spec means, whatever its comments, and of the files that it reads.

    Raises FileError and SpecError.
    """
    try:
        spec, text = _read(place, _stamp(Path(place)))
    except OSError:
        spec, text = _parsed(place)  # which says what is wrong
    files = hash_calibrations(spec.steps)
    return str(blake3(json.dumps([text, sorted(files.items())]).encode()).hexdigest())


@lru_cache(_SPECS)
def _read(place: str, _: tuple[int, int]) -> tuple[Spec, str]:
    """A spec that is read once, while its file stays the same."""
    return _parsed(place)


def _parsed(place: str) -> tuple[Spec, str]:
    spec = parse(place)
    return spec, json.dumps(canonical(spec), sort_keys=True)


def _stamp(path: Path) -> tuple[int, int]:
    status = os.stat(path)
    return status.st_size, status.st_mtime_ns
