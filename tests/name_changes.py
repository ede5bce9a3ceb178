"""Interferes with the system calls by which files get their names, while files are published."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from commands import listing

from ckgrow.publishing import PartFile

OLD = {"main": b"old main", "a": b"old a", "b": b"old b"}
NEW = {"main": b"new main", "a": b"new a", "c": b"new c"}
NEIGHBOURS = {"other": b"other", ".main~x.ckgrow-part": b"another's part"}
CALLS = ("link", "replace", "rename", "unlink", "fsync", "open", "lstat")


class Killed(BaseException):
    """Stands for the end of the process: nothing after it has an effect."""


@contextmanager
def struck(
    number: int, deed: Callable[[str], None], calls: tuple[str, ...] = CALLS
) -> Iterator[list[str]]:
    """``deed`` is done before the n-th call of the system and each after it; yields the calls."""
    made: list[str] = []

    def counted(name: str, whole: Callable[..., object]) -> Callable[..., object]:
        def call(*arguments: object, **settings: object) -> object:
            made.append(name)
            if len(made) >= number > 0:
                deed(name)
            return whole(*arguments, **settings)

        return call

    with pytest.MonkeyPatch.context() as patch:
        for name in CALLS:
            patch.setattr(os, name, counted(name, getattr(os, name)))
        yield made


def failing(code: int, *, once: bool) -> Callable[[str], None]:
    """A deed that fails with the error ``code``, at the first call only or at all."""
    left = [1] if once else [1] * 1000

    def deed(name: str) -> None:
        if left:
            left.pop()
            raise OSError(code, os.strerror(code))

    return deed


def killing(name: str) -> None:
    """A deed that kills, again and again, so that no cleaning comes to anything."""
    raise Killed


def furnish(folder: Path, files: dict[str, bytes]) -> None:
    """``files`` and their neighbours, and nothing else."""
    for name in listing(folder):
        (folder / name).unlink()
    for name, data in {**files, **NEIGHBOURS}.items():
        (folder / name).write_bytes(data)


def prepare(part: PartFile) -> None:
    """The new files are written, and ``b`` of the old ones is to go."""
    part.path.write_bytes(NEW["main"])
    for name in NEW.keys() - {"main"}:
        part.companion(name).write_bytes(NEW[name])
    part.outdate("b")


def present(folder: Path) -> dict[str, bytes | None]:
    """All files, hidden ones too, but the neighbours, who are as they were."""
    files = listing(folder)
    for name, data in NEIGHBOURS.items():
        assert files.pop(name) == data
    return files


def visible(folder: Path) -> dict[str, bytes | None]:
    """What a reader sees."""
    return {name: data for name, data in present(folder).items() if not name.startswith(".")}
