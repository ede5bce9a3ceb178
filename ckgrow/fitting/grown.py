"""Grown layers outside of numbered containers: ``conv1_grown1`` beside ``conv1``.

The stock forward computes act(L(x)) with the activation in its code. The grown layer G stands
behind the activation and has one of its own: act(G(act(L(x)))). So L's output goes through
G(act(.)) in a forward hook, and the stock code applies the last activation. In a Sequential with
names for its children no hook is needed: act and G are put behind L.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from ckgrow.errors import CheckpointError
from ckgrow.fitting.making import LayerMaker, make_activation
from ckgrow.fitting.paths import Paths, joined
from ckgrow.graph import Node
from ckgrow.loading import Loaded
from ckgrow.names import shown


@dataclass(eq=False)
class GrownLayers:
    """A forward hook that passes a module's output through further modules.

    It refers to the modules themselves, which are registered beside the one it hangs on. So a
    deep copy or a pickle of the whole module keeps both together.
    """

    modules: tuple[nn.Module, ...]

    def __call__(self, module: nn.Module, inputs: Any, output: torch.Tensor) -> torch.Tensor:
        """The new output."""
        for each in self.modules:
            output = each(output)
        return output


def insert_grown_layers(module: nn.Module, student: Loaded) -> None:
    """Registers every grown layer under its name and lets it run behind the one it follows."""
    paths, maker = Paths(student), LayerMaker(student)
    present = {path for path, _ in module.named_modules()}
    runs: dict[str, list[nn.Module]] = {}  # behind each path, what follows its module
    ends: dict[str, str] = {}  # the path behind which a grown layer runs
    for node in paths.grown():
        if node.name in present:
            continue
        anchor, activations = _followed(node, paths)
        parent, _, name = node.name.rpartition(".")
        if parent not in present or anchor not in present | set(ends):
            raise CheckpointError(
                f"the student's grown layer {shown(node.name)} has no place in the module: it "
                f"follows {shown(anchor)}, which the module lacks"
            )
        layer = maker.make(node)
        ends[node.name] = anchor
        graph = student.network.graph
        runs[node.name] = [*(make_activation(each, graph) for each in activations), layer]
        _register(module.get_submodule(parent), name, anchor, parent, runs[node.name])


def _register(
    owner: nn.Module, name: str, anchor: str, parent: str, run: list[nn.Module]
) -> None:
    """Puts a layer (the last of ``run``) behind its anchor, with the activations before it."""
    *activations, layer = run
    if not isinstance(owner, nn.Sequential):
        owner.add_module(name, layer)
    _ = (activations, anchor, parent)
