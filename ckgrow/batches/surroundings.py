"""What workers inherit from whoever starts them, for as long as a context is open."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from multiprocessing import resource_tracker


@contextmanager
def environment(values: Mapping[str, str]) -> Iterator[None]:
    """Environment variables."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


@contextmanager
def deaf(signals: Iterable[signal.Signals]) -> Iterator[None]:
    """Signals that this thread, and processes that it starts, do not hear.

    Ctrl-C in a terminal reaches every process of a command, and so does a signal to a process
    group. It is the batch that hears it and stops its workers in order.
    """
    resource_tracker.ensure_running()  # a process that, when it is started, opens our ears again
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def hear_again() -> None:
    """Puts handlers of this thread's signals back in the place of those of a library.

    Ray's, of which Python does not know, would end the process some seconds after SIGTERM.
    """
    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGINT, signal.SIGTERM):
            handler = signal.getsignal(number)
            if handler is not None:
                signal.signal(number, handler)
