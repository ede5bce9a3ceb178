"""Paths that grew beside layers, y = L(x) + path(x), and branches that grew beside others.

A path beside a layer runs in a forward hook of that layer, whose input it reads and whose output
it is added to. Around a block, and in a concatenation, the sum and the list of branches are lines
of the module's own forward, where nothing can be put.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from ckgrow.drafts.concatenations import needed
from ckgrow.drafts.renaming import is_inside
from ckgrow.errors import CheckpointError
from ckgrow.fitting.making import LayerMaker, make_activation
from ckgrow.fitting.paths import Paths, is_grown, joined
from ckgrow.graph import Node
from ckgrow.loading import Loaded
from ckgrow.names import shown

SUM = "/add"


@dataclass(eq=False)
class GrownPath:
    """A forward hook that adds what a path, which stands elsewhere, makes of the same input."""

    path: nn.Module

    def __call__(self, module: nn.Module, inputs: Any, output: torch.Tensor) -> torch.Tensor:
        """What the module makes now."""
        made: torch.Tensor = output + self.path(inputs[0])
        return made


def insert_grown_paths(module: nn.Module, student: Loaded) -> None:
    """Registers every path beside a layer under its own name, and lets it run with the layer.

    Raises CheckpointError for paths and branches that the module's own code would have to run.
    """
    paths, maker = Paths(student), LayerMaker(student)
    modules = dict(module.named_modules())
    producers = student.network.graph.producers()
    _refuse_branches(modules, paths)
    for name in [each for each in paths.nodes if each.endswith(SUM)]:
        path = name.removesuffix(SUM)
        first = paths.nodes.get(joined(path, "0"))
        if not is_grown(path) or first is None or path in modules:
            continue
        anchor = _anchor(paths.nodes[name], producers)
        owner_path, _, own = path.rpartition(".")
        owner, layer = modules.get(owner_path), modules.get(anchor.name) if anchor else None
        together = anchor is not None and anchor.inputs[0] == first.inputs[0]
        if owner is None or layer is None or not together:
            raise CheckpointError(_refusal(path, "is added in the module's own forward"))
        if isinstance(owner, nn.Sequential | nn.ModuleList):
            raise CheckpointError(_refusal(path, "stands in a container that runs its children"))
        added = _made(paths, path, maker)
        owner.add_module(own, added)
        layer.register_forward_hook(GrownPath(added))


def _anchor(total: Node, producers: dict[str, Node]) -> Node | None:
    """The node whose output a path is added to, seen through paths that were added before."""
    node = producers.get(total.inputs[0])
    while node is not None and node.name.endswith(SUM) and is_grown(node.name.removesuffix(SUM)):
        node = producers.get(node.inputs[0])
    return node


def _made(paths: Paths, path: str, maker: LayerMaker) -> nn.Sequential:
    graph = paths.student.network.graph
    children = (joined(path, str(number)) for number in sorted(paths.numbers(path)))
    return nn.Sequential(
        *(
            maker.make(paths.nodes[child])
            if paths.suffixes(child)
            else make_activation(paths.nodes[child], graph)
            for child in children
        )
    )


def _refuse_branches(modules: dict[str, nn.Module], paths: Paths) -> None:
    """CheckpointError for a new branch of a concatenation: it reads what other branches read."""
    graph = paths.student.network.graph
    producers = graph.producers()
    for concat in (node for node in graph.nodes if node.op == "Concat"):
        for position, value in enumerate(concat.inputs):
            path = _grown_module(producers.get(value))
            if not path or path in modules:
                continue
            first = next(node for node in graph.nodes if is_inside(node.name, path))
            others = (*concat.inputs[:position], *concat.inputs[position + 1 :])
            if any(first.inputs[0] in needed(graph, other) for other in others):
                raise CheckpointError(_refusal(path, "is concatenated in the module's own forward"))


def _grown_module(node: Node | None) -> str:
    """The grown module that a node stands in, "" for others."""
    parts = node.name.partition("/")[0].split(".") if node is not None else []
    ends = (end for end, part in enumerate(parts, start=1) if is_grown(part))
    return ".".join(parts[: next(ends, 0)])


def _refusal(path: str, why: str) -> str:
    return (
        f"the student's new path {shown(path)} {why}, where load_into cannot put it; add it to the "
        "module's own code first"
    )
