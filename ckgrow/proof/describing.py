"""Labels in words."""

from __future__ import annotations

from ckgrow.labels import UNKNOWN, ZERO, Labels


def described(table: Labels, label: int) -> str:
    """What a label stands for, as "conv1[3]" or "a new unit of conv1"."""
    if label == ZERO:
        return "zero"
    if label == UNKNOWN:
        return "unknown"
    head = table.head(label)
    if head[0] in ("row", "channel"):
        name, index = head[1:3]
        if isinstance(index, int) and index >= 0:
            return f"{name}[{index}]"
        return f"a new unit of {name}"
    if head[0] == "input":
        return str(head[1])
    inner = table.parts(label)
    return described(table, inner[-1]) if inner else str(head[0])
