"""Which layer of a network becomes which layer of a published one, and what has to be added.

Layers of networks with stages correspond by name: what the target has more of are whole blocks at
the ends of stages. In a plain chain, names count modules and change with every insertion; there
layers correspond by their place in a *run*, the layers between two pools (or what else is neither
a layer, a BatchNorm nor an activation). What a run lacks stands at its end, before the pool.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from ckgrow.architecture import Stage
from ckgrow.drafts.draft import Draft
from ckgrow.drafts.renaming import is_inside
from ckgrow.graph import Graph
from ckgrow.names import first_few, shown
from ckgrow.ops import rule

Stages = tuple[Stage, ...]


@dataclass(frozen=True)
class Addition:
    """``count`` more blocks in the stage, or layers behind the layer, called ``name``."""

    name: str
    kind: Literal["blocks", "layers"]
    count: int

    def __str__(self) -> str:
        what = self.kind if self.count > 1 else self.kind.removesuffix("s")
        return f"{shown(self.name)} by {self.count} {what}"


@dataclass(frozen=True)
class Correspondence:
    """``layers`` leads from a network's own layers to the target's.

    ``additions`` are in the network's order, ``new`` what they are called in the target.
    ``obstacles`` say why the two do not correspond; nothing else counts when there are any.
    """

    layers: Mapping[str, str]
    additions: tuple[Addition, ...] = ()
    new: tuple[str, ...] = ()
    obstacles: tuple[str, ...] = ()


def correspond(own: Draft, own_stages: Stages, target: Draft, stages: Stages) -> Correspondence:
    """How ``own`` would become ``target``, widths aside."""
    if own_stages or stages:
        return _by_stages(own, own_stages, target, stages)
    same_names = own.grouping.layers.keys() == target.grouping.layers.keys()
    if not same_names and _is_chain(own.graph) and _is_chain(target.graph):
        return _by_runs(own, target)
    return _by_names(own.grouping.layers, target.grouping.layers)


def _by_stages(own: Draft, own_stages: Stages, target: Draft, stages: Stages) -> Correspondence:
    before = {stage.name: stage.blocks for stage in own_stages}
    after = {stage.name: stage.blocks for stage in stages}
    if before.keys() != after.keys():
        return _refused(f"this network has the stages {listed(before)}, the target {listed(after)}")
    more = {name: len(after[name]) - len(before[name]) for name in before}
    shorter = tuple(
        f"{name} has {len(before[name])} blocks, the target {len(after[name])}"
        for name in before
        if more[name] < 0
    )
    if shorter:
        return _refused(*shorter)
    new = tuple(block for name in after for block in after[name][len(before[name]) :])
    kept = [
        layer
        for layer in target.grouping.layers
        if not any(is_inside(layer, block) for block in new)
    ]
    found = _by_names(own.grouping.layers, kept)
    additions = tuple(Addition(name, "blocks", count) for name, count in more.items() if count)
    return Correspondence(found.layers, additions, new, found.obstacles)


def _by_names(own: Iterable[str], target: Iterable[str]) -> Correspondence:
    ours, theirs = list(own), list(target)
    obstacles = []
    if missing := [name for name in theirs if name not in ours]:
        obstacles.append(
            f"this network lacks {listed(missing)}; growth adds whole blocks to stages, no parts"
        )
    if spare := [name for name in ours if name not in theirs]:
        obstacles.append(f"the target has no place for {listed(spare)}")
    return Correspondence({name: name for name in ours}, obstacles=tuple(obstacles))


def _by_runs(own: Draft, target: Draft) -> Correspondence:
    ours, theirs = _runs(own), _runs(target)
    if len(ours) != len(theirs):
        return _refused(
            f"pools and the like cut this network into {len(ours)} runs of layers, the target "
            f"into {len(theirs)}; growth adds none"
        )
    layers: dict[str, str] = {}
    additions: list[Addition] = []
    new: list[str] = []
    for before, after in zip(ours, theirs, strict=True):
        if len(before) > len(after):
            return _refused(f"{listed(before)} stand where the target has only {listed(after)}")
        layers |= dict(zip(before, after, strict=False))
        if len(before) < len(after):
            additions.append(Addition(before[-1], "layers", len(after) - len(before)))
            new += after[len(before) :]
    return Correspondence(layers, tuple(additions), tuple(new))


def _is_chain(graph: Graph) -> bool:
    """Whether every value is read once, so that the nodes' order is the only one."""
    reads = Counter(name for node in graph.nodes for name in node.inputs)
    return all(reads[value] <= 1 for node in graph.nodes for value in node.outputs)


def _runs(network: Draft) -> list[list[str]]:
    layers = network.grouping.layers
    runs: list[list[str]] = [[]]
    for node in network.graph.nodes:
        if node.name in layers:
            runs[-1].append(node.name)
        elif node.op != "BatchNormalization" and not rule(node.op).elementwise:
            runs.append([])
    return [run for run in runs if run]


def _refused(*obstacles: str) -> Correspondence:
    return Correspondence({}, obstacles=obstacles)


def listed(names: Iterable[str]) -> str:
    """The first few of ``names``, and how many more there are."""
    return first_few([shown(name) for name in names], 3)
