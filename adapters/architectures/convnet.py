"""Plain convolutional networks: convolutions, flatten, Linear layers, perhaps with BatchNorm.

VGG and AlexNet in torchvision's naming are recognised by names and kernels, whatever their widths
(``_convnet_torchvision``). Of any other stack the order is read off shapes and names
(``_chain_order``), and what keys do not hold is an option or a default (``_convnet_layout``)::

    options:
      input: [1, 8, 8]
      pool: {conv1: max 2, conv2: average 3 stride 2 padding 1}
      stride: {conv1: 2}
      padding: 0
      head: flatten
      activation: relu
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ckgrow.architecture import Assumption, Explanation, Network, Option, Source, Stage
from ckgrow.building import Builder
from ckgrow.errors import CheckpointError, SpecError
from ckgrow.graph import BATCH, Graph
from ckgrow.header import Header
from ckgrow.names import shown

from ._activation import activations
from ._activation import option as activation_option
from ._chain import Chain, chain, split
from ._chain_blocks import branched, shortcut_problem
from ._chain_emission import (
    EPSILON,
    NORM,
    ORDER,
    Tail,
    emit_linears,
    loose_norms,
    norm_assumptions,
    order_problem,
    stated_order,
)
from ._chain_modules import Layer, Modules, modules
from ._chain_order import Ordering, order
from ._convnet_layout import Layout, layout
from ._convnet_stock import TARGETS
from ._convnet_torchvision import Convention, constructor, convention
from ._options import Options
from ._stock_header import COLOURS, with_classes

INPUT = "input"


class Convnet:
    """The adapter for plain convolutional networks."""

    name = "convnet"
    summary = "plain stacks of convolutions and Linear layers: VGG, AlexNet, networks of one's own"
    options = (
        Option("input", None, "[channels, height, width]; default the smallest square that fits"),
        activation_option(),
        Option("pool", None, "pooling by convolution, as in {conv1: max 2}; {} for none"),
        Option("stride", None, "stride of the convolutions, or a mapping from some; default 1"),
        Option("padding", "same", "padding of the convolutions, or a mapping; default kernel // 2"),
        Option("head", None, "before the first Linear: flatten, global-average or 'average 7'"),
        ORDER,
        NORM,
        EPSILON,
    )
    targets = TARGETS

    def explain(self, header: Header) -> Explanation:
        """Which keys belong to one plain chain; keys named after branches never do."""
        found = _modules(header)
        if not any(layer.is_conv for layer in found.layers):
            return Explanation(frozenset(), tuple(header))
        unexplained = tuple(name for name in header if name not in found.explained)
        problems = list(found.problems)
        if not unexplained and not found.missing and not problems:
            problems += _problems(header, found)
        return Explanation(
            frozenset(found.explained), unexplained, tuple(found.missing), tuple(problems)
        )

    def build(self, header: Header, options: Mapping[str, Any]) -> Network:
        """The graph from ``input`` ["N", channels, height, width] to ``logits``."""
        stated = Options(self.options, options)
        found = _modules(header)
        ordering = _stated(stated, found) or _order(found)
        if isinstance(ordering, str):
            raise CheckpointError(ordering)
        network, loose = chain(header, found, ordering.layers)
        if loose:
            raise CheckpointError(loose_norms(loose)[0])
        known = convention(network)
        otherwise: Source = "architecture" if known else "default"
        arranged, facts = layout(network, stated, known)
        inner = [step for step in network.steps[:-1] if step.activated]
        chosen, activation_facts = activations(stated, inner, otherwise)
        tail = Tail(chosen, stated.value(NORM.name) == "before", stated.positive("epsilon"))
        text = ", ".join(shown(layer.name) for layer in ordering.layers)
        return Network(
            _graph(header, network, arranged, tail, known),
            (
                Assumption("order", text, ordering.source),
                *facts,
                *activation_facts,
                *norm_assumptions(stated, network, otherwise),
            ),
            tuple(found.passthrough),
            dict(options),
        )

    def stages(self, graph: Graph) -> tuple[Stage, ...]:
        """None: there are no blocks."""
        return ()

    def stock(self, header: Header) -> str | None:
        """torchvision's constructor, where the checkpoint has exactly its layers."""
        found = _modules(header)
        ordering = _order(found)
        if isinstance(ordering, str) or len(found.explained) != len(header):
            return None
        network = chain(header, found, ordering.layers)[0]
        name = constructor(network)
        if name is None or network.convs[0].layer.inputs != COLOURS:
            return None
        return f"torchvision's {name}{with_classes(network.linears[-1].layer.outputs)}"


def _modules(header: Header) -> Modules:
    plain = {name: spec for name, spec in header.items() if not branched(name)}
    return modules(Header(plain), (2, 4))


def _order(found: Modules) -> Ordering | str:
    """Convolutions in order, then Linear layers in order; or why there is no such order."""
    convs = [layer for layer in found.layers if layer.is_conv]
    linears = [layer for layer in found.layers if not layer.is_conv]
    if not convs or not linears:
        return f"there is no {'convolution' if linears else 'Linear layer behind the convolutions'}"
    parts = []
    for layers in (convs, linears):
        part = order(layers)
        if part is None:
            return order_problem(layers)
        parts.append(part)
    sources = {part.source for part in parts}
    source: Source = "checkpoint" if sources == {"checkpoint"} else "default"
    chained = tuple(layer for part in parts for layer in part.layers)
    problem = _flatten_problem(chained) or shortcut_problem(chained)
    return problem or Ordering(chained, source)


def _flatten_problem(layers: Sequence[Layer]) -> str:
    """Why the first Linear cannot read what the last convolution makes; "" if it can."""
    last = [layer for layer in layers if layer.is_conv][-1]
    first = next(layer for layer in layers if not layer.is_conv)
    if first.inputs % last.outputs == 0:
        return ""
    return (
        f"{shown(first.name)} reads {first.inputs} features, which is no whole number for each of "
        f"the {last.outputs} channels that {shown(last.name)} makes"
    )


def _stated(options: Options, found: Modules) -> Ordering | None:
    ordering = stated_order(options, found.layers)
    if ordering is None:
        return None
    kinds = [layer.is_conv for layer in ordering.layers]
    if kinds != sorted(kinds, reverse=True) or len(set(kinds)) < 2:
        raise SpecError("option 'order' must list the convolutions, then the Linear layers")
    problem = _flatten_problem(ordering.layers)
    if problem:
        raise SpecError(f"option 'order': {problem}")
    return ordering


def _problems(header: Header, found: Modules) -> list[str]:
    ordering = _order(found)
    if isinstance(ordering, str):
        return [ordering]
    return loose_norms(chain(header, found, ordering.layers)[1])


def _graph(
    header: Header, network: Chain, arranged: Layout, tail: Tail, known: Convention | None
) -> Graph:
    builder = Builder(header, {INPUT: (BATCH, *arranged.input)})
    x = INPUT
    for step in network.convs:
        name = step.layer.name
        x = builder.conv(name, x, stride=arranged.strides[name], padding=arranged.paddings[name])
        x = tail.emit(builder, step, x)
        pool = arranged.pools.get(name)
        if pool is not None:
            op = "MaxPool" if pool.kind == "max" else "AveragePool"
            counted = {} if pool.kind == "max" else {"count_include_pad": 1}
            path = step.path(step.rest, "pool")
            x = builder.pool(
                op, path, x, pool.kernel, stride=pool.stride, padding=pool.padding, **counted
            )
    last, first = network.convs[-1], network.linears[0].layer.name
    free = last.rest[last.layer.name in arranged.pools :] if last.counted else ()
    if arranged.average:
        average = "avgpool" if known else last.path(free, "average")
        x = builder.adaptive_average_pool(average, x, (arranged.average, arranged.average))
        free = free[1:]
    x = builder.node("Flatten", free[-1] if free else f"{first}/flatten", [x], axis=1)
    if known:
        container, index = split(first)
        for place in range(index or 0):
            x = builder.node("Dropout", f"{container}.{place}", [x])
    return builder.graph(emit_linears(builder, network.linears, tail, x, dropout=known is not None))


ADAPTER = Convnet()
