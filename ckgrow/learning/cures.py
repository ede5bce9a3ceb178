"""Which change to the spec lets a student learn that cannot."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ckgrow.learning.report import Ill
from ckgrow.names import Pattern
from ckgrow.naming import ungrown

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
    """``a.b_grown1.c``, ``a.b_grown1``, ``a``, and ``a.b``, beside which it stands."""
    parts = layer.split(".")
    paths = (".".join(parts[:count]) for count in range(len(parts), 0, -1))
    return [name for path in paths for name in dict.fromkeys((path, ungrown(path)))]


def _change(kind: Ill, step: Step) -> str:
    method = step.get("method", "")
    if kind == "locked":
        if method == "net2wider":
            return "split: unequal, or noise: {kind: zero-sum}"
        return "noise at its default (zero-sum)" if method in ("symmetric", "diagonal") else ""
    if kind == "exploding" and "deepen" in step:
        return "method: zero-init" if method == "r2deeper" else ""
    if step.get("zero") == "in":
        return "zero: out"
    if step.get("fill") == "zeros":
        return "fill: match-std"
    if kind == "exploding":
        return {"r2wider": "scale: 0.3", "random-pad": "a method that preserves"}.get(method, "")
    return "noise at its default" if method == "envelope" else ""
