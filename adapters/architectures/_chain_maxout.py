"""Maxout in a chain of Linear layers: each passes on the largest of every k neighbouring outputs.

Only shapes tell of it: a layer reads a kth of what the one before it makes. That is enough for a
checkpoint to be a chain, but not to build one, which waits for the option ``activation``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

from ckgrow.errors import SpecError
from ckgrow.names import shown

from ._activation import OPTION, stated_pieces
from ._chain import Chain
from ._chain_emission import NORM, ORDER
from ._chain_modules import Layer
from ._chain_order import Ordering, in_natural_order
from ._options import Options


def with_pieces(options: Options, layers: Sequence[Layer]) -> list[Layer]:
    """The layers with the pieces of their maxout units, where a spec states any.

    One activation for all is that of all layers but the last: of those that ``order`` lists, or
    else by name. Raises SpecError for a layer whose outputs are no whole units.
    """
    names = options.value(ORDER.name)
    if not isinstance(names, list | tuple):  # none stated, or not as it should be
        names = [layer.name for layer in in_natural_order(layers)]
    pieces = stated_pieces(options, [str(name) for name in names[:-1]])
    found = [replace(layer, pieces=pieces.get(layer.name, 1)) for layer in layers]
    for layer in found:
        if layer.outputs % layer.pieces:
            raise SpecError(
                f"option {OPTION!r}: {shown(layer.name)} makes {layer.outputs} channels, which "
                f"are no whole number of maxout units of {layer.pieces}"
            )
    return found


def as_if_maxout(layers: Sequence[Layer]) -> Ordering | None:
    """The layers by name, if maxout units of one size behind some of them make a chain."""
    natural = in_natural_order(layers)
    found: list[Layer] = []
    for layer, after in pairwise(natural):
        pieces, rest = divmod(layer.outputs, after.inputs)
        if rest or not pieces:
            return None
        found.append(replace(layer, pieces=pieces))
    sizes = {layer.pieces for layer in found} - {1}
    return Ordering((*found, natural[-1]), "default") if len(sizes) == 1 else None


def unstated(layers: Sequence[Layer]) -> SpecError:
    """What to state for layers that maxout would make a chain."""
    before, after = next((a, b) for a, b in pairwise(layers) if a.pieces > 1)
    return SpecError(
        f"{shown(after.name)} reads {after.inputs} of the {before.outputs} channels that "
        f"{shown(before.name)} makes; if maxout units stand between them, state it under "
        f"'teacher: options:' ({OPTION}: {{maxout: {before.pieces}}})"
    )


def misstated(problem: str) -> SpecError:
    """The stated maxout makes no chain of the layers."""
    return SpecError(
        f"option {OPTION!r}: with maxout units of that size, {problem}; where only some layers "
        "have such units, write a mapping from every layer with an activation to its own"
    )


def check_norms(chain: Chain, *, norm_first: bool) -> None:
    """SpecError for a BatchNorm behind maxout units, whose number its tensors do not have."""
    for step in chain.steps[:-1]:
        layer, behind = step.layer, bool(step.between) or not norm_first
        if layer.pieces > 1 and step.norm is not None and behind:
            raise SpecError(
                f"{shown(step.norm.name)} has {step.norm.channels} channels, but stands behind "
                f"the {layer.passed} maxout units of {shown(layer.name)}; "
                f"state {NORM.name}: before, or another activation"
            )
