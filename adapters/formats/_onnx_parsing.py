"""What an ONNX model holds besides its network: initialisers and metadata.

A state dict and an ONNX model do not agree on what a tensor is: exporters make initialisers of the
constants in the code, too. Such a one is no part of the checkpoint: a node reads it, its name is
no path of a module, and it is integer or a single number. Models that ckgrow wrote have none.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ckgrow.checkpoint import File
from ckgrow.errors import CheckpointError
from ckgrow.names import shown

from ._onnx_tensors import Initialiser, entry, initialiser
from ._onnx_types import GRAPH, INITIALIZER, INPUT, METADATA, NODE, PRODUCER, SPARSE
from ._onnx_wire import BYTES, Field, Wire

WRITER = "ckgrow"
"""The ``producer_name`` of the models that ckgrow writes."""


@dataclass(frozen=True)
class Model:
    """Initialisers and metadata by name; ``constants`` are initialisers that are no weights.

    ``ours`` says whether ckgrow wrote it.
    """

    tensors: Mapping[str, Initialiser]
    metadata: Mapping[str, str]
    constants: tuple[str, ...]
    ours: bool


def parse(file: File) -> Model:
    """Reads everything but the data of tensors; CheckpointError for what is no such model."""
    wire = Wire(file)
    graph: Field | None = None
    metadata: dict[str, str] = {}
    producer = ""
    for field in wire.fields(0, file.size):
        if field.number == GRAPH:
            wire.require(field, BYTES)
            if graph is not None:
                raise wire.damaged(field.start, "it has two graphs")
            graph = field
        elif field.number == PRODUCER:
            producer = wire.text(field)
        elif field.number == METADATA:
            key, value = entry(wire, field)
            if key in metadata:
                raise wire.damaged(field.start, f"its metadata has {shown(key)} twice")
            metadata[key] = value
    if graph is None:
        raise wire.damaged(file.size, "it has no graph")
    tensors, read = _graph(wire, graph)
    ours = producer == WRITER
    constants = () if ours else _constants(tensors, read)
    kept = {name: each for name, each in tensors.items() if name not in constants}
    return Model(kept, metadata, constants, ours)


def _graph(wire: Wire, graph: Field) -> tuple[dict[str, Initialiser], set[str]]:
    """All initialisers, and the names that nodes read."""
    tensors: dict[str, Initialiser] = {}
    read: set[str] = set()
    for field in wire.fields(graph.start, graph.stop):
        if field.number == NODE:
            wire.require(field, BYTES)
            inputs = wire.fields(field.start, field.stop)
            read.update(wire.text(each) for each in inputs if each.number == INPUT)
        elif field.number == INITIALIZER:
            found = initialiser(wire, field)
            if found.name in tensors:
                raise CheckpointError(
                    f"{wire.place} is ambiguous: it has two tensors {shown(found.name)}; save the "
                    "model again"
                )
            tensors[found.name] = found
        elif field.number == SPARSE:
            raise CheckpointError(
                f"{wire.place} has sparse tensors, which ckgrow cannot read; save the model with "
                "dense ones"
            )
    return tensors, read


def _constants(tensors: Mapping[str, Initialiser], read: set[str]) -> tuple[str, ...]:
    return tuple(
        name
        for name, each in tensors.items()
        if name in read and "." not in name and not (each.spec.shape and each.spec.is_float)
    )
