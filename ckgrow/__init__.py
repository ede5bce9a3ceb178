"""ckgrow grows trained neural networks: a teacher's checkpoint and a growth spec in, a wider or
deeper student that computes the same function out, and proof of it.

The public names are imported when they are first used, so that ``import ckgrow`` is quick.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ckgrow import version

if TYPE_CHECKING:
    from ckgrow.batches import batch
    from ckgrow.fitting import load_into
    from ckgrow.public import apply, convert, export, inspect, plan, verify
    from ckgrow.spreading import Spread

__all__ = [
    "Spread",
    "__version__",
    "apply",
    "batch",
    "convert",
    "export",
    "inspect",
    "load_into",
    "plan",
    "verify",
]

__version__ = version.VERSION

_HOMES = {
    "Spread": "ckgrow.spreading",
    "apply": "ckgrow.public",
    "batch": "ckgrow.batches",
    "convert": "ckgrow.public",
    "export": "ckgrow.public",
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
