"""JSON objects from elsewhere: two readers would disagree which of two equal names counts."""

from __future__ import annotations

from collections import Counter
from typing import Any

from ckgrow.names import shown


class NamedTwiceError(ValueError):
    """A JSON object has two entries called ``name``."""

    def __init__(self, name: str) -> None:
        super().__init__(f"it names {shown(name)} twice")
        self.name = name


def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """The pairs of a JSON object by name, for ``object_pairs_hook``; raises NamedTwiceError."""
    found = dict(pairs)
    if len(found) < len(pairs):
        counts = Counter(name for name, _ in pairs)
        raise NamedTwiceError(next(name for name, count in counts.items() if count > 1))
    return found
