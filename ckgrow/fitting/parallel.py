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

from ckgrow.drafts.renaming import is_inside
from ckgrow.errors import CheckpointError
from ckgrow.fitting.making import LayerMaker, make_activation
from ckgrow.fitting.paths import SUM, Paths, joined, submodule
from ckgrow.graph import Node
from ckgrow.names import shown
from ckgrow.naming import is_grown


@dataclass(eq=False)
class GrownPath:
    """A forward hook that adds what a path, which stands elsewhere, makes of the same input."""

    path: nn.Module

    def __call__(self, module: nn.Module, inputs: Any, output: torch.Tensor) -> torch.Tensor:
        """What the module makes now."""
        made: torch.Tensor = output + self.path(inputs[0])
        return made


def make_path(paths: Paths, path: str, maker: LayerMaker) -> nn.Sequential:
    """The path at ``path`` without its tensors."""
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


def first_of_path(paths: Paths, total: Node) -> Node | None:
    """The first node of the path that a sum adds, None for other nodes."""
    path = total.name.removesuffix(SUM)
    added = total.name.endswith(SUM) and is_grown(path)
    return paths.nodes.get(joined(path, "0")) if added else None


def refuse_branches(module: nn.Module, paths: Paths) -> None:
    """CheckpointError for a new branch of a concatenation: it reads what other branches read."""
    graph = paths.student.network.graph
    producers = graph.producers()
    for concat in (node for node in graph.nodes if node.op == "Concat"):
        for position, value in enumerate(concat.inputs):
            path = _grown_module(producers.get(value))
            if not path or submodule(module, path) is not None:
                continue
            first = next(node for node in graph.nodes if is_inside(node.name, path))
            others = (*concat.inputs[:position], *concat.inputs[position + 1 :])
            if any(first.inputs[0] in graph.ancestors(other) for other in others):
                raise CheckpointError(
                    path_refusal(path, "is concatenated in the module's own forward")
                )


def _grown_module(node: Node | None) -> str:
    """The grown module that a node stands in, "" for others."""
    parts = node.name.partition("/")[0].split(".") if node is not None else []
    ends = (end for end, part in enumerate(parts, start=1) if is_grown(part))
    return ".".join(parts[: next(ends, 0)])


def path_refusal(path: str, why: str) -> str:
    """Why a path could not be put where the student has it."""
    return (
        f"the student's new path {shown(path)} {why}, where load_into cannot put it; add it to the "
        "module's own code first"
    )
