"""What writers have in common: rows still to come, and texts that are known only at the end."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping

from ckgrow.header import Header


class Missing:
    """How many bytes of tensors are still to be written, counted from several threads at once."""

    def __init__(self, header: Header) -> None:
        self._count = sum(spec.nbytes for spec in header.values())
        self._lock = threading.Lock()

    def wrote(self, size: int) -> None:
        """``size`` bytes of them are written."""
        with self._lock:
            self._count -= size

    def require_none(self) -> None:
        """Raises ValueError unless all of them were written once."""
        if self._count:
            raise ValueError(f"{self._count} bytes of tensors were not written, or some twice")


def replaced(metadata: Mapping[str, str], replacements: Mapping[str, str]) -> dict[str, str]:
    """The entries with each placeholder replaced, as a writer's ``finish`` is told to.

    Raises ValueError unless a placeholder stands exactly once in them, and is as long as its text.
    """
    texts = dict(metadata)
    for placeholder, text in replacements.items():
        places = [name for name, value in texts.items() for _ in range(value.count(placeholder))]
        _require_once(len(places), placeholder, text)
        texts[places[0]] = texts[places[0]].replace(placeholder, text)
    return texts


def rewritten(start: bytes, replacements: Mapping[str, str]) -> Iterator[tuple[int, bytes]]:
    """What replaces each placeholder in ``start``, the first bytes of a file: offset and text.

    Raises ValueError as :func:`replaced` does.
    """
    for placeholder, text in replacements.items():
        before, after = placeholder.encode(), text.encode()
        _require_once(start.count(before), placeholder, text)
        yield start.index(before), after


def _require_once(count: int, placeholder: str, text: str) -> None:
    if count != 1 or len(placeholder.encode()) != len(text.encode()):
        raise ValueError(f"{placeholder!r} cannot be replaced by {text!r}")
