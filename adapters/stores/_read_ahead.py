"""Reads a distant file in few requests: pieces that follow each other come in larger ones.

A request takes as long as many kilobytes, whatever it is for. So a first reading brings a little
more than was asked for, and one that goes on where another ended brings twice as much as that, up
to a limit. Several threads share what came; what was not used for longest is forgotten.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future

FIRST = 1 << 16
"""Bytes that are fetched at least: the header of most checkpoints."""

LARGEST = 1 << 23
"""Bytes of one request at most."""

SKIPPED = 1 << 18
"""Bytes that may lie between two pieces that still follow each other."""

_SPARE = 2
_OF_A_THREAD = 2

Fetch = Callable[[int, int], bytes]


class _Window:
    """Bytes ``start`` to ``stop`` of the file, which may be on their way."""

    def __init__(self, start: int, stop: int) -> None:
        self.start = start
        self.stop = stop
        self.data: Future[bytes] = Future()


class ReadAhead:
    """A file of ``size`` bytes of which ``fetch(start, stop)`` brings a piece.

    Memory is bounded: ``LARGEST`` bytes times two for each thread that reads, and two.
    """

    def __init__(self, fetch: Fetch, size: int) -> None:
        self._fetch = fetch
        self._size = size
        self._lock = threading.Lock()
        self._windows: list[_Window] = []  # the one used last stands last
        self._threads: set[int] = set()

    def read_into(self, buffer: memoryview, offset: int) -> None:
        """Fills ``buffer`` from ``offset`` on; raises what ``fetch`` raises.

        Raises ValueError for bytes beyond the end.
        """
        if offset + len(buffer) > self._size:
            raise ValueError(f"bytes {offset} to {offset + len(buffer)} of {self._size}")
        filled = 0
        while filled < len(buffer):
            position = offset + filled
            window, is_new = self._window(position, len(buffer) - filled)
            if is_new:
                self._fill(window)
            data = window.data.result()
            first = position - window.start
            piece = data[first : first + len(buffer) - filled]
            buffer[filled : filled + len(piece)] = piece
            filled += len(piece)

    def forget(self) -> None:
        """Gives the memory back."""
        with self._lock:
            self._windows.clear()

    def _window(self, position: int, wanted: int) -> tuple[_Window, bool]:
        """The window with ``position`` in it, and whether it has still to be fetched."""
        with self._lock:
            self._threads.add(threading.get_ident())
            found = next((each for each in self._windows if _holds(each, position)), None)
            if found is not None:
                self._windows.remove(found)
                self._windows.append(found)
                return found, False
            window = _Window(position, position + self._length(position, wanted))
            self._windows.append(window)
            most = _SPARE + _OF_A_THREAD * len(self._threads)
            del self._windows[:-most]
            return window, True

    def _length(self, position: int, wanted: int) -> int:
        length = max(wanted, FIRST)
        for each in self._windows:
            if each.stop <= position <= each.stop + SKIPPED:
                length = max(length, 2 * (each.stop - each.start))
        following = (each.start for each in self._windows if each.start > position)
        return min(length, LARGEST, min(following, default=self._size) - position)

    def _fill(self, window: _Window) -> None:
        try:
            data = self._fetch(window.start, window.stop)
        except BaseException as failure:
            with self._lock:  # whoever comes later asks again
                self._windows = [each for each in self._windows if each is not window]
            window.data.set_exception(failure)
            raise
        window.data.set_result(data)


def _holds(window: _Window, position: int) -> bool:
    return window.start <= position < window.stop
