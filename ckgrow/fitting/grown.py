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
from ckgrow.fitting.making import LayerMaker, is_activation, make_activation
from ckgrow.fitting.paths import Paths
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
        """What the module makes now."""
        for each in self.modules:
            output = each(output)
        return output


def insert_grown_layers(module: nn.Module, student: Loaded) -> None:
    """Registers every grown layer under its own name and lets it run behind the one it follows."""
    paths, maker = Paths(student), LayerMaker(student)
    graph = student.network.graph
    producers = graph.producers()
    for node in paths.grown():  # in the order of the graph: one may follow another
        if _has(module, node.name):
            continue
        anchor, between = _followed(node, producers)
        owner_path, _, name = node.name.rpartition(".")
        if anchor is None or not _has(module, anchor.name) or not _has(module, owner_path):
            raise CheckpointError(
                f"the student's grown layer {shown(node.name)} has no place in the module, which "
                f"lacks {shown(anchor.name if anchor else owner_path)}; give load_into a module "
                "of the teacher's class"
            )
        activations = [make_activation(each, graph) for each in between]
        owner, layer = module.get_submodule(owner_path), maker.make(node)
        if isinstance(owner, nn.Sequential):
            _put_behind(owner, anchor.name.rpartition(".")[2], name, activations, layer)
        else:
            owner.add_module(name, layer)
            behind = GrownLayers((*activations, layer))
            module.get_submodule(anchor.name).register_forward_hook(behind)


def _has(module: nn.Module, path: str) -> bool:
    try:
        module.get_submodule(path)
    except AttributeError:
        return False
    return True


def _followed(node: Node, producers: dict[str, Node]) -> tuple[Node | None, list[Node]]:
    """The layer whose output a grown one reads, and the activations between them in order."""
    between: list[Node] = []
    before = producers.get(node.inputs[0])
    while before is not None and is_activation(before):
        between.insert(0, before)
        before = producers.get(before.inputs[0])
    return before, between


def _put_behind(
    owner: nn.Sequential, anchor: str, name: str, activations: list[nn.Module], layer: nn.Module
) -> None:
    """Children of a Sequential run in their order, so the new ones go right behind the anchor."""
    children: dict[str, nn.Module] = {}
    for each, child in owner._modules.items():
        children[each] = child
        if each == anchor:
            for number, activation in enumerate(activations):
                children[f"{name}_activation{number or ''}"] = activation
            children[name] = layer
    owner._modules.clear()
    owner._modules.update(children)
