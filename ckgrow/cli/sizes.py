"""Sizes as people write them: 5GB, 512MiB, 1000000."""

from __future__ import annotations

import re

from ckgrow.errors import SpecError

_UNITS = {"": 1, "B": 1}
_UNITS |= {f"{letter}B": 1000**power for power, letter in enumerate("KMGT", 1)}
_UNITS |= {f"{letter}iB".upper(): 1024**power for power, letter in enumerate("KMGT", 1)}

_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([A-Za-z]*)")


def byte_count(option: str, text: str | None) -> int | None:
    """The number of bytes that the value of ``option`` says; None where it is not given."""
    if text is None:
        return None
    match = _SIZE.fullmatch(text.strip())
    if match is None or match[2].upper() not in _UNITS or len(match[1]) > 15:
        raise SpecError(f"{option} {text!r}: write a size such as 5GB, 512MiB or 1000000")
    return int(float(match[1]) * _UNITS[match[2].upper()])
