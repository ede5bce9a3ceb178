"""Ctrl-C and SIGTERM end a command so that it cleans up behind itself."""

from __future__ import annotations

import os
import signal
import sys
import threading
from importlib.machinery import ExtensionFileLoader
from types import FrameType, TracebackType

from ckgrow.errors import Terminated

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_LATER = 0.01
"""Seconds after which a signal that was lost is sent again."""


class Stop:
    """While the context is open, a signal raises KeyboardInterrupt or Terminated, once.

    Later signals are ignored: they must not keep the first from taking a part file away.
    ``reason`` is what was raised. It is kept because an import that is interrupted may turn it
    into an ImportError. Inside a destructor Python drops it altogether; then it is raised again.
    While a compiled module is loaded it waits: C++ that calls Python there aborts at an exception.
    """

    def __init__(self) -> None:
        self.reason: BaseException | None = None

    def __enter__(self) -> Stop:
        self._hook = sys.unraisablehook
        sys.unraisablehook = self._dropped
        self._previous = {number: signal.signal(number, self._raise) for number in _SIGNALS}
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        sys.unraisablehook = self._hook

    def _raise(self, number: int, frame: FrameType | None) -> None:
        if _loads_compiled(frame):
            _send_later(number)
            return
        for each in _SIGNALS:
            signal.signal(each, signal.SIG_IGN)
        self.reason = KeyboardInterrupt() if number == signal.SIGINT else Terminated()
        raise self.reason

    def _dropped(self, dropped: sys.UnraisableHookArgs) -> None:
        if dropped.exc_value is not self.reason:
            self._hook(dropped)
            return
        for each in _SIGNALS:
            signal.signal(each, self._raise)
        number = signal.SIGTERM if isinstance(self.reason, Terminated) else signal.SIGINT
        _send_later(number)


def _send_later(number: int) -> None:
    again = threading.Timer(_LATER, os.kill, (os.getpid(), number))
    again.daemon = True
    again.start()


def _loads_compiled(frame: FrameType | None) -> bool:
    """Whether the import of a compiled module is among the callers of a frame."""
    while frame is not None:
        if isinstance(frame.f_locals.get("self"), ExtensionFileLoader):
            return True
        frame = frame.f_back
    return False
