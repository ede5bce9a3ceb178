"""How a worker that waits for something slow learns that its run is being given up.

A run sets an event when it stops. Whoever computes looks at it between two tiles; whoever waits for
a server, deep inside a file, asks here.
"""

from __future__ import annotations

import threading


class CancelledError(Exception):
    """Raised in workers once the run is being given up."""


_followed = threading.local()


def follow(stop: threading.Event) -> None:
    """What this thread does from now on is worth nothing once ``stop`` is set."""
    _followed.stop = stop


def require_wanted() -> None:
    """CancelledError when the run that this thread works for is being given up."""
    stop: threading.Event | None = getattr(_followed, "stop", None)
    if stop is not None and stop.is_set():
        raise CancelledError
