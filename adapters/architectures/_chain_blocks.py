"""Signs that a network is no plain chain, although its shapes would allow one.

A sum leaves no keys: a residual block whose shortcut is the identity looks like the layers inside
it. Taking it for a chain would give a student of another function, and both files would agree
under the same wrong guess. So names that are given to branches, and numbered blocks that could
carry a shortcut, are left to other architectures.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from itertools import pairwise

from ckgrow.names import shown

from ._chain import DEEPEST
from ._chain_modules import Layer

BRANCHED = re.compile(
    r"(^|[._])(downsample|shortcut|skip|res(idual|block|net|[\d._])|branch|inception|aux)"
    r"|layer\d+\.\d+\.(conv|bn)\d",
    re.IGNORECASE,
)


def branched(name: str) -> bool:
    """Whether a key's name says that it belongs to a branch."""
    return BRANCHED.search(name) is not None


def shortcut_problem(layers: Sequence[Layer]) -> str:
    """Names the first block of ``layers`` (in order) around which a sum could go; "" if none.

    That is a module with a number for a name (one of several alike) that holds two layers or
    more and makes as many channels as it reads. A number whose layers are numbered too is an
    ``nn.Sequential`` inside another, which has no forward of its own.
    """
    blocks: dict[str, list[Layer]] = {}
    arriving: dict[str, int] = {}
    for before, layer in pairwise((layers[0], *layers)):
        for block in _blocks(layer.name):
            blocks.setdefault(block, []).append(layer)
            arriving.setdefault(block, layer.inputs if layer is layers[0] else before.passed)
    for block, inside in blocks.items():
        plain = all(layer.name.rpartition(".")[0] == block for layer in inside)
        plain = plain and all(layer.name.rpartition(".")[2].isdigit() for layer in inside)
        if len(inside) > 1 and not plain and inside[-1].passed == arriving[block]:
            return (
                f"{shown(block)} holds {len(inside)} layers and makes as many channels as it "
                f"reads ({arriving[block]}): it may be a residual block, and keys cannot tell "
                "that it is not"
            )
    return ""


def _blocks(name: str) -> Iterator[str]:
    """The modules around ``name`` whose own name is a number."""
    parts = name.split(".", DEEPEST)
    for depth, part in enumerate(parts[:-1], start=1):
        if part.isdigit():
            yield ".".join(parts[:depth])
