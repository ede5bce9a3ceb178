"""Finds adapters: every public module of ``ckgrow.adapters`` and third-party entry points.

A built-in adapter is a module with a module-level ``ADAPTER``; a plug-in is an entry point in
``ckgrow.architectures`` or ``ckgrow.formats`` that names such an object. A plug-in that fails to
import is a warning, never an error.
"""

from __future__ import annotations

import importlib
import pkgutil
import warnings
from functools import cache
from importlib.metadata import entry_points
from types import ModuleType
from typing import Any, cast

from ckgrow.architecture import Architecture
from ckgrow.checkpoint import Format
from ckgrow.errors import FileError
from ckgrow.store import Store

ADAPTERS = "ckgrow.adapters"


@cache
def architectures() -> dict[str, Architecture]:
    """Architecture adapters by name, built-in ones first."""
    return cast("dict[str, Architecture]", _adapters("architectures"))


@cache
def formats() -> dict[str, Format]:
    """Format adapters by name, built-in ones first."""
    return cast("dict[str, Format]", _adapters("formats"))


def format_named(name: str) -> Format | None:
    """The format that the longest suffix of a file's name says; None where none does."""
    lower = name.lower()
    fitting = [
        (len(suffix), each)
        for each in formats().values()
        for suffix in each.suffixes
        if lower.endswith(suffix)
    ]
    return max(fitting, key=lambda pair: pair[0])[1] if fitting else None


@cache
def store() -> Store:
    """What reaches URLs; FileError where the libraries that it needs are not installed."""
    found = cast("dict[str, Store]", _adapters("stores"))
    if not found:
        raise FileError("no store is installed that could reach a URL; name a local file")
    return next(iter(found.values()))


@cache
def runtime(name: str) -> ModuleType:
    """The runtime module called ``name`` (``onnxruntime`` or ``torch_float64``)."""
    return importlib.import_module(f"{ADAPTERS}.runtimes.{name}")


def _adapters(kind: str) -> dict[str, Any]:
    package = importlib.import_module(f"{ADAPTERS}.{kind}")
    found: dict[str, Any] = {}
    for module in sorted(pkgutil.iter_modules(package.__path__), key=lambda entry: entry.name):
        if not module.name.startswith("_"):
            adapter = importlib.import_module(f"{package.__name__}.{module.name}").ADAPTER
            found[adapter.name] = adapter
    for point in sorted(entry_points(group=f"ckgrow.{kind}"), key=lambda point: point.name):
        try:
            adapter = point.load()
            found.setdefault(adapter.name, adapter)
        except Exception as failure:  # noqa: BLE001 - a broken plug-in must not stop ckgrow
            message = f"plug-in {point.name!r} ({point.value}) was skipped: {failure}"
            warnings.warn(message, RuntimeWarning, stacklevel=2)
    return found
