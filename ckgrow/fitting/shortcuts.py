"""Layers that stand on a block's identity shortcut (``fold_grown1`` beside the block's others).

The shortcut is a line of the block's forward. Many blocks let it go through a module of their own,
if they have one: torchvision's ``downsample`` is None where nothing is to be done, other classes
have a ``shortcut`` without parameters. There the new layer takes its place, or runs behind it.
"""

from __future__ import annotations

from torch import nn

from ckgrow.drafts.shortcuts import is_fold
from ckgrow.errors import CheckpointError
from ckgrow.fitting.grown import GrownLayers
from ckgrow.fitting.making import LayerMaker
from ckgrow.fitting.paths import Paths
from ckgrow.loading import Loaded
from ckgrow.names import shown

SHORTCUTS = ("downsample", "shortcut")
"""What blocks call the module on their shortcut."""


def insert_on_shortcuts(module: nn.Module, student: Loaded) -> None:
    """Registers every layer of a shortcut beside its block's others, and lets the shortcut run
    through it.

    Raises CheckpointError where the block has no module on its shortcut.
    """
    maker = LayerMaker(student)
    modules = dict(module.named_modules())
    for node in Paths(student).grown():
        if not is_fold(node.name) or node.name in modules:
            continue
        path, _, name = node.name.rpartition(".")
        block, layer = modules.get(path), maker.make(node)
        attribute = next((each for each in SHORTCUTS if hasattr(block, each)), None)
        if block is None or attribute is None:
            raise CheckpointError(
                f"the student's layer {shown(node.name)} stands on a shortcut, and "
                f"{type(block or module).__name__} has no module there ({', '.join(SHORTCUTS)}) "
                f"that could be it; give the class a child {name} = nn.{layer}, through which "
                "the shortcut in its forward goes"
            )
        block.add_module(name, layer)
        before = getattr(block, attribute)
        if isinstance(before, nn.Module):
            before.register_forward_hook(GrownLayers((layer,)))
        else:  # not as a child, so that the layer has one name in the state dict
            block.__dict__[attribute] = layer
