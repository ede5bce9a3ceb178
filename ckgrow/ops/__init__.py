"""One rule per ONNX op, one file per family; a new file here is found by itself.

A rule says what is known of its op: the shapes it makes, what it does to channel axes, how its
attributes and constants follow grown axes, what it costs, how to compute it in float64, and what
its function promises (``ckgrow.ops.rule``).
An op without a rule is never taken for elementwise: it is an error that names it.
"""

from __future__ import annotations

import importlib
import pkgutil
from functools import cache

from ckgrow.errors import GraphError
from ckgrow.ops.rule import Rule, Site

__all__ = ["Rule", "Site", "rule", "rules"]


@cache
def rules() -> dict[str, Rule]:
    """Every rule by op name."""
    found: dict[str, Rule] = {}
    for module in sorted(pkgutil.iter_modules(__path__), key=lambda entry: entry.name):
        if module.name in ("rule", "tracing"):  # what rules are, no rules
            continue
        for made in importlib.import_module(f"{__name__}.{module.name}").RULES:
            found[made.op] = made
    return found


def rule(op: str) -> Rule:
    """The rule of an op; GraphError when there is none."""
    found = rules().get(op)
    if found is None:
        raise GraphError(f"op {op!r} has no rule; ops with one: {', '.join(sorted(rules()))}")
    return found
