"""Which files a glob of a manifest means, here and elsewhere."""

from __future__ import annotations

import fnmatch
import glob
import os

from ckgrow.errors import SpecError
from ckgrow.names import natural_key, quoted, without_secrets
from ckgrow.places import inside, is_remote
from ckgrow.registry import store

_MAGIC = frozenset("*?[")


def is_glob(place: str) -> bool:
    """Whether a place has a character in it that makes it a glob.

    A URL with a query is none, and neither its host nor its password count.
    """
    if is_remote(place):
        path = place.partition("://")[2].partition("/")[2]
        return "?" not in path and bool(_MAGIC & set(path))
    return bool(_MAGIC & set(place))


def files_of(place: str, folder: str, what: str) -> tuple[str, ...]:
    """The place itself, or the places that it matches if it is a glob, sorted as people count.

    Relative ones are relative to ``folder``, and stay so. ``*``, ``?`` and ``[ab]`` stand for
    parts of one name, ``**`` for any folders; of a URL only the last name may be a glob. What
    exists under exactly this name is that. ``what`` begins the message of the SpecError for a glob
    that matches nothing.
    """
    if not is_glob(place):
        return (place,)
    if is_remote(place):
        found = _elsewhere(place, what)
    elif os.path.exists(os.path.join(folder, place)):
        return (place,)
    else:
        matching = glob.glob(place, root_dir=folder, recursive=True)
        # Python lets "missing/**" match "missing/", and a link that leads nowhere
        found = [each for each in matching if os.path.exists(os.path.join(folder, each))]
    if not found:
        raise SpecError(
            f"{what} {quoted(without_secrets(place))} matches nothing; relative ones start at the "
            "manifest's folder"
        )
    return tuple(sorted(found, key=natural_key))


def matches(place: str, pattern: str) -> bool:
    """Whether an absolute path would be found by a glob that is absolute too."""
    return _matches(place.split("/"), pattern.split("/"))


def _matches(parts: list[str], patterns: list[str]) -> bool:
    if not patterns or not parts:
        return parts == patterns
    if patterns[0] == "**":
        rests = (parts[skipped:] for skipped in range(len(parts)))
        return any(_matches(rest, patterns[1:]) for rest in rests)
    hidden = parts[0].startswith(".") and not patterns[0].startswith(".")
    fits = not hidden and fnmatch.fnmatchcase(parts[0], patterns[0])
    return fits and _matches(parts[1:], patterns[1:])


def _elsewhere(url: str, what: str) -> list[str]:
    folder, _, pattern = url.rpartition("/")
    if is_glob(folder):
        raise SpecError(
            f"{what} {quoted(without_secrets(url))}: of a URL only the last name can be a glob; "
            "name the folder, or list the files"
        )
    names = store().listing(f"{folder}/") or ()
    return [
        str(inside(folder, name))
        for name in names
        if fnmatch.fnmatchcase(name, pattern) and not name.startswith(".")
    ]
