"""ONNX Runtime in float32 on the CPU: the runtime whose outputs decide.

Parameters are inputs of the model rather than initialisers: nothing is copied, no path is needed,
and protobuf's limit of 2 GB never matters. Whatever the checkpoint stores, the arithmetic is
float32: float16 and bfloat16 tensors go through a Cast node, float64 and float8 tensors become
float32 when they are fed.

Graph optimisations are off: with them, a network differs from itself. Values and nodes bear names
of our own inside the model, so that a foreign name (empty, with NUL, 1 MB long) cannot harm it.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import onnxruntime
from onnx import ModelProto, NodeProto, TensorProto, ValueInfoProto, helper, numpy_helper

from ckgrow.errors import CheckpointError
from ckgrow.graph import Graph
from ckgrow.header import FLOAT8_DTYPES, Header
from ckgrow.names import shown

OPSET = 20
IR_VERSION = 9  # the first that knows opset 20; every ONNX Runtime that pyproject allows reads it
SILENT = 4  # of ONNX Runtime's log levels: fatal errors only
STORED = {
    "float64": TensorProto.FLOAT,
    "float32": TensorProto.FLOAT,
    "float16": TensorProto.FLOAT16,
    "bfloat16": TensorProto.BFLOAT16,
    "int64": TensorProto.INT64,
    "int32": TensorProto.INT32,
    "int16": TensorProto.INT16,
    "int8": TensorProto.INT8,
    "uint8": TensorProto.UINT8,
    "bool": TensorProto.BOOL,
    **dict.fromkeys(FLOAT8_DTYPES, TensorProto.FLOAT),
}


def label() -> str:
    """What is printed of this runtime."""
    version = ".".join(onnxruntime.__version__.split(".")[:2])
    return f"ONNX Runtime {version} (float32, CPU)"


def _threads() -> int:
    """How many threads to compute with, as other libraries are told it; 0 for all cores."""
    stated = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0].strip()
    return int(stated) if stated.isdecimal() else 0


class Session:
    """A graph with its weights, ready to run.

    ``read(name)`` returns a whole tensor in its stored dtype and is called once per parameter.
    ``fetch`` names values that ``run`` returns besides the graph's outputs.
    """

    def __init__(
        self,
        graph: Graph,
        header: Header,
        read: Callable[[str], np.ndarray],
        fetch: Sequence[str] = (),
    ) -> None:
        self._graph = graph
        self._wanted = tuple(dict.fromkeys((*graph.outputs, *fetch)))
        self._model = _Model(graph, header, self._wanted)
        options = onnxruntime.SessionOptions()
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        options.log_severity_level = SILENT
        options.enable_cpu_mem_arena = False  # the arena would keep the largest activations
        options.enable_mem_pattern = False
        options.intra_op_num_threads = _threads()
        serialized = self._model.proto.SerializeToString()
        try:
            self._session = onnxruntime.InferenceSession(
                serialized, options, providers=["CPUExecutionProvider"]
            )
        except Exception as failure:  # its errors share no other base class
            raise self._model.error("load", failure) from failure
        self._weights = {
            self._model.names[name]: _value(read(name), header[name].dtype)
            for name in graph.parameters()
        }

    def run(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Outputs (and fetched values) for a batch; inputs are taken in float32."""
        feeds = dict(self._weights)
        for name in self._graph.inputs:
            if name not in inputs:
                raise CheckpointError(f"there is no array for the graph input {shown(name)}")
            feeds[self._model.names[name]] = _value(inputs[name].astype(np.float32), "float32")
        computed = [name for name in self._wanted if name not in self._graph.inputs]
        options = onnxruntime.RunOptions()
        options.log_severity_level = SILENT
        try:
            results = self._session.run_with_ort_values(
                [self._model.names[name] for name in computed], feeds, options
            )
        except Exception as failure:  # its errors share no other base class
            raise self._model.error("run", failure) from failure
        made = {name: value.numpy() for name, value in zip(computed, results, strict=True)}
        return {
            name: made[name] if name in made else np.asarray(inputs[name], np.float32)
            for name in self._wanted
        }


class _Model:
    """The ModelProto of a graph, and its internal names by the graph's own."""

    def __init__(self, graph: Graph, header: Header, wanted: Sequence[str]) -> None:
        self.names = {"": ""}
        self._shown: dict[str, str] = {}
        for name in (*graph.inputs, *graph.constants, *graph.parameters()):
            self._name(name)
        for value in (value for node in graph.nodes for value in node.outputs):
            self._name(value)
        for name in wanted:
            if name not in self.names:
                raise CheckpointError(f"the graph has no value {shown(name)} to fetch")
        inputs = [
            helper.make_tensor_value_info(self.names[name], TensorProto.FLOAT, list(shape))
            for name, shape in graph.inputs.items()
        ]
        parameters, casts, cast_names = self._parameters(graph, header)
        inner = {**self.names, **cast_names}
        self.proto: ModelProto = helper.make_model(
            helper.make_graph(
                [*casts, *self._nodes(graph, inner)],
                "ckgrow",
                [*inputs, *parameters],
                [
                    helper.make_tensor_value_info(self.names[name], TensorProto.FLOAT, None)
                    for name in wanted
                    if name not in graph.inputs
                ],
                [
                    numpy_helper.from_array(_single(constant.array()), self.names[name])
                    for name, constant in graph.constants.items()
                ],
            ),
            opset_imports=[helper.make_opsetid("", OPSET)],
            ir_version=IR_VERSION,
        )

    def error(self, action: str, failure: Exception) -> CheckpointError:
        """What ONNX Runtime said, in one line and with the graph's own names."""
        text = " ".join(str(failure).split())
        text = re.sub(r"^\[ONNXRuntimeError\] : \d+ : (\w+) : ", r"\1: ", text)
        text = re.sub(r"ckgrow_[a-z]+\d+", lambda found: self._shown.get(found[0], found[0]), text)
        return CheckpointError(f"ONNX Runtime cannot {action} the graph: {text}")

    def _name(self, name: str) -> None:
        if name:
            self.names[name] = f"ckgrow_value{len(self.names)}"
            self._shown[self.names[name]] = shown(name)

    def _parameters(
        self, graph: Graph, header: Header
    ) -> tuple[list[ValueInfoProto], list[NodeProto], dict[str, str]]:
        """Parameters as model inputs, Cast nodes to float32, and the names those make."""
        infos: list[ValueInfoProto] = []
        casts: list[NodeProto] = []
        renamed: dict[str, str] = {}
        for name in graph.parameters():
            spec = header[name]
            if spec.dtype not in STORED:
                raise CheckpointError(
                    f"tensor {shown(name)} is {spec.dtype}, which ONNX Runtime cannot be fed"
                )
            stored, inner = STORED[spec.dtype], self.names[name]
            infos.append(helper.make_tensor_value_info(inner, stored, list(spec.shape)))
            if stored in (TensorProto.FLOAT16, TensorProto.BFLOAT16):
                renamed[name] = f"{inner}f"
                casts.append(
                    helper.make_node("Cast", [inner], [renamed[name]], to=TensorProto.FLOAT)
                )
        return infos, casts, renamed

    def _nodes(self, graph: Graph, names: Mapping[str, str]) -> list[NodeProto]:
        nodes: list[NodeProto] = []
        for index, node in enumerate(graph.nodes):
            called = f"ckgrow_node{index}"
            self._shown[called] = shown(node.name)
            inputs = [names[name] for name in node.inputs]
            made = helper.make_node(node.op, inputs, [names[n] for n in node.outputs], called)
            made.attribute.extend(helper.make_attribute(*pair) for pair in node.attributes.items())
            nodes.append(made)
        return nodes


def _single(array: np.ndarray) -> np.ndarray:
    """float64 and float8 as float32; anything else as it is."""
    converted = array.dtype == np.float64 or array.dtype.name in FLOAT8_DTYPES
    return array.astype(np.float32) if converted else array


def _value(array: np.ndarray, dtype: str) -> onnxruntime.OrtValue:
    """A tensor for ONNX Runtime on the array's own memory (but for what becomes float32)."""
    whole = np.ascontiguousarray(_single(array)).reshape(array.shape)
    if dtype == "bfloat16":
        bits = whole.view(np.uint16)
        return onnxruntime.OrtValue.ortvalue_from_numpy_with_onnx_type(bits, TensorProto.BFLOAT16)
    return onnxruntime.OrtValue.ortvalue_from_numpy(whole)
