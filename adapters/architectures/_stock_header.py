"""The header of a published network, for the input and the classes of a checkpoint at hand."""

from __future__ import annotations

from collections.abc import Mapping

from ckgrow.graph import Graph
from ckgrow.header import Header, TensorSpec

from ._emitting import INPUT
from ._explaining import BATCH_NORM, COUNTER

Shapes = dict[str, tuple[int, ...]]

COLOURS = 3
"""The channels that published networks read."""


def norm_shapes(path: str, channels: int) -> Shapes:
    """The tensors of a BatchNorm; its counter aside."""
    return {f"{path}.{part}": (channels,) for part in BATCH_NORM}


def header_like(header: Header, shapes: Mapping[str, tuple[int, ...]]) -> Header:
    """Tensors of these shapes in the dtype of ``header``, with counters of batches if it has any.

    Checkpoints of before PyTorch 0.4.1 have none, and load ``strict`` without them.
    """
    dtype = next(spec.dtype for spec in header.values() if spec.is_float)
    counters = (spec for name, spec in header.items() if name.endswith(f".{COUNTER}"))
    counter = next(counters, None)
    specs: dict[str, TensorSpec] = {}
    for name, shape in shapes.items():
        specs[name] = TensorSpec(dtype, shape)
        path, _, part = name.rpartition(".")
        if counter is not None and part == BATCH_NORM[-1]:
            specs[f"{path}.{COUNTER}"] = counter
    return Header(specs)


def input_size(graph: Graph) -> list[int]:
    """[channels, height, width] of the images that a network reads, as its option has them."""
    return [int(size) for size in graph.inputs[INPUT][1:]]


def class_count(graph: Graph, header: Header) -> int | None:
    """How many classes the first output tells apart; None where no linear layer makes it."""
    last = graph.producers()[graph.outputs[0]]
    return header.shape(last.inputs[1])[0] if last.op == "Gemm" else None


def with_classes(count: int, *others: str) -> str:
    """What a constructor is called with, as a phrase: the number of classes if it is not 1000."""
    arguments = (*([] if count == 1000 else [f"num_classes={count}"]), *others)
    return f" with {' and '.join(arguments)}" if arguments else ""
