"""How far a run is, for whoever wants to see it."""

from __future__ import annotations

from typing import Protocol


class Watching(Protocol):
    """Whoever wants to see how far a run is."""

    def begin(self, what: str, total: int) -> None:
        """A part of the work begins; ``total`` in bytes, 0 when it cannot be counted."""
        ...

    def advance(self, count: int) -> None:
        """So many bytes more are done."""
        ...


class Unwatched:
    """Nobody does."""

    def begin(self, what: str, total: int) -> None:
        """Nothing to show."""

    def advance(self, count: int) -> None:
        """Nothing to show."""
