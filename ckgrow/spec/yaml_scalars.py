"""What a bare word of a YAML file is: YAML 1.2's core schema, without infinity and NaN."""

from __future__ import annotations

import math
import re
from collections.abc import Callable

from ckgrow.names import shown

NUMBER_LENGTH = 100
"""Longest number, in characters."""

_NAMED = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL"), None),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
}
_NUMBERS: tuple[tuple[Callable[[str], int | float], re.Pattern[str]], ...] = (
    (int, re.compile(r"[-+]?[0-9]+")),
    (lambda text: int(text, 0), re.compile(r"0o[0-7]+|0x[0-9a-fA-F]+")),
    (float, re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")),
    (lambda _: math.nan, re.compile(r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")),
)


def scalar(text: str) -> str | int | float | bool | None:
    """The value of a bare word: ``1e-3`` is a number, ``010`` is ten, ``no`` and ``1:30`` are text.

    Raises ValueError, with the fix in its message, for a number that is not finite or is longer
    than :data:`NUMBER_LENGTH`.
    """
    if text in _NAMED:
        return _NAMED[text]
    read = next((read for read, form in _NUMBERS if form.fullmatch(text)), None)
    if read is None:
        return text
    if len(text) > NUMBER_LENGTH:
        raise ValueError(f"{shown(text)} is too long for a number; round it, or quote it")
    number = read(text)
    if not math.isfinite(number):
        raise ValueError(f"{shown(text)} is not a finite number; give one, or quote it")
    return number
