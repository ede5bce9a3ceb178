"""Folders of outputs, which templates name before there are any."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from ckgrow.places import is_remote


@contextlib.contextmanager
def folders_of(places: Iterable[str]) -> Iterator[None]:
    """Makes the folders that ``places`` are to be in; those that stay empty are removed again.

    Where one cannot be made nothing is said: whoever writes to it will.
    """
    wanted = {Path(place).parent for place in places if not is_remote(place)}
    made: list[Path] = []
    try:
        for folder in sorted(wanted):
            made += _made(folder)
        yield
    finally:
        for folder in reversed(made):
            with contextlib.suppress(OSError):
                os.rmdir(folder)


def _made(folder: Path) -> list[Path]:
    """The folder and those around it that were missing, outermost first."""
    missing = [each for each in (folder, *folder.parents) if not each.exists()]
    made = []
    for each in reversed(missing):
        try:
            each.mkdir(exist_ok=True)
        except OSError:
            break
        made.append(each)
    return made
