"""Asks file systems of fsspec, which all answer a little differently."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from ._reasons import is_bucket_missing, is_missing, told
from ._waiting import TRIES, answered_at_last

Answer = TypeVar("Answer")

_WEB = {"http", "https"}


def asked(system: Any, place: str, doing: str, ask: Callable[[], Answer]) -> Answer:
    """What a file system answers, asked again where that may help and it does not do so itself.

    FileNotFoundError where it has no such file; everything else becomes a FileError, which says
    that ``place`` cannot be ``doing`` (opened, read).
    """

    def plainly() -> Answer:
        try:
            return ask()
        except FileNotFoundError as failure:
            # For the web this stands for whatever went wrong, which is behind it.
            if is_web(system) and isinstance(failure.__cause__, Exception):
                raise failure.__cause__ from None
            raise

    tries = 1 if getattr(system, "retries", 0) else TRIES
    with told(place, doing):
        try:
            return answered_at_last(plainly, tries=tries)
        except Exception as failure:
            if not is_missing(failure) or is_bucket_missing(failure):
                raise
    raise FileNotFoundError(place)


def is_web(system: Any) -> bool:
    """Whether a file system is any web server, of which little is known."""
    return bool(_WEB & schemes(system))


def schemes(system: Any) -> set[str]:
    """What URLs of a file system begin with."""
    return {system.protocol} if isinstance(system.protocol, str) else set(system.protocol)


class Ranges:
    """The file ``key``, of ``size`` bytes, by ranges."""

    def __init__(self, system: Any, key: str, size: int) -> None:
        self._system = system
        self._key = key
        self._size = size

    def fetch(self, start: int, stop: int) -> bytes:
        """Bytes ``start`` to ``stop``, as far as the server sends them; its library's errors."""
        data: bytes
        if is_web(self._system):
            return self._from_the_web(start, stop)
        if self._system.async_impl:
            data = self._system.cat_file(self._key, start=start, end=stop)
            return data
        with self._system.open(self._key, "rb", cache_type="none") as stream:
            stream.seek(start)
            data = stream.read(stop - start)
        return data

    def _from_the_web(self, start: int, stop: int) -> bytes:
        """A server may answer with the whole file, of which no more than was asked for is read."""
        from fsspec.asyn import sync

        file = self._system.open(self._key, "rb", size=self._size, cache_type="none")
        try:
            data: bytes = sync(self._system.loop, file.async_fetch_range, start, stop)
        except ValueError:
            text = "the server does not send parts of files; fetch it and name the copy"
            raise NotImplementedError(text) from None
        return data
