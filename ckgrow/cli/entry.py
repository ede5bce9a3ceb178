"""The installed command: hears Ctrl-C and SIGTERM from its first moment on.

What the commands import takes a few tenths of a second, before any of them could hear a signal.
"""

from __future__ import annotations

import signal
import sys
from types import FrameType
from typing import NoReturn

_CODES = {signal.SIGINT: 130, signal.SIGTERM: 143}


def run() -> None:
    """Runs ``ckgrow``; a signal that comes before a command has begun ends it quietly."""
    for number in _CODES:
        signal.signal(number, _end)
    from ckgrow.cli.main import run as run_command

    run_command()


def _end(number: int, _: FrameType | None) -> NoReturn:
    sys.exit(_CODES[signal.Signals(number)])
