"""Places of files: paths of this machine, and URLs of elsewhere.

A place is what a user writes. ``s3://bucket/a.safetensors`` is not a path: made one it would lose
a slash, so places stay texts until it is known which of the two they are.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from urllib.parse import unquote_to_bytes

Place = str | Path

_SCHEME = re.compile(r"([a-z][a-z0-9+.-]+)://", re.IGNORECASE)
_HERE = re.compile(r"(?:file|local)://(?:localhost(?=/))?", re.IGNORECASE)


def is_remote(place: Place) -> bool:
    """Whether ``place`` is a URL; a path of this machine that looks like one begins with ``./``."""
    return isinstance(place, str) and bool(_SCHEME.match(place)) and not _HERE.match(place)


def local(place: Place) -> Path:
    """A place of this machine as a path; a ``file://`` URL may have characters written as %20."""
    if isinstance(place, str) and (scheme := _HERE.match(place)):
        return Path(os.fsdecode(unquote_to_bytes(os.fsencode(place[scheme.end() :]))))
    return Path(place)


def name_of(place: Place) -> str:
    """The last part of a place, without a URL's query."""
    if is_remote(place):
        return str(place).partition("?")[0].rstrip("/").rpartition("/")[2]
    return local(place).name


def beside(place: Place, name: str) -> Place:
    """The place called ``name`` in the folder of ``place``."""
    if is_remote(place):
        return f"{str(place).partition('?')[0].rpartition('/')[0]}/{name}"
    return local(place).with_name(name)


def inside(folder: Place, name: str) -> Place:
    """The place called ``name`` in a folder."""
    if is_remote(folder):
        return f"{str(folder).rstrip('/')}/{name}"
    return local(folder) / name
