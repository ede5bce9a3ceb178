r"""Net2WiderNet (Chen, Goodfellow, Shlens: Net2Net, ICLR 2016, section 2.3, equations 3 to 5).

A layer of n units becomes one of q > n. With a random mapping g: {1..q} -> {1..n}, g(j) = j for
j <= n, unit j of the student copies unit g(j) of the teacher, and whatever reads the units divides
each weight among the copies:

    U'[k, j] = U[k, g(j)]                              (rows that make the units: copied)
    W'[j, h] = W[g(j), h] * share(h, j)                (columns that read them: divided)
    sum of share(h, j) over all j with g(j) = i  =  1

The paper's shares are equal, 1 / |{x: g(x) = g(j)}| (``split: uniform``), which leaves copies
that receive equal gradients and stay equal unless dropout or noise breaks the tie.
``unequal`` draws the shares of every output row and unit uniformly from the simplex;
``per-channel`` draws them once per unit for all rows; ``select`` lets every row read a single copy.
Shares sum to the weight exactly (``ckgrow.shares``), so without noise the student's function is
the teacher's.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from ckgrow.errors import SpecError
from ckgrow.graph import Graph, Node
from ckgrow.groups import Group, Grouping
from ckgrow.growth.axis import Growing, GrownAxis
from ckgrow.growth.noise import disturbed_rows, lasts, noise_of, zero_sum_noise
from ckgrow.growth.prognosis import parted_by_dropout
from ckgrow.maps import ChannelMap
from ckgrow.methods.method import Preserves, WidenMethod
from ckgrow.ops import rule
from ckgrow.random import Draw, Stream, even_choice
from ckgrow.recipes import Divided, Loud, Recipe, Scaled

if TYPE_CHECKING:
    from ckgrow.spec import WidenStep


MOST_RESCALED = 16
"""Beyond, float16 weights underflow or overflow; 1/2 is the value to try."""


class Net2Wider(WidenMethod):
    """Copies of units whose outgoing weights are divided."""

    name = "net2wider"
    options = frozenset({"split", "copies", "noise", "rescale"})

    def preserves(self, step: WidenStep) -> Preserves:
        """Exact, unless gaussian noise disturbs the copies."""
        noise = noise_of(step)
        return "approximate" if noise and noise.kind == "gaussian" else "exact"

    def rests_on(self, step: WidenStep) -> tuple[str, ...]:
        """Rescaled units rely on f(a x) = a f(x)."""
        return () if step.rescale is None else ("activation",)

    def warnings(
        self, step: WidenStep, graph: Graph, grouping: Grouping, group: Group
    ) -> list[str]:
        """Copies that nothing tells apart; SpecError for rescaling where it is not allowed."""
        if step.rescale is not None:
            _check_rescale(step, group, graph, grouping)
        if step.split != "uniform" or lasts(noise_of(step)):
            return []
        if parted_by_dropout(grouping, graph, group):
            return []
        return [
            f"{group.name}: copies with equal shares and no noise that lasts stay identical in "
            "training; use split: unequal, or noise"
        ]

    def channel_map(self, width: int, target: int, stream: Stream, step: WidenStep) -> ChannelMap:
        """The identity, then copies: ``even`` ones in whole rounds, or ``random`` ones."""
        extra = target - width
        if step.copies == "random":
            copies = stream.integers(width, extra)
        else:
            copies = even_choice(width, extra, stream)
        return ChannelMap(width, np.concatenate([np.arange(width), copies]))

    def rows(self, source: Recipe, axis: GrownAxis, at: Growing) -> Recipe:
        """U'[k, j] = U[k, g(j)], disturbed by gaussian noise on all copies but the first."""
        return _rescaled(self.kernels(source, axis, at), axis, at)

    def kernels(self, source: Recipe, axis: GrownAxis, at: Growing) -> Recipe:
        """As rows, but not rescaled: the channels that they read are."""
        copied = super().rows(source, axis, at)
        noise = noise_of(at.step)
        if noise and noise.kind == "gaussian":
            again = axis.map.ranks > 0
            copied = Loud(disturbed_rows(copied, source, at, again, noise), copied)
        return copied

    def bias(self, source: Recipe, axis: GrownAxis, at: Growing) -> Recipe:
        """Copied, and rescaled with its row."""
        return _rescaled(self.channel(source, axis, at), axis, at)

    def columns(self, source: Recipe, runs: tuple[GrownAxis, ...], at: Growing) -> Recipe:
        """W'[j, h] = W[g(j), h] * share(h, j)."""
        split = at.step.split
        return Divided(
            source,
            at.dim,
            tuple(run.map for run in runs),
            split,
            tuple(_weights(run, at.draw) for run in runs) if split == "per-channel" else (),
            at.stream("shares"),
            zero_sum_noise(noise_of(at.step), source, split, runs[0].map, at),
            1.0 if at.step.rescale is None else 1.0 / at.step.rescale,
        )


def _weights(axis: GrownAxis, draw: Draw) -> np.ndarray:
    """One exponential draw per unit, the same for every tensor that reads it."""
    parts = [
        np.repeat(-np.log(draw.stream("unit", part.label).uniform(0, len(part.map))), part.inner)
        for part in axis.parts
    ]
    return np.concatenate(parts)


def _rescaled(source: Recipe, axis: GrownAxis, at: Growing) -> Recipe:
    """Rows of copied units times ``rescale``; their columns are multiplied by its inverse."""
    rescale, where = at.step.rescale, at.step.where
    if rescale is None:
        return source
    if source.spec.dtype == "float16":
        raise SpecError(
            f"{where}: rescale would round small weights in float16, whose smallest numbers "
            "are within reach; leave it out, or convert the teacher to float32 first"
        )
    sources = axis.map.sources
    return Scaled(source, at.dim, np.where(axis.map.counts[sources] > 1, rescale, 1.0))


def _check_rescale(step: WidenStep, group: Group, graph: Graph, grouping: Grouping) -> None:
    if step.rescale is None or math.frexp(step.rescale)[0] != 0.5:
        raise SpecError(
            f"{step.where}: rescale {step.rescale} would round weights; use a power of two, "
            "for instance 0.5"
        )
    if not 1 / MOST_RESCALED <= step.rescale <= MOST_RESCALED:
        raise SpecError(
            f"{step.where}: rescale {step.rescale:g} would push weights towards the ends of their "
            f"format; use a power of two from 1/{MOST_RESCALED} to {MOST_RESCALED}"
        )
    followers = {use.node for use in grouping.coupled.uses if grouping.follows(use, group)}
    for name in grouping.readers(graph, group):
        node = graph.node(name)
        scales = _scales(node, group, graph, grouping)
        if not scales or (name in followers and node.op != "PRelu"):
            raise SpecError(
                f"{step.where}: rescale needs f(a x) = a f(x) behind {group.name}, but {name} is "
                f"{node.op}; leave rescale out for this layer"
            )


def _scales(node: Node, group: Group, graph: Graph, grouping: Grouping) -> bool:
    """Whether f(a x) = a f(x), x being what the group's channels hold before ``node``."""
    if node.op in ("Add", "Sub"):  # a x + a y = a (x + y) needs both terms to be scaled
        return all(grouping.holds(term, group) for term in node.inputs)
    if node.op == "Pad" and node.input(2):
        filling = graph.constants.get(node.input(2))
        return filling is not None and not any(filling.values)
    return rule(node.op).homogeneous


METHODS = (Net2Wider(),)
