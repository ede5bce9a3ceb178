"""The side file ``NAME.ckgrow.json``: what a format without room for it says of its tensors.

It is JSON: the file's string entries, the record of growth among them, and the dtypes of tensors
that the format can hold as raw integers only. A checkpoint is whole without it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from ckgrow.checkpoint import File, Target
from ckgrow.errors import CheckpointError
from ckgrow.names import shown
from ckgrow.pairs import NamedTwiceError, once

from ._output_file import reported

SCHEMA = "ckgrow.side/1"
SUFFIX = ".ckgrow.json"
LARGEST = 100_000_000
"""In bytes; a record grows with the number of layers, and this is room for a million."""


@dataclass(frozen=True)
class SideFile:
    """What it says: ``metadata`` are string entries, ``dtypes`` numpy names by tensor.

    ``files`` is the file that says so, closed; there is none where nothing is said.
    """

    metadata: Mapping[str, str] = field(default_factory=dict)
    dtypes: Mapping[str, str] = field(default_factory=dict)
    files: tuple[File, ...] = ()


def side_name(name: str) -> str:
    """What the side file of the file ``name`` is called."""
    return f"{name}{SUFFIX}"


def main_name(name: str) -> str | None:
    """The file that a side file called ``name`` speaks of; None where it is not called so."""
    return name.removesuffix(SUFFIX) if name.endswith(SUFFIX) else None


def read_side_file(file: File) -> SideFile:
    """The side file that lies beside ``file``; an empty one where there is none.

    Raises CheckpointError when it is none of ours, damaged or too large.
    """
    side = file.sibling(side_name(file.name))
    if side is None:
        return SideFile()
    try:
        if side.size > LARGEST:
            raise CheckpointError(
                f"{side.place} has {side.size} bytes; a side file has at most {LARGEST}, so it is "
                f"none: move it away to read {file.place} without it"
            )
        return replace(_parsed(side.read(0, side.size)), files=(side,))
    except (ValueError, RecursionError) as damage:
        raise CheckpointError(
            f"{side.place} is damaged or no side file of ckgrow ({_cause(damage)}); move it away "
            f"to read {file.place} without it"
        ) from None
    finally:
        side.close()


def write_side_file(target: Target, side: SideFile) -> None:
    """Writes it as a companion of ``target``, flushed to the disk; equal ones have equal bytes.

    There is none where it would be empty; one that is there already goes, since it would be taken
    for what belongs to the new file. Raises FileError when it cannot be written.
    """
    name = side_name(target.name)
    if not (side.metadata or side.dtypes):
        target.outdate(name)
        return
    document = {"schema": SCHEMA, "metadata": {**side.metadata}, "dtypes": {**side.dtypes}}
    text = json.dumps(document, indent=1, sort_keys=True, ensure_ascii=True)
    with reported(shown(name)), target.companion(name).open("wb") as stream:
        stream.write(text.encode() + b"\n")
        stream.flush()
        os.fsync(stream.fileno())


def _parsed(data: bytes) -> SideFile:
    """Raises ValueError for anything but exactly what is written."""
    document = json.loads(data.decode(), object_pairs_hook=once)
    if not isinstance(document, dict) or document.get("schema") != SCHEMA:
        raise ValueError(f"its schema is not {SCHEMA}")
    if set(document) != {"schema", "metadata", "dtypes"}:
        raise ValueError("it has other entries than schema, metadata and dtypes")
    for entry in ("metadata", "dtypes"):
        texts = document[entry]
        if not isinstance(texts, dict) or not all(isinstance(e, str) for e in texts.values()):
            raise ValueError(f"its {entry} are not texts by name")
    return SideFile(document["metadata"], document["dtypes"])


def _cause(damage: Exception) -> str:
    """Ours as it is; a library's only by its kind, since it may quote the file."""
    return str(damage) if type(damage) in (ValueError, NamedTwiceError) else "no JSON"
