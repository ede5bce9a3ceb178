"""Names that ckgrow gives: a module that stands beside its model is called ``<path>_grown1``.

Paths are looked at component by component: ``my_grown_layers.0`` is a name of somebody else's.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

_GROWN = re.compile(r"_grown\d+$")


def is_grown(path: str) -> bool:
    """Whether the last component of a path is a name that ckgrow gives."""
    return _GROWN.search(path) is not None


def in_grown(name: str) -> bool:
    """Whether a node, key or module is, or is inside, a module that ckgrow has named."""
    return any(map(is_grown, name.replace("/", ".").split(".")))


def ungrown(path: str) -> str:
    """The path of the module that one is named after; other paths as they are."""
    return _GROWN.sub("", path)


def free_name(path: str, taken: Iterable[str]) -> str:
    """``path_grown1``, or with the first number that nothing in ``taken`` uses."""
    start = f"{ungrown(path)}_grown"
    rests = (name[len(start) :] for name in taken if name.startswith(start))
    numbers = {rest.partition(".")[0].partition("/")[0] for rest in rests}
    number = 1
    while str(number) in numbers:
        number += 1
    return f"{start}{number}"
