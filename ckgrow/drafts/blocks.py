"""Residual blocks: cutting one out of a graph, and modelling a new one on it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from ckgrow.drafts.draft import Draft
from ckgrow.drafts.renaming import is_inside, moved, split_number
from ckgrow.errors import SpecError
from ckgrow.graph import Graph, Node
from ckgrow.header import TensorSpec
from ckgrow.ops import rule


@dataclass(frozen=True)
class Block:
    """A new block that maps a stream to itself: y = act(x + branch(x)), act perhaps missing.

    ``model`` is the block it is modelled on, or the layer that an inserted one stands behind.
    ``nodes`` read ``input`` and make ``output``. ``models`` has for each tensor the tensor it is
    modelled on, ``specs`` its dtype and shape. ``last`` is the node whose output ends the branch.
    """

    path: str
    model: str
    input: str
    output: str
    nodes: tuple[Node, ...]
    models: Mapping[str, str]
    specs: Mapping[str, TensorSpec]
    last: Node

    def width(self, layer: Node) -> int:
        """The output channels of one of its layers."""
        return self.specs[layer.inputs[1]].shape[rows_of(layer)]


def rows_of(layer: Node) -> int:
    """The dimension of a layer's weight that makes its outputs; the other reads its inputs."""
    return rule(layer.op).rows(layer)


@dataclass(frozen=True)
class Cut:
    """A block in its graph: its nodes, the value they read and the value they make."""

    path: str
    nodes: tuple[Node, ...]
    input: str
    output: str


def model_block(draft: Draft, models: tuple[str, ...], behind: str, new: str, where: str) -> Block:
    """A block called ``new`` to stand behind the block ``behind``, modelled on one of ``models``.

    The nearest block that keeps the stream as it is serves as the model, among those as wide as
    the stream is there; a stage that has only a block which changes the stream lends that block
    without its shortcut and its stride. Raises SpecError when no identity can be made of the model.
    """
    stream = cut_out(draft.graph, behind, where).output
    cuts = sorted(
        (cut_out(draft.graph, path, where) for path in models),
        key=lambda cut: abs(_number(cut.path) - _number(behind)),
    )
    as_wide = [cut for cut in cuts if draft.shapes[cut.output][1] == draft.shapes[stream][1]]
    cut = next((cut for cut in as_wide if residual_sum(cut, where)[1]), as_wide[0])
    total, _ = residual_sum(cut, where)
    branch = branch_end(cut, total)
    kept = _ancestors(cut, branch) | _from(cut, total.output)
    nodes = tuple(
        _straightened(node, cut, total, branch) for node in cut.nodes if node.output in kept
    )
    _check_identity(draft.graph, nodes, total, stream, cut, where)
    specs = _specs(draft, nodes, cut, stream)
    names = {key: moved(key, cut.path, new) for key in specs}

    def name(old: str) -> str:
        return stream if old == cut.input else names.get(old, moved(old, cut.path, new))

    made = tuple(
        replace(
            node,
            name=name(node.name),
            inputs=tuple(map(name, node.inputs)),
            outputs=tuple(map(name, node.outputs)),
        )
        for node in nodes
    )
    last = next(node for node in made if name(branch) in node.outputs)
    return Block(
        new,
        cut.path,
        stream,
        name(cut.output),
        made,
        {names[key]: key for key in specs},
        {names[key]: spec for key, spec in specs.items()},
        last,
    )


def _number(path: str) -> int:
    place = split_number(path)
    return place[1] if place else 0


def cut_out(graph: Graph, path: str, where: str) -> Cut:
    """The block at ``path``; SpecError where it has several inputs or outputs."""
    nodes = tuple(node for node in graph.nodes if is_inside(node.name, path))
    made = {value for node in nodes for value in node.outputs}
    all_made = {value for node in graph.nodes for value in node.outputs} | set(graph.inputs)
    outside = [name for node in nodes for name in node.inputs if name in all_made - made]
    readers = graph.consumers()
    inner = {id(node) for node in nodes}
    leaving = [
        value
        for value in made
        if value in graph.outputs or any(id(node) not in inner for node in readers.get(value, []))
    ]
    if len(set(outside)) != 1 or len(leaving) != 1:
        raise SpecError(f"{where}: {path} is no block with one input and one output")
    return Cut(path, nodes, outside[0], leaving[0])


def residual_sum(cut: Cut, where: str) -> tuple[Node, bool]:
    """The residual sum of a block, and whether one of its terms is the block's input itself."""
    sums = [node for node in cut.nodes if node.op == "Add"]
    if not sums:
        raise SpecError(
            f"{where}: {cut.path} has no residual sum; insert layers one by one instead"
        )
    return sums[-1], cut.input in sums[-1].inputs


def _ancestors(cut: Cut, value: str) -> set[str]:
    """Values inside the block that ``value`` is computed from, itself included."""
    made = {output: node for node in cut.nodes for output in node.outputs}
    found: set[str] = set()
    waiting = [value]
    while waiting:
        name = waiting.pop()
        if name in made and name not in found:
            found.add(name)
            waiting.extend(made[name].inputs)
    return found


def _from(cut: Cut, value: str) -> set[str]:
    """Values of the block from ``value`` on, itself included."""
    found = {value}
    for node in cut.nodes:
        if found & set(node.inputs):
            found.update(node.outputs)
    return found


def branch_end(cut: Cut, total: Node) -> str:
    """The term of the sum that holds more of the block; the other is the shortcut."""
    first, second = total.inputs
    return max((first, second), key=lambda value: len(_ancestors(cut, value)))


def _straightened(node: Node, cut: Cut, total: Node, branch: str) -> Node:
    """The node with stride 1; the sum takes the block's input instead of its shortcut."""
    if node is total:
        return replace(
            node, inputs=tuple(name if name == branch else cut.input for name in node.inputs)
        )
    if "strides" in node.attributes:
        return node.with_attributes(strides=(1,) * len(node.attributes["strides"]))  # type: ignore[arg-type]  # a tuple by ONNX
    return node


def _check_identity(
    graph: Graph, nodes: tuple[Node, ...], total: Node, stream: str, cut: Cut, where: str
) -> None:
    """x + 0 must pass the block's last activation unchanged."""
    behind = [node for node in nodes if node.output in _from(cut, total.output)][1:]
    before = graph.producers().get(stream)
    for node in behind:
        same = before is not None and _function(graph, before) == _function(graph, node)
        if not (rule(node.op).idempotent and same):
            raise SpecError(
                f"{where}: {cut.path} ends with {node.op}, which would change the stream when "
                "applied once more: a whole block needs an idempotent activation behind its sum; "
                "insert behind a layer of the block instead, by r2deeper or zero-init"
            )


def _function(graph: Graph, node: Node) -> tuple[object, ...]:
    """What makes two activations the same function: the op, its attributes and its constants."""
    bounds = [graph.constants.get(name) for name in node.inputs[1:]]
    return node.op, dict(node.attributes), bounds


def _specs(draft: Draft, nodes: tuple[Node, ...], cut: Cut, stream: str) -> dict[str, TensorSpec]:
    """The block's tensors, those that no node reads included, sized for the stream."""
    width = draft.shapes[stream][1]
    paths = [node.name for node in nodes if "/" not in node.name]
    wanted = {key for key in draft.spare if any(is_inside(key, path) for path in paths)}
    wanted.update(*(node.inputs for node in nodes))
    specs = {key: recipe.spec for key, recipe in draft.recipes.items() if key in wanted}
    for node in nodes:
        if node.op == "Conv" and node.inputs[0] == cut.input and isinstance(width, int):
            spec = specs[node.inputs[1]]
            columns = width // node.get("group", 1)
            shape = (spec.shape[0], columns, *spec.shape[2:])
            specs[node.inputs[1]] = TensorSpec(spec.dtype, shape)
    return specs
