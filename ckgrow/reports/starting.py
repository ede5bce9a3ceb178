"""A first spec for a checkpoint: all that could grow, one step active, the rest in comments."""

from __future__ import annotations

import json
from pathlib import Path

from ckgrow.errors import FileError
from ckgrow.names import shown_path
from ckgrow.reasons import unwritable
from ckgrow.reports.documents import GroupRow, InspectDocument

_HEAD = """\
# A first growth spec for {checkpoint}.
# See what it would do:   ckgrow plan {checkpoint} SPEC
# Do it:                  ckgrow apply {checkpoint} SPEC -o student.safetensors
version: 1
seed: 0
"""


def first_spec(document: InspectDocument) -> str:
    """A commented spec that ``plan`` accepts as it is."""
    lines = [_HEAD.format(checkpoint=document.checkpoint).rstrip()]
    lines += _teacher(document)
    lines += ["", "steps:"]
    active = True
    for group in document.groups:
        if group.growable and group.layers:
            lines += _widening(group, active=active)
            active = False
    for name, blocks in document.stages.items():
        lines += [
            f"  # {len(blocks)} blocks; new ones are whole and start as the identity",
            f"  # - deepen: {json.dumps(_pattern(name))}",
            "  #   blocks: 1",
        ]
    if active:  # nothing can grow wider; a spec needs a step all the same
        layer = document.layers[-1].name if document.layers else "a layer"
        lines += [f"  - deepen: {json.dumps(_pattern(layer))}", "    layers: 1"]
    return "\n".join(lines) + "\n"


def write_new(path: Path, text: str) -> None:
    """Writes a new file; FileError when it exists or cannot be written."""
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        raise FileError(f"{shown_path(path)} exists; write elsewhere or remove it") from None
    except OSError as failure:
        raise FileError(f"{shown_path(path)} cannot be written: {unwritable(failure)}") from None


def _teacher(document: InspectDocument) -> list[str]:
    lines = ["teacher:", f"  architecture: {document.architecture}"]
    if document.options:
        lines.append(f"  options: {json.dumps(dict(document.options))}")
    guesses = [each for each in document.assumptions if each.source == "default"]
    if guesses:
        lines.append("  # guesses that the file neither confirms nor denies; state what is true")
        lines.append("  # under 'options:' (steps that rest on a guess are refused):")
        lines += [f"  #   {each.fact}: {each.value}" for each in guesses]
    return lines


def _pattern(name: str) -> str:
    """The pattern that this name alone fits: each wildcard stands in a set of its own."""
    return "".join(f"[{each}]" if each in "*?[{" else each for each in name)


def _widening(group: GroupRow, *, active: bool) -> list[str]:
    sharing = len(group.layers) - 1
    with_others = f", with {sharing} more layers" if sharing else ""
    equal = f" in {group.runs} equal runs" if group.runs > 1 else ""
    mark = "" if active else "# "
    return [
        f"  # {group.width} channels{equal}{with_others}",
        f"  {mark}- widen: {json.dumps(_pattern(group.layers[0]))}",
        f"  {mark}  factor: 1.5",
    ]
