"""What an insertion makes of a draft, whichever verb asks for it."""

from __future__ import annotations

from dataclasses import dataclass

from ckgrow.drafts.blocks import Block
from ckgrow.drafts.draft import Draft, Origin
from ckgrow.drafts.renaming import Shift
from ckgrow.drafts.splicing import inserted
from ckgrow.maps import ChannelMap
from ckgrow.methods.method import Filling, Preserves
from ckgrow.ops import rule


@dataclass(frozen=True)
class Extended:
    """The draft after an insertion, what it preserves, and what the user should know.

    ``added`` are the new modules; ``shifts`` made room for them, in this order. ``defect`` is what
    they change for want of representable values.
    """

    draft: Draft
    preserves: Preserves
    warnings: tuple[str, ...]
    added: tuple[str, ...]
    shifts: tuple[Shift, ...] = ()
    defect: float = 0.0

    def moved(self, name: str) -> str:
        """What a layer of the draft before is called now."""
        for shift in self.shifts:
            name = shift(name)
        return name


def with_block(draft: Draft, block: Block, filled: Filling, value: str) -> Draft:
    """The draft with a block between ``value`` and whatever reads it."""
    layers = [node for node in block.nodes if rule(node.op).makes_channels]
    origins = {
        node.name: Origin("", filled.maps.get(node.name, new_units(block.width(node))), "zero")
        for node in layers
    }
    return inserted(draft, value, block.nodes, filled.recipes, origins)


def new_units(width: int) -> ChannelMap:
    """Units that the teacher does not have."""
    return ChannelMap.with_fresh(0, width)
