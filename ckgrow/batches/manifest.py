"""Reads a manifest: YAML or JSON Lines, checked, and told what is wrong by line.

A YAML manifest is a mapping with a list of ``jobs``. A line of JSON Lines is one of these.
"""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ckgrow.errors import FileError, SpecError
from ckgrow.names import guess, quoted, shown_path
from ckgrow.pairs import NamedTwiceError, once
from ckgrow.reasons import unreadable
from ckgrow.spec import yamlfile

LINE_BYTES = 1_000_000
"""Longest line of JSON Lines that is read."""

LINES = (".jsonl", ".ndjson")
"""Suffixes of JSON Lines; any other file is YAML."""

REQUIRED = ("teacher", "spec", "output")
_KEYS = (*REQUIRED, "weights", "verify")


@dataclass(frozen=True)
class Entry:
    """What a manifest says of some jobs: every teacher is grown by every spec.

    ``teachers`` and ``specs`` are places or globs, ``output`` is a template. ``where`` is how
    messages about it begin. The rest is as in a job.
    """

    where: str
    teachers: tuple[str, ...]
    specs: tuple[str, ...]
    output: str
    weights: str = ""
    verify: bool = True


Manifest = str | Path | Sequence[Mapping[str, Any]]
"""A path to a manifest, or what would be its list of jobs."""


def read_manifest(manifest: Manifest) -> tuple[Entry, ...]:
    """The entries of a manifest, one at least.

    Raises FileError when it cannot be read, SpecError when its content is wrong.
    """
    entries = tuple(_entry(where, given) for where, given in _given(manifest))
    if not entries:
        name = shown_path(manifest) if isinstance(manifest, str | Path) else "the manifest"
        raise SpecError(f"{name} has no jobs; give one at least, with {_listed(REQUIRED)}")
    return entries


def _given(manifest: Manifest) -> Iterator[tuple[str, Any]]:
    if not isinstance(manifest, str | Path):
        for number, given in enumerate(manifest, 1):
            yield f"job {number}", given
    elif str(manifest).lower().endswith(LINES):
        yield from _json_lines(manifest)
    else:
        yield from _yaml(manifest)


def _yaml(path: str | Path) -> Iterator[tuple[str, Any]]:
    document = yamlfile.load(path)
    content = document.value
    if not isinstance(content, dict) or not isinstance(content.get("jobs"), list):
        raise SpecError(
            f"{document.where()}: a manifest is a mapping with 'jobs', a list; "
            f"each job has {_listed(REQUIRED)}"
        )
    for key in content:
        if key != "jobs":
            raise SpecError(
                f"{document.where((key,))}: unknown key {quoted(key)} in the manifest"
                f"{guess(key, ('jobs',))}"
            )
    for number, given in enumerate(content["jobs"]):
        yield document.where(("jobs", number)), given


def _json_lines(path: str | Path) -> Iterator[tuple[str, Any]]:
    name = shown_path(path)
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):
            raise FileError(f"{name} is not a regular file; write the manifest to a file first")
        with open(path, "rb") as file:
            number = 0
            while line := file.readline(LINE_BYTES + 1):
                number += 1
                where = f"{name}:{number}"
                if len(line) > LINE_BYTES:
                    raise SpecError(f"{where}: longer than {LINE_BYTES} bytes; one job per line")
                if line.strip():
                    yield where, _json(line, where)
    except (OSError, ValueError) as failure:
        raise FileError(f"{name} cannot be read: {unreadable(failure)}") from failure


def _json(line: bytes, where: str) -> Any:
    try:
        return json.loads(line, object_pairs_hook=once)
    except NamedTwiceError as twice:
        raise SpecError(f"{where}: {quoted(twice.name)} is given twice; keep one") from None
    except UnicodeDecodeError:
        raise SpecError(f"{where}: the line is not UTF-8; save the file as UTF-8") from None
    except RecursionError:
        raise SpecError(f"{where}: brackets are nested too deep; a job is flat") from None
    except ValueError as failure:
        raise SpecError(
            f"{where}: the line is not JSON ({failure}); write one job per line"
        ) from None


def _entry(where: str, given: Any) -> Entry:
    if not isinstance(given, Mapping):
        raise SpecError(f"{where}: a job must be a mapping with {_listed(REQUIRED)}")
    for key in given:
        if key not in _KEYS:
            raise SpecError(
                f"{where}: unknown key {quoted(str(key))} in a job"
                f"{guess(str(key), _KEYS) or f'; known are {_listed(_KEYS)}'}"
            )
    for key in REQUIRED:
        if key not in given:
            raise SpecError(f"{where}: {key} is missing; a job has {_listed(REQUIRED)}")
    return Entry(
        where,
        _texts(where, "teacher", given["teacher"]),
        _texts(where, "spec", given["spec"]),
        _text(where, "output", given["output"]),
        _text(where, "weights", given["weights"]) if "weights" in given else "",
        _flag(where, "verify", given.get("verify", True)),
    )


def _texts(where: str, key: str, given: Any) -> tuple[str, ...]:
    if isinstance(given, list | tuple):
        if not given:
            raise SpecError(f"{where}: {key} is an empty list; name one at least")
        return tuple(_text(where, key, each) for each in given)
    return (_text(where, key, given),)


def _text(where: str, key: str, given: Any) -> str:
    text = os.fspath(given) if isinstance(given, os.PathLike) else given
    if not isinstance(text, str):
        raise SpecError(f"{where}: {key} must be text; got {type(given).__name__}")
    if not text or "\0" in text:
        raise SpecError(f"{where}: {key} {'has a NUL in it' if text else 'is empty'}; name a file")
    return text


def _flag(where: str, key: str, given: Any) -> bool:
    if not isinstance(given, bool):
        raise SpecError(f"{where}: {key} must be true or false; got {type(given).__name__}")
    return given


def _listed(words: Sequence[str]) -> str:
    return f"{', '.join(words[:-1])} and {words[-1]}"
