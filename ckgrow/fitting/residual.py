"""Residual blocks that grew behind single layers: y = x + branch(x), as a module of its own.

In an ``nn.Sequential`` such a block is the next child. Elsewhere the stock forward computes the
activation in front of it in its own code, so nothing can be hung on the layer; but where a single
module reads the block's sum, the block runs on that module's input, in a forward pre-hook. That is
where the graph has it, whatever the code in between does.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from ckgrow.errors import CheckpointError
from ckgrow.fitting.making import LayerMaker, make_activation
from ckgrow.fitting.paths import SUM, Paths, joined, submodule
from ckgrow.graph import Node
from ckgrow.loading import Loaded
from ckgrow.names import first_few, shown
from ckgrow.naming import is_grown

BRANCH = "branch"


class Residual(nn.Module):
    """y = x + branch(x)."""

    def __init__(self, branch: nn.Sequential) -> None:
        super().__init__()
        self.branch = branch

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The sum."""
        made: torch.Tensor = x + self.branch(x)
        return made


@dataclass(eq=False)
class GrownBlocks:
    """A forward pre-hook that passes a module's input through blocks, which stand elsewhere."""

    blocks: tuple[nn.Module, ...]

    def __call__(self, module: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
        """What the module reads now."""
        x = inputs[0]
        for each in self.blocks:
            x = each(x)
        return (x, *inputs[1:])


def is_block(paths: Paths, path: str) -> bool:
    """Whether the student has a grown residual block at ``path``."""
    inside = paths.suffixes(path)
    only_a_branch = all(name.startswith(f"{BRANCH}.") for name in inside)
    return path + SUM in paths.nodes and bool(inside) and only_a_branch


def make_block(paths: Paths, path: str, maker: LayerMaker) -> Residual:
    """The block at ``path`` without its tensors."""
    branch = joined(path, BRANCH)
    graph = paths.student.network.graph
    made: list[nn.Module] = []
    for number in sorted(paths.numbers(branch)):
        child = joined(branch, str(number))
        if is_block(paths, child):
            made.append(make_block(paths, child, maker))
        elif paths.suffixes(child):
            made.append(maker.make(paths.nodes[child]))
        else:
            made.append(make_activation(paths.nodes[child], graph))
    return Residual(nn.Sequential(*made))


def insert_grown_blocks(module: nn.Module, student: Loaded) -> None:
    """Registers every block that is named beside a layer, and lets it run before its reader.

    Raises CheckpointError where the module's own code reads the sum.
    """
    paths, maker = Paths(student), LayerMaker(student)
    chain: list[nn.Module] = []
    for name in [each for each in paths.nodes if each.endswith(SUM)]:  # in the graph's order
        path = name.removesuffix(SUM)
        if not (is_grown(path) and is_block(paths, path)) or submodule(module, path) is not None:
            continue
        owner_path, _, own = path.rpartition(".")
        owner, readers = submodule(module, owner_path), _readers(paths, path)
        following = {_block_of(paths, each) for each in readers}
        reader = submodule(module, readers[0].name) if len(readers) == 1 else None
        goes_on = len(following) == 1 and following != {""}
        if owner is None or isinstance(owner, nn.Sequential | nn.ModuleList):
            raise CheckpointError(_refusal(path, "stands in a container that runs its children"))
        if reader is None and not goes_on:
            names = first_few([shown(each.name) for each in readers]) or "the output"
            raise CheckpointError(_refusal(path, f"is read by the module's own code ({names})"))
        block = make_block(paths, path, maker)
        owner.add_module(own, block)
        chain.append(block)
        if reader is not None and not goes_on:
            reader.register_forward_pre_hook(GrownBlocks(tuple(chain)))
            chain = []


def _readers(paths: Paths, path: str) -> list[Node]:
    value = paths.nodes[path + SUM].output
    graph = paths.student.network.graph
    if value in graph.outputs:
        return []
    return graph.consumers().get(value, [])


def _block_of(paths: Paths, node: Node) -> str:
    """The block beside a layer that a node belongs to, "" for any other node."""
    parts = node.name.removesuffix(SUM).split(".")
    ends = (number for number, part in enumerate(parts, start=1) if is_grown(part))
    path = ".".join(parts[: next(ends, 0)])
    return path if path and is_block(paths, path) else ""


def _refusal(path: str, why: str) -> str:
    return (
        f"the student's new residual block {shown(path)} {why}, where load_into cannot put it; "
        "add it to the module's own forward first: y = x + branch(x)"
    )
