"""Reads a distant file in few requests: pieces that follow each other come in larger ones.

A request takes as long as many kilobytes, whatever it is for. So a first reading brings a little
more than was asked for, and one that goes on where another ended brings twice as much as that, up
to a limit. All threads share what came, of all files; what was not used for longest is forgotten.
"""

from __future__ import annotations

import threading
import weakref
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
    """Bytes ``start`` to ``stop`` of a file, which may be on their way."""

    def __init__(self, owner: ReadAhead, start: int, stop: int) -> None:
        self.owner = owner
        self.start = start
        self.stop = stop
        self.data: Future[bytes] = Future()


class Shelf:
    """What was fetched, of any number of files.

    Memory is bounded: ``LARGEST`` bytes times two for each thread that reads, and two.
    """

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.windows: list[_Window] = []  # the one used last stands last
        self._threads: weakref.WeakSet[threading.Thread] = weakref.WeakSet()

    def keep(self, window: _Window) -> None:
        """As the last one used; others go where there is no room. The lock is held."""
        if window in self.windows:
            self.windows.remove(window)
        self.windows.append(window)
        self._threads.add(threading.current_thread())
        del self.windows[: -(_SPARE + _OF_A_THREAD * len(self._threads))]


class ReadAhead:
    """A file of ``size`` bytes of which ``fetch(start, stop)`` brings a piece."""

    def __init__(self, fetch: Fetch, size: int, shelf: Shelf) -> None:
        self._fetch = fetch
        self._size = size
        self._shelf = shelf

    def read_into(self, buffer: memoryview, offset: int) -> None:
        """Fills ``buffer`` from ``offset`` on, which the file has; raises what ``fetch`` raises."""
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
        with self._shelf.lock:
            self._shelf.windows[:] = [
                each for each in self._shelf.windows if each.owner is not self
            ]

    def _window(self, position: int, wanted: int) -> tuple[_Window, bool]:
        """The window with ``position`` in it, and whether it has still to be fetched."""
        with self._shelf.lock:
            own = [each for each in self._shelf.windows if each.owner is self]
            found = next((each for each in own if each.start <= position < each.stop), None)
            length = self._length(own, position, wanted)
            window = found or _Window(self, position, position + length)
            self._shelf.keep(window)
            return window, found is None

    def _length(self, own: list[_Window], position: int, wanted: int) -> int:
        length = max(wanted, FIRST)
        for each in own:
            if each.stop <= position <= each.stop + SKIPPED:
                length = max(length, 2 * (each.stop - each.start))
        following = (each.start for each in own if each.start > position)
        return min(length, LARGEST, min(following, default=self._size) - position)

    def _fill(self, window: _Window) -> None:
        try:
            data = self._fetch(window.start, window.stop)
        except BaseException as failure:
            with self._shelf.lock:  # whoever comes later asks again
                if window in self._shelf.windows:
                    self._shelf.windows.remove(window)
            window.data.set_exception(failure)
            raise
        window.data.set_result(data)
