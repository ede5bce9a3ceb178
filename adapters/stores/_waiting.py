"""Waits for libraries that talk to servers, so that an interrupt ends the waiting at once.

Such a library may be deep inside a request, in a loop of its own that no signal reaches. It is
called in a thread of its own, which is left alone when nobody wants its answer any more; it ends by
the library's own time limit, or with the process.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

from ckgrow.cancelling import require_wanted

from ._reasons import is_passing

Answer = TypeVar("Answer")

LIMIT = 120.0
"""Seconds that a request for a piece of a file may take, with everything tried anew."""

TRIES = 4
"""How often a request is made that fails for reasons that pass."""

_PAUSE = 0.3
"""Seconds before the second try; they double from try to try."""

_LOOK = 0.1
"""Seconds between two looks whether the answer is still wanted."""


def answered(ask: Callable[[], Answer], *, limit: float | None) -> Answer:
    """What ``ask`` returns or raises; TimeoutError when it takes longer than ``limit`` seconds.

    CancelledError when the run is given up meanwhile.
    """
    future: Future[Answer] = Future()

    def work() -> None:
        try:
            future.set_result(ask())
        except BaseException as failure:  # noqa: BLE001 - it is raised where it is waited for
            future.set_exception(failure)

    threading.Thread(target=work, name="ckgrow-request", daemon=True).start()
    end = None if limit is None else time.monotonic() + limit
    while True:
        require_wanted()
        try:
            return future.result(_LOOK)
        except TimeoutError:
            if future.done():  # the library's own
                raise
            if end is not None and time.monotonic() > end:
                raise TimeoutError(f"no answer within {limit:.0f} seconds") from None


def answered_at_last(ask: Callable[[], Answer], *, tries: int = TRIES) -> Answer:
    """The same, but what passes is tried again, all within ``LIMIT`` seconds."""
    end = time.monotonic() + LIMIT
    for number in range(1, tries + 1):
        try:
            return answered(ask, limit=end - time.monotonic())
        except Exception as failure:
            pause = _PAUSE * 2 ** (number - 1)
            if number == tries or not is_passing(failure) or time.monotonic() + pause > end:
                raise
        time.sleep(pause)
    raise ValueError(f"{tries} tries")
