"""Cheap signs that a checkpoint and a spec are still what they were."""

from __future__ import annotations

import json
import os
from functools import lru_cache
from pathlib import Path

from blake3 import blake3

from ckgrow.drafts.calibrating import hash_calibrations
from ckgrow.files import Stamps
from ckgrow.places import is_remote
from ckgrow.spec import Spec, canonical, parse

_SPECS = 64


def folder_stamp(place: str) -> Stamps:
    """The stamp of a folder, in which another checkpoint may appear; empty for anything else."""
    path = Path(place)
    if is_remote(place) or not path.is_dir():
        return {}
    return {path.name: _stamp(path)}


def from_folder(stamps: Stamps, place: str) -> Stamps:
    """The stamps of files at absolute paths by those from the folder of ``place``, if in there."""
    folder = os.path.abspath(Path(place).parent)
    return {
        os.path.relpath(path, folder) if Path(path).is_relative_to(folder) else path: stamp
        for path, stamp in stamps.items()
    }


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
