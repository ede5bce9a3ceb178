"""Many files of which few are open at once: a process may have only so many."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Generic, TypeVar

Item = TypeVar("Item")

MOST = 64
"""How many stay open; a process that reads two checkpoints and writes one may have 256."""


@dataclass
class _Entry(Generic[Item]):
    item: Item
    users: int = 0


class OpenFew(Generic[Item]):
    """Opens items by name when they are used, and closes those that were not used for longest.

    Several threads may use the same item at once. What ``open_item`` raises reaches the user.
    """

    def __init__(
        self,
        open_item: Callable[[str], Item],
        close_item: Callable[[Item], None],
        most: int = MOST,
    ) -> None:
        self._open = open_item
        self._close = close_item
        self._most = most
        self._entries: dict[str, _Entry[Item]] = {}  # those used last stand last
        self._lock = threading.Lock()

    @contextmanager
    def use(self, name: str) -> Iterator[Item]:
        """The item called ``name``, which stays open as long as the context is."""
        with self._lock:
            entry = self._entries.pop(name, None) or _Entry(self._open(name))
            self._entries[name] = entry
            entry.users += 1
            self._close_unused()
        try:
            yield entry.item
        finally:
            with self._lock:
                entry.users -= 1

    def close(self) -> None:
        """Closes everything, whoever uses it; doing it twice is harmless."""
        with self._lock:
            entries, self._entries = self._entries, {}
        for entry in entries.values():
            self._close(entry.item)

    def _close_unused(self) -> None:
        spare = len(self._entries) - self._most
        if spare <= 0:
            return
        unused = [name for name, entry in self._entries.items() if not entry.users]
        for name in unused[:spare]:
            self._close(self._entries.pop(name).item)
