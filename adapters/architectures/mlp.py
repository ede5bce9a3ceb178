"""Multi-layer perceptrons: chains of Linear layers, each perhaps with a BatchNorm1d.

Keys may have any names. The order comes from shapes and numbers in the names (``_chain_order``);
where both leave a choice, the natural sort decides and the order is a default until the option
``order`` states it. Nothing in a checkpoint tells the activation: ``relu`` is a default too.
The last layer has none. Dropout leaves no keys and does nothing in eval mode.

The ``i``-th module of an ``nn.Sequential`` keeps its path as a node's name, activations included.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ckgrow.architecture import Assumption, Explanation, Network, Stage, Targeting
from ckgrow.building import Builder
from ckgrow.errors import CheckpointError
from ckgrow.graph import BATCH, Graph
from ckgrow.header import Header
from ckgrow.names import shown

from ._activation import activations
from ._activation import option as activation_option
from ._chain import Chain, chain
from ._chain_blocks import branched, shortcut_problem
from ._chain_emission import (
    EPSILON,
    NORM,
    ORDER,
    Tail,
    emit_linears,
    grown,
    loose_norms,
    norm_assumptions,
    order_problem,
    stated_order,
)
from ._chain_maxout import as_if_maxout, check_norms, misstated, unstated, with_pieces
from ._chain_modules import Layer, Modules, modules
from ._chain_order import Ordering, order
from ._options import Options

INPUT = "input"


class Mlp:
    """The adapter for chains of Linear layers."""

    name = "mlp"
    summary = "chains of Linear layers under any names, with or without BatchNorm1d"
    options = (activation_option(maxout=True), ORDER, NORM, EPSILON)
    targets: Mapping[str, Targeting] = {}

    def explain(self, header: Header) -> Explanation:
        """Which keys belong to a Linear or a BatchNorm1d of one chain."""
        found = _modules(header)
        if not found.layers:
            return Explanation(frozenset(), tuple(header))
        unexplained = tuple(name for name in header if name not in found.explained)
        problems = list(found.problems)
        if not unexplained and not found.missing and not problems:
            problems += _problems(header, found)
        return Explanation(
            frozenset(found.explained), unexplained, tuple(found.missing), tuple(problems)
        )

    def build(self, header: Header, options: Mapping[str, Any]) -> Network:
        """The graph from ``input`` ["N", features] to ``logits``."""
        stated = Options(self.options, options)
        found = _modules(header)
        layers = with_pieces(stated, found.layers)
        ordering = stated_order(stated, layers) or _order(layers)
        if isinstance(ordering, str):
            raise misstated(ordering) if _narrowed(layers) else CheckpointError(ordering)
        if _narrowed(ordering.layers) and not _narrowed(layers):
            raise unstated(ordering.layers)
        network, loose = chain(header, found, ordering.layers)
        if loose:
            raise CheckpointError(loose_norms(loose)[0])
        hidden = [step for step in network.steps[:-1] if step.activated]
        chosen, facts = activations(stated, hidden, maxout=True)
        tail = Tail(chosen, stated.value(NORM.name) == "before", stated.positive("epsilon"))
        check_norms(network, norm_first=tail.norm_first)
        text = ", ".join(shown(layer.name) for layer in ordering.layers)
        return Network(
            _graph(header, network, tail),
            (
                Assumption("order", text, ordering.source),
                *facts,
                *norm_assumptions(stated, network),
            ),
            tuple(found.passthrough),
            dict(options),
        )

    def stages(self, graph: Graph) -> tuple[Stage, ...]:
        """None: there are no blocks."""
        return ()

    def stock(self, header: Header) -> str | None:
        """Any module with Linear layers of these sizes, unless ckgrow chose some of the names."""
        return None if grown(header) else "the same module with Linear layers of these sizes"


def _modules(header: Header) -> Modules:
    plain = {name: spec for name, spec in header.items() if not branched(name)}
    return modules(Header(plain), (2,))


def _order(layers: Sequence[Layer]) -> Ordering | str:
    """The order of the layers, or why they are no plain chain."""
    ordering = order(layers)
    if ordering is None and not _narrowed(layers):
        ordering = as_if_maxout(layers)
    if ordering is None:
        return order_problem(layers)
    return shortcut_problem(ordering.layers) or ordering


def _narrowed(layers: Sequence[Layer]) -> bool:
    return any(layer.pieces > 1 for layer in layers)


def _problems(header: Header, found: Modules) -> list[str]:
    ordering = _order(found.layers)
    if isinstance(ordering, str):
        return [ordering]
    return loose_norms(chain(header, found, ordering.layers)[1])


def _graph(header: Header, network: Chain, tail: Tail) -> Graph:
    builder = Builder(header, {INPUT: (BATCH, network.steps[0].layer.inputs)})
    x = INPUT
    if network.first is not None:
        x = builder.batch_norm(network.first.name, x, epsilon=tail.epsilon)
    return builder.graph(emit_linears(builder, network.steps, tail, x))


ADAPTER = Mlp()
