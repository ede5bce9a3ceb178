"""Growth methods, one file each; a new file here is found by itself.

A method's module offers ``METHODS``: objects of the three kinds in ``ckgrow.methods.method``, one
kind for each thing that can grow (channels, a layer's place, a stage).
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterable
from functools import cache
from typing import TypeVar

from ckgrow.errors import SpecError
from ckgrow.methods.method import BlockMethod, LayerMethod, WidenMethod
from ckgrow.names import guess, quoted

__all__ = ["block_method", "layer_method", "widen_method"]

Method = WidenMethod | LayerMethod | BlockMethod
Kind = TypeVar("Kind", bound=Method)


@cache
def methods() -> tuple[Method, ...]:
    """Every method, by file name."""
    found: list[Method] = []
    for module in sorted(pkgutil.iter_modules(__path__), key=lambda entry: entry.name):
        found.extend(getattr(importlib.import_module(f"{__name__}.{module.name}"), "METHODS", ()))
    return tuple(found)


def widen_method(name: str, where: str) -> WidenMethod:
    """The method called ``name`` to widen by; SpecError at ``where`` when there is none."""
    return _named((m for m in methods() if isinstance(m, WidenMethod)), name, where)


def layer_method(name: str, where: str) -> LayerMethod | BlockMethod:
    """The method called ``name`` to deepen a layer by, a residual block's where no other has it.

    SpecError when there is none.
    """
    blocks: list[LayerMethod | BlockMethod] = [m for m in methods() if isinstance(m, BlockMethod)]
    return _named([*blocks, *(m for m in methods() if isinstance(m, LayerMethod))], name, where)


def block_method(name: str, where: str) -> BlockMethod:
    """The method called ``name`` to deepen a stage by; SpecError when there is none."""
    return _named((m for m in methods() if isinstance(m, BlockMethod)), name, where)


def _named(candidates: Iterable[Kind], name: str, where: str) -> Kind:
    """The last candidate of that name."""
    known = {method.name: method for method in candidates}
    if name in known:
        return known[name]
    verb = list(known.values())[-1].verb
    raise SpecError(
        f"{where}: no method {quoted(name)} to {verb} by, only {', '.join(known)}"
        f"{_elsewhere(name, verb) or guess(name, known)}"
    )


def _elsewhere(name: str, verb: str) -> str:
    """What a method of that name is for, if it is for something else than ``verb``."""
    others = [method.verb for method in methods() if method.name == name]
    if not others:
        return ""
    a_layer = verb == BlockMethod.verb and LayerMethod.verb in others
    return f"; it is a way to {others[0]}" + (": name one, or say 'layers'" if a_layer else "")
