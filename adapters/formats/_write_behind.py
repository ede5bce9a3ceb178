"""Sends what was written on its way to the disk early, and does not fill the page cache with it.

Without this, flushing a large file at the end waits for nearly all of it, and its pages push out
what others want to keep; where memory has to be fetched first (a virtual machine that gives back
what it does not use), fetching it takes longer than the disk.
"""

from __future__ import annotations

import os
import threading
from collections import defaultdict, deque
from contextlib import suppress

WINDOW_BYTES = 1 << 22
"""What is handed to the disk at a time."""
WINDOWS_KEPT = 16
"""How many stay behind the last one, so that the disk has taken them before they are dropped."""


class WriteBehind:
    """Follows the writing of a file, from several threads.

    The file is seen as windows of one size. The first advice that a complete window is not needed
    starts writing it to the disk, a second one later drops its pages, as far as they are clean.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._lock = threading.Lock()
        self._filled: dict[int, int] = defaultdict(int)
        self._on_the_way: deque[int] = deque()

    def wrote(self, offset: int, size: int) -> None:
        """``size`` bytes stand at ``offset`` now; most are written once."""
        if not hasattr(os, "posix_fadvise"):  # macOS
            return
        for window in self._completed(offset, offset + size):
            _advise(self._descriptor, window)

    def _completed(self, start: int, stop: int) -> list[int]:
        """Windows that need advice: those that are complete now, and some that were long before."""
        found: list[int] = []
        with self._lock:
            for window in range(start // WINDOW_BYTES, -(-stop // WINDOW_BYTES)):
                first = window * WINDOW_BYTES
                part = min(stop, first + WINDOW_BYTES) - max(start, first)
                self._filled[window] += part
                if self._filled[window] >= WINDOW_BYTES:
                    del self._filled[window]
                    found.append(window)
                    self._on_the_way.append(window)
            while len(self._on_the_way) > WINDOWS_KEPT:
                found.append(self._on_the_way.popleft())
        return found


def _advise(descriptor: int, window: int) -> None:
    start = window * WINDOW_BYTES
    with suppress(OSError):  # of a file system that takes no advice
        os.posix_fadvise(descriptor, start, WINDOW_BYTES, os.POSIX_FADV_DONTNEED)
