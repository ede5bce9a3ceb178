"""A path beside a layer or a block, added to what it makes.

A layer L makes v of x. The path makes something of the same shape of the same x, and what reads v
reads the sum from then on, in front of L's BatchNorm and activation:

    v' = L(x) + M(act(K(x)))

K is a layer of L's kind (kernel, stride, padding, dilation, convolution groups, bias), act the
activation behind L (a ReLU where that is no function of single channels) and M has one tap. The
path is a numbered container, ``<path>.0`` to ``<path>.2``.

Around a residual block x is what the block reads and v its sum, in front of the activation behind
it; K has the largest odd kernel of the block's branch and the stride of the whole of it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from ckgrow.drafts.blocks import Block, branch_end, cut_out, residual_sum, rows_of
from ckgrow.drafts.copying import same_size
from ckgrow.drafts.draft import Draft
from ckgrow.drafts.places import Place, place_behind
from ckgrow.drafts.residual import BranchMaker
from ckgrow.errors import SpecError
from ckgrow.graph import Attribute, Node
from ckgrow.names import by
from ckgrow.naming import free_name

Shape = tuple[int, ...]


def path_beside_layer(
    draft: Draft, layer: str, width: int | None, multiple: int, where: str
) -> Block:
    """A path from the input of ``layer`` to its output, with ``width`` channels inside.

    They are as many as the layer's if not given, rounded up to a ``multiple`` in every
    convolution group.
    """
    place = _place(draft, layer, where)
    model = place.layer
    shape = _weight(draft, model)
    groups = model.get("group", 1)
    made = shape[rows_of(model)]
    hidden = _hidden(width, made, multiple * groups, layer, where)
    kernel = shape[2:]
    attributes: Mapping[str, Attribute] = same_size(model, kernel, groups)
    if model.op == "Conv":
        attributes = {**model.attributes, "kernel_shape": kernel}
    first = tuple(hidden if dim == rows_of(model) else size for dim, size in enumerate(shape))
    path = free_name(layer, draft.taken)
    return _path(draft, place, path, model.inputs[0], model.output, first, attributes, made)


def path_around_block(
    draft: Draft, block: str, width: int | None, multiple: int, where: str
) -> Block:
    """A path from the input of a residual block to its sum."""
    cut = cut_out(draft.graph, block, where)
    total, _ = residual_sum(cut, where)
    stream, sum_shape = draft.shapes[cut.input], draft.shapes[total.output]
    convolutions = [
        node for node in cut.nodes if node.op == "Conv" and node.inputs[1] in draft.recipes
    ]
    odd = [node for node in convolutions if all(size % 2 for size in _weight(draft, node)[2:])]
    if not odd:
        raise SpecError(
            f"{where}: {block} has no convolution with an odd kernel that a path could be "
            "modelled on; name one of its layers instead"
        )
    model = max(odd, key=lambda node: math.prod(_weight(draft, node)[2:]))
    place = _place(draft, model.name, where)
    kernel = _weight(draft, model)[2:]
    strides = _strides(cut.nodes, branch_end(cut, total), cut.input, len(kernel))
    whole = [size for size in (*stream[1:], *sum_shape[1:]) if isinstance(size, int)]
    channels, *sizes = whole[: len(stream) - 1]
    made, *wanted = whole[len(stream) - 1 :]
    if [-(-size // stride) for size, stride in zip(sizes, strides, strict=True)] != wanted:
        raise SpecError(
            f"{where}: {block} makes a map of {by(wanted)} of one of {by(sizes)}, which no "
            f"single layer with a kernel of {by(kernel)} does; name one of its layers instead"
        )
    hidden = _hidden(width, _weight(draft, model)[0], multiple, block, where)
    attributes = same_size(model, kernel, 1) | {"strides": strides}
    path = free_name(f"{block}.branch", draft.taken)
    first = (hidden, channels, *kernel)
    return _path(draft, place, path, cut.input, total.output, first, attributes, made)


def _path(
    draft: Draft,
    place: Place,
    path: str,
    source: str,
    added_to: str,
    first: Shape,
    attributes: Mapping[str, Attribute],
    made: int,
) -> Block:
    """The nodes from ``source`` to the sum, the first with a weight of the shape ``first``."""
    model, making = place.layer, BranchMaker.of(draft, place, path, 1)
    hidden, taps = first[rows_of(model)], (1,) * len(first[2:])
    value = making.weighted(source, first, attributes)
    if _by_single_channels(draft, place):
        value = making.activation(value, hidden)
    else:
        value = making.rectifier(value)
    last = (made, hidden) if rows_of(model) == 0 else (hidden, made)
    making.weighted(value, (*last, *taps), same_size(model, taps, 1))
    return making.added_to(added_to, source, path)


def _place(draft: Draft, layer: str, where: str) -> Place:
    """Behind a layer whose kind a path can be of."""
    node = draft.graph.node(layer)
    weight = node.inputs[1]
    if weight not in draft.recipes:
        raise SpecError(
            f"{where}: {layer} has constant weights, which belong to the graph; no path can be "
            "modelled on it; name another layer"
        )
    if not draft.recipes[weight].spec.is_float:
        raise SpecError(
            f"{where}: {layer} is {draft.recipes[weight].spec.dtype}; no path fits beside it; "
            "convert it to a floating-point dtype first"
        )
    return place_behind(draft, layer, where)


def _by_single_channels(draft: Draft, place: Place) -> bool:
    """Whether there is an activation, and one of single channels."""
    as_wide = place.channels == _made(draft, place.layer)
    return bool(place.activation) and as_wide and place.channelwise


def _made(draft: Draft, layer: Node) -> int:
    return _weight(draft, layer)[rows_of(layer)]


def _hidden(width: int | None, usual: int, multiple: int, layer: str, where: str) -> int:
    """The channels inside a path, whole multiples of ``multiple``."""
    if width is None:
        return -(-usual // multiple) * multiple
    if width % multiple:
        below = width // multiple * multiple
        near = [str(number) for number in (below, below + multiple) if number]
        raise SpecError(
            f"{where}: a path beside {layer} has channels in multiples of {multiple} (pairs and "
            f"convolution groups), and {width} is none; the nearest are {' and '.join(near)}"
        )
    return width


def _strides(nodes: tuple[Node, ...], end: str, start: str, spatial: int) -> Shape:
    """The strides of all that lies between ``end`` and ``start``, along the first inputs."""
    made = {value: node for node in nodes for value in node.outputs}
    strides = (1,) * spatial
    while end != start and end in made:
        node = made[end]
        own = node.get("strides", (1,) * spatial)
        strides = tuple(before * here for before, here in zip(strides, own, strict=True))
        end = node.inputs[0]
    return strides


def _weight(draft: Draft, layer: Node) -> Shape:
    return draft.recipes[layer.inputs[1]].spec.shape
