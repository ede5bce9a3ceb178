"""``kernel``: larger kernels of convolutions.

A kernel of k taps, k odd, becomes one of k' > k, k' odd, with zeros around it. With m = (k' - k)/2
and dilation d the window reaches m d entries further on either side, so with as many entries more
of padding on either side it has the same centre at every place, whatever the stride:

    y[t] = sum over j of w[j] x[s t - before + d j]
         = sum over j of w'[j + m] x[s t - (before + m d) + d (j + m)],    w' = [0, w, 0]

What is added is zero times something finite, so the function is the same, and the new taps
learn from the first step on.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np

from ckgrow.drafts.draft import Draft
from ckgrow.errors import SpecError
from ckgrow.graph import Graph, Node
from ckgrow.loading import Loaded
from ckgrow.maps import ZERO, ChannelMap
from ckgrow.names import by
from ckgrow.ops.conv import window
from ckgrow.planning.report import StepReport
from ckgrow.planning.targets import match_names
from ckgrow.planning.verbs.facts import refuse_defaults
from ckgrow.random import Draw
from ckgrow.recipes import Placed, Recipe
from ckgrow.spec import KernelStep

Sizes = tuple[int, ...]

CHANNEL_DIMS = 2  # a kernel is "out in/group *sizes"


def kernel_step(
    draft: Draft, step: KernelStep, draw: Draw, teacher: Loaded
) -> tuple[Draft, StepReport]:
    """Every convolution that the step names, and those that share its weights."""
    refuse_defaults((), teacher, "kernel", step.where)
    names = match_names(step.kernel, draft.grouping.layers, step.where, "layer")
    meant = _meant(draft, names, step)
    margins: dict[str, Sizes] = {}
    for node in meant.convolutions:
        margins[node.inputs[1]] = _margins(draft, node, step)
    grown = {weight: each for weight, each in margins.items() if any(each)}
    same = [node.name for node in meant.convolutions if node.inputs[1] not in grown]
    warnings = [
        f"{name} has a kernel of {by(_kernel(draft, draft.graph.node(name)))} already: "
        "nothing to do"
        for name in same
    ]
    warnings += [
        f"{node.name} has the same weights as {_first_reader(meant.convolutions, node)} and grows "
        "with it"
        for node in draft.graph.nodes
        if any(name in grown for name in node.inputs) and node not in meant.convolutions
    ]
    report = StepReport(
        step.where,
        f"kernel of {', '.join(step.kernel)} to {by(_wanted(step))}",
        "kernel",
        "exact",
        tuple(node.name for node in meant.convolutions),
        meant.skipped,
        kernels={
            node.name: (
                old,
                tuple(size + 2 * margin for size, margin in zip(old, more, strict=True)),
            )
            for node in meant.convolutions
            if (more := grown.get(node.inputs[1])) and (old := _kernel(draft, node))
        },
        warnings=tuple(warnings),
    )
    recipes = {
        **draft.recipes,
        **{weight: _surrounded(draft.recipes[weight], each) for weight, each in grown.items()},
    }
    return draft.with_changes(graph=_padded(draft.graph, grown), recipes=recipes), report


@dataclass(frozen=True)
class _Meant:
    """The convolutions that a step is about, and why it passes over others."""

    convolutions: tuple[Node, ...]
    skipped: dict[str, str]


def _meant(draft: Draft, names: Iterable[str], step: KernelStep) -> _Meant:
    """SpecError for a layer that is named itself and has no kernel that could grow."""
    convolutions: list[Node] = []
    skipped: dict[str, str] = {}
    for name in names:
        node = draft.graph.node(name)
        obstacle = _obstacle(draft, node, step)
        if not obstacle:
            convolutions.append(node)
        elif name in step.kernel:
            raise SpecError(f"{step.where}: {name} {obstacle}")
        else:
            skipped[name] = obstacle
    if not convolutions:
        said = "; ".join(f"{name} {reason}" for name, reason in list(skipped.items())[:3])
        raise SpecError(f"{step.where}: no kernel that the pattern matches can grow ({said})")
    return _Meant(tuple(convolutions), skipped)


def _obstacle(draft: Draft, node: Node, step: KernelStep) -> str:
    """Why a layer's kernel cannot grow by this step, "" when it can."""
    if node.op != "Conv":
        return f"is a {node.op}, which has no kernel; name convolutions"
    weight = node.inputs[1]
    if weight not in draft.recipes:
        return "has constant weights, which belong to the graph and cannot grow"
    if not draft.recipes[weight].spec.is_float:
        return (
            f"has weights of {draft.recipes[weight].spec.dtype}, in which nothing grows; convert "
            "them to float32, float16 or bfloat16"
        )
    for other in draft.graph.consumers()[weight]:
        if other.op != "Conv" or [*other.inputs].index(weight) != 1:
            return (
                f"has the same weights as {other.name}, which is a {other.op} and has no kernel; "
                "untie them in the checkpoint first"
            )
    kernel = _kernel(draft, node)
    if any(size % 2 == 0 for size in kernel):
        return (
            f"has a kernel of {by(kernel)}: an even size has no centre that zeros could stand "
            "around; only odd kernels grow"
        )
    if isinstance(step.to, tuple) and len(step.to) != len(kernel):
        return (
            f"has a kernel of {by(kernel)}, but 'to' gives {len(step.to)} sizes; "
            f"give one, or one for each axis"
        )
    return ""


def _margins(draft: Draft, node: Node, step: KernelStep) -> Sizes:
    """How many zeros more on either side of each axis; SpecError for sizes that cannot be."""
    kernel = _kernel(draft, node)
    sizes = _wanted(step) if isinstance(step.to, tuple) else _wanted(step) * len(kernel)
    even = next((size for size in sizes if size % 2 == 0), None)
    if even is not None:
        raise SpecError(
            f"{step.where}: a kernel of size {even} has no centre; kernels grow to odd sizes, "
            f"the nearest are {even - 1} and {even + 1}"
        )
    if any(size < old for size, old in zip(sizes, kernel, strict=True)):
        kept = tuple(max(pair) for pair in zip(sizes, kernel, strict=True))
        raise SpecError(
            f"{step.where}: {node.name} has a kernel of {by(kernel)} and cannot shrink to "
            f"{by(sizes)}; ckgrow only grows: 'to: {list(kept)}', for instance"
        )
    return tuple((size - old) // 2 for size, old in zip(sizes, kernel, strict=True))


def _surrounded(weight: Recipe, margins: Sizes) -> Recipe:
    """The weight with as many zeros more on either side of each axis of its kernel."""
    for axis, margin in enumerate(margins, CHANNEL_DIMS):
        if margin:
            size = weight.spec.shape[axis]
            sources = np.pad(np.arange(size), margin, constant_values=ZERO)
            weight = Placed(weight, axis, (ChannelMap(size, sources),))
    return weight


def _padded(graph: Graph, margins: dict[str, Sizes]) -> Graph:
    """The graph in which every reader of a grown kernel pads its input by as much more."""
    nodes = (
        _reaching(node, margins[node.inputs[1]]) if node.input(1) in margins else node
        for node in graph.nodes
    )
    return replace(graph, nodes=tuple(nodes))


def _reaching(node: Node, margins: Sizes) -> Node:
    _, dilations, before, after = window(node, len(margins))
    further = [margin * dilation for margin, dilation in zip(margins, dilations, strict=True)]
    sides = (old + new for old, new in zip((*before, *after), further * 2, strict=True))
    changed = node.with_attributes(pads=tuple(sides))
    if "kernel_shape" not in node.attributes:
        return changed
    old = node.attributes["kernel_shape"]
    assert isinstance(old, tuple)
    sizes = (int(size) + 2 * margin for size, margin in zip(old, margins, strict=True))
    return changed.with_attributes(kernel_shape=tuple(sizes))


def _kernel(draft: Draft, node: Node) -> Sizes:
    return draft.recipes[node.inputs[1]].spec.shape[CHANNEL_DIMS:]


def _wanted(step: KernelStep) -> Sizes:
    return step.to if isinstance(step.to, tuple) else (step.to,)


def _first_reader(convolutions: tuple[Node, ...], node: Node) -> str:
    return next(each.name for each in convolutions if each.inputs[1] in node.inputs)
