"""Grown layers and paths outside of numbered containers: ``conv1_grown1`` beside ``conv1``.

The stock forward computes act(L(x)) with the activation in its code. The grown layer G stands
behind the activation and has one of its own: act(G(act(L(x)))). So L's output goes through
G(act(.)) in a forward hook, and the stock code applies the last activation. In a Sequential with
names for its children no hook is needed: act and G are put behind L. A residual block between L
and G runs in the same hook. A path is added to L's output in a hook of its own.

Hooks of one layer run in the order in which the student's graph has what they do: for
G(L(x) + path(x)) the path's comes first, for G(L(x)) + path(x) G's.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from ckgrow.errors import CheckpointError
from ckgrow.fitting.making import LayerMaker, is_activation, make_activation
from ckgrow.fitting.parallel import (
    GrownPath,
    first_of_path,
    make_path,
    path_refusal,
    refuse_branches,
)
from ckgrow.fitting.paths import SUM, Paths, submodule
from ckgrow.fitting.residual import is_block, make_block
from ckgrow.graph import Node
from ckgrow.loading import Loaded
from ckgrow.names import shown
from ckgrow.naming import is_grown


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
    """Registers every grown layer and path under its own name and lets it run where it stands.

    Raises CheckpointError for those that the module's own code would have to run.
    """
    paths = Paths(student)
    refuse_branches(module, paths)
    hanging = _Hanging(module, paths, LayerMaker(student))
    layers = {node.name for node in paths.grown()}
    for node in paths.nodes.values():  # in the order of the graph: one may follow another
        first = first_of_path(paths, node)
        if first is not None:
            hanging.add_path(node, first)
        elif node.name in layers:
            hanging.add_layer(node)


class _Hanging:
    """A module beside the student's graph, and what hangs on which of its layers so far."""

    def __init__(self, module: nn.Module, paths: Paths, maker: LayerMaker) -> None:
        self._module = module
        self._paths = paths
        self._maker = maker
        self._producers = paths.student.network.graph.producers()
        self._hosts: dict[str, Node] = {}  # whose hooks compute a node, by the node's name

    def add_layer(self, node: Node) -> None:
        """Lets a layer run behind the one it follows, with all that stands between them."""
        before, between = self._followed(node)
        anchor = self._hosts.get(before.name, before) if before is not None else None
        layer = submodule(self._module, anchor.name) if anchor is not None else None
        there = submodule(self._module, node.name)
        if there is not None:
            if anchor is not None and layer is not None and _runs_in_hook(there, layer):
                self._hosts[node.name] = anchor
            return
        owner_path, _, name = node.name.rpartition(".")
        owner = submodule(self._module, owner_path)
        if owner is None or anchor is None or layer is None:
            lacking = anchor.name if owner is not None and anchor is not None else owner_path
            raise CheckpointError(
                f"the student's grown layer {shown(node.name)} has no place in the module: what "
                f"it stands beside, {shown(lacking)}, is no module of it; give load_into a module "
                "of the teacher's class, or add the layer to its own forward first"
            )
        made = self._made(between, name) | {name: self._maker.make(node)}
        if isinstance(owner, nn.Sequential):
            _put_behind(owner, anchor.name.rpartition(".")[2], made)
            return
        for own, each in made.items():
            if each.state_dict():
                owner.add_module(own, each)
        _hang(layer, GrownLayers(tuple(made.values())), first=before is anchor)
        self._hosts |= {each.name: anchor for each in (*between, node)}

    def add_path(self, total: Node, first: Node) -> None:
        """Lets a path run with the layer that reads the same value."""
        path = total.name.removesuffix(SUM)
        before = anchor = self._producers.get(total.inputs[0])
        while anchor is not None and anchor.inputs[0] != first.inputs[0]:
            anchor = self._hosts.get(anchor.name)
        if submodule(self._module, path) is not None:
            if anchor is not None:
                self._hosts[total.name] = anchor
            return
        owner_path, _, name = path.rpartition(".")
        owner = submodule(self._module, owner_path)
        layer = submodule(self._module, anchor.name) if anchor is not None else None
        if owner is None or anchor is None or layer is None:
            raise CheckpointError(path_refusal(path, "is added in the module's own forward"))
        if isinstance(owner, nn.Sequential | nn.ModuleList):
            raise CheckpointError(
                path_refusal(path, "stands in a container that runs its children")
            )
        made = make_path(self._paths, path, self._maker)
        owner.add_module(name, made)
        _hang(layer, GrownPath(made), first=before is anchor)
        self._hosts[total.name] = anchor

    def _followed(self, node: Node) -> tuple[Node | None, list[Node]]:
        """What a grown layer follows, and the activations and new blocks between, in order."""
        between: list[Node] = []
        before = self._producers.get(node.inputs[0])
        while before is not None and (is_activation(before) or self._is_new_block(before)):
            between.insert(0, before)
            before = self._producers.get(before.inputs[0])
        return before, between

    def _is_new_block(self, node: Node) -> bool:
        path = _block_path(self._paths, node)
        return bool(path) and submodule(self._module, path) is None

    def _made(self, between: list[Node], name: str) -> dict[str, nn.Module]:
        """Modules by the names that they have beside a layer called ``name``."""
        made: dict[str, nn.Module] = {}
        for number, each in enumerate(between):
            path = _block_path(self._paths, each)
            if path:
                made[path.rpartition(".")[2]] = make_block(self._paths, path, self._maker)
            else:
                graph = self._paths.student.network.graph
                made[f"{name}_activation{number or ''}"] = make_activation(each, graph)
        return made


def _block_path(paths: Paths, node: Node) -> str:
    """The path of the grown residual block whose sum a node is, "" for others."""
    path = node.name.removesuffix(SUM)
    return path if path != node.name and is_grown(path) and is_block(paths, path) else ""


def _runs_in_hook(made: nn.Module, layer: nn.Module) -> bool:
    """Whether a module runs in a hook of ``layer`` since an earlier student was put there."""
    hooks = layer._forward_hooks.values()
    return any(isinstance(each, GrownLayers) and made in each.modules for each in hooks)


def _hang(layer: nn.Module, hook: GrownLayers | GrownPath, *, first: bool) -> None:
    """Registers a hook; with ``first``, in front of those of students that came before."""
    grown = any(isinstance(each, GrownLayers | GrownPath) for each in layer._forward_hooks.values())
    layer.register_forward_hook(hook, prepend=first and grown)


def _put_behind(owner: nn.Sequential, anchor: str, made: dict[str, nn.Module]) -> None:
    """Children of a Sequential run in their order, so the new ones go right behind the anchor."""
    children: dict[str, nn.Module] = {}
    for each, child in owner._modules.items():
        children[each] = child
        if each == anchor:
            children |= made
    owner._modules.clear()
    owner._modules.update(children)
