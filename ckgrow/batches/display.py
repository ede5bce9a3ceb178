"""Who sees a batch run."""

from __future__ import annotations

from typing import Protocol

from ckgrow.batches.records import Record


class BatchWatching(Protocol):
    """Whoever wants to see how far a batch is."""

    def begin(self, jobs: int, skipped: int) -> None:
        """So many jobs there are; so many of them were made before, as their records say."""
        ...

    def finished(self, record: Record) -> None:
        """A job ended."""
        ...


class Unseen:
    """Nobody does."""

    def begin(self, jobs: int, skipped: int) -> None:
        """Nothing to show."""

    def finished(self, record: Record) -> None:
        """Nothing to show."""
