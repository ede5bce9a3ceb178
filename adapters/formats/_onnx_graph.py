"""A network as an ONNX graph that ONNX Runtime runs on the CPU, without its weights.

Initialisers bear the tensors' own names. The arithmetic is float32, as that is what there is for
every op: tensors of other floating point dtypes are stored as they are and go through a Cast node.
Constants of the network are Constant nodes, so that every initialiser is a tensor.
"""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
from onnx import GraphProto, NodeProto, TensorProto, ValueInfoProto, helper, numpy_helper

from ckgrow.checkpoint import Content
from ckgrow.graph import Constant, Graph, Shape
from ckgrow.header import FLOAT_DTYPES, Header
from ckgrow.shapes import infer_shapes

OPSET = 20
IR_VERSION = 9  # the first that knows opset 20

_NAME = "network"


def graph_of(content: Content) -> GraphProto:
    """The graph of ``content``, with neither initialisers nor, for mere tensors, nodes."""
    if content.graph is None:
        return helper.make_graph([], _NAME, [], [])
    graph, prefix = content.graph, content.prefix
    header = Header({name.removeprefix(prefix): spec for name, spec in content.header.items()})
    names = _names(graph, prefix, content.header)
    casts = []
    for name in graph.parameters():
        if header[name].dtype in FLOAT_DTYPES - {"float32"}:
            stored, names[name] = names[name], _free(f"{names[name]}/float32", names.values())
            casts.append(_cast(stored, names[name]))
    shapes = infer_shapes(graph, header)
    return helper.make_graph(
        [
            *(_constant(names[name], each) for name, each in graph.constants.items()),
            *casts,
            *_nodes(graph, names),
        ],
        _NAME,
        [_info(names[name], shape) for name, shape in graph.inputs.items()],
        [_info(names[name], shapes[name]) for name in graph.outputs],
    )


def _names(graph: Graph, prefix: str, header: Header) -> dict[str, str]:
    """By the names of the graph, those of the model: tensors keep theirs, values give way."""
    names = {name: prefix + name for name in graph.parameters()}
    taken = set(header)
    values = (value for node in graph.nodes for value in node.outputs if value)
    for name in (*graph.inputs, *graph.constants, *values):
        names[name] = _free(name, taken)
        taken.add(names[name])
    return names | {"": ""}


def _free(name: str, taken: Collection[str]) -> str:
    while name in taken:
        name += "'"
    return name


def _info(name: str, shape: Shape) -> ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, list(shape))


def _constant(name: str, constant: Constant) -> NodeProto:
    array = constant.array()
    if array.dtype == np.float64:
        array = array.astype(np.float32)
    value = numpy_helper.from_array(array, name)
    return helper.make_node("Constant", [], [name], name, value=value)


def _cast(stored: str, name: str) -> NodeProto:
    return helper.make_node("Cast", [stored], [name], name, to=TensorProto.FLOAT)


def _nodes(graph: Graph, names: dict[str, str]) -> list[NodeProto]:
    nodes = []
    for node in graph.nodes:
        inputs = [names[name] for name in node.inputs]
        made = helper.make_node(node.op, inputs, [names[name] for name in node.outputs], node.name)
        made.attribute.extend(helper.make_attribute(*pair) for pair in node.attributes.items())
        nodes.append(made)
    return nodes
