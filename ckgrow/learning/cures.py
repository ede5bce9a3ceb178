"""Which change to the spec lets a student learn that cannot."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ckgrow.learning.report import Ill
from ckgrow.names import Pattern

GENERAL: Mapping[Ill, str] = {
    "locked": "split: unequal (net2wider), or noise: {kind: zero-sum}",
    "dead": "zero: out (netmorph), fill: match-std, or noise at its default (envelope)",
    "exploding": "method: zero-init instead of r2deeper, or a smaller scale (r2wider)",
}
"""Where no record tells what made the student."""

Step = Mapping[str, Any]


def cure(kind: Ill, layers: Sequence[str], steps: Sequence[Step]) -> str:
    """The keys to change in the steps that made ``layers``."""
    about = [step for step in steps if _is_about(step, layers)]
    changes = dict.fromkeys(change for step in about or steps if (change := _change(kind, step)))
    return "; ".join(changes) or GENERAL[kind]


def _is_about(step: Step, layers: Sequence[str]) -> bool:
    """Whether a pattern of the step names one of the layers, or something that holds it."""
    patterns = next((step[verb] for verb in ("widen", "deepen", "branch") if verb in step), ())
    texts = (patterns,) if isinstance(patterns, str) else tuple(patterns)
    return any(
        Pattern(text).matches(name)
        for text in texts
        for layer in layers
        for name in _holders(layer)
    )


def _holders(layer: str) -> list[str]:
    """``a.b.c``, ``a.b``, ``a``, and the same without what ckgrow adds to a name."""
    parts = layer.split(".")
    return [".".join(parts[:count]) for count in range(len(parts), 0, -1)]


def _change(kind: Ill, step: Step) -> str:
    method = step.get("method", "")
    if kind == "locked":
        if method == "net2wider":
            return "split: unequal, or noise: {kind: zero-sum}"
        return (
            "noise at its default ({kind: zero-sum})" if method in ("symmetric", "diagonal") else ""
        )
    if kind == "exploding" and "deepen" in step:
        return "method: zero-init" if method == "r2deeper" else ""
    if step.get("zero") == "in":
        return "zero: out"
    if step.get("fill") == "zeros":
        return "fill: match-std"
    if kind == "exploding":
        return "scale: 0.3" if method == "r2wider" else ""
    return "noise at its default" if method == "envelope" else ""
