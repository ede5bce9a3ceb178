"""ckgrow grows trained neural networks: a teacher's checkpoint and a growth spec in, a wider or
deeper student that computes the same function out, and proof of it.

The public names are imported when they are first used, so that ``import ckgrow`` is quick.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ckgrow import version

if TYPE_CHECKING:
    from ckgrow.fitting import load_into
    from ckgrow.public import apply, convert, inspect, plan, verify

__all__ = ["__version__", "apply", "convert", "inspect", "load_into", "plan", "verify"]

__version__ = version.VERSION

_HOMES = {
    "apply": "ckgrow.public",
    "convert": "ckgrow.public",
    "inspect": "ckgrow.public",
    "load_into": "ckgrow.fitting",
    "plan": "ckgrow.public",
    "verify": "ckgrow.public",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'ckgrow' has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(_HOMES[name]), name)
