"""What the tests of architecture adapters share: a graph computed in float64, beside torch's own.

Models get random weights and BatchNorm statistics that are not the initial ones.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch

from ckgrow.architecture import Architecture, Network
from ckgrow.graph import Graph
from ckgrow.header import Header, TensorSpec
from ckgrow.ops import rule

State = Mapping[str, torch.Tensor]


def header_of(state: State) -> Header:
    return Header(
        {
            name: TensorSpec(str(tensor.dtype).removeprefix("torch."), tuple(tensor.shape))
            for name, tensor in state.items()
        }
    )


def without(header: Header, *names: str) -> Header:
    return Header({name: spec for name, spec in header.items() if name not in names})


def reshaped(header: Header, name: str, shape: tuple[int, ...], dtype: str = "float32") -> Header:
    """The same header with one tensor changed or added."""
    return Header({**header, name: TensorSpec(dtype, shape)})


def randomized(model: torch.nn.Module, seed: int = 0) -> torch.nn.Module:
    generator = torch.Generator().manual_seed(seed)

    def normal(tensor: torch.Tensor, scale: float) -> None:
        tensor.copy_(torch.randn(tensor.shape, generator=generator) * scale)

    model = model.double().eval()
    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            if tensor.dim() > 1:
                normal(tensor, math.sqrt(2 / tensor[0].numel()))
            elif name.endswith(("bias", "running_mean")):
                normal(tensor, 0.2)
            elif tensor.is_floating_point():  # gamma and variance
                tensor.copy_(0.5 + torch.rand(tensor.shape, generator=generator))
    return model


def images(count: int, size: Sequence[int], seed: int = 1) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn((count, *size), generator=generator, dtype=torch.float64)


def evaluate(graph: Graph, state: State, x: torch.Tensor) -> dict[str, torch.Tensor]:
    values: dict[str, torch.Tensor] = dict.fromkeys(graph.inputs, x)
    values |= {name: torch.from_numpy(each.array()) for name, each in graph.constants.items()}
    with torch.no_grad():
        for node in graph.nodes:
            inputs = [values[name] if name in values else state[name] for name in node.inputs]
            values.update(zip(node.outputs, rule(node.op).evaluate(node, inputs), strict=True))
    return {name: values[name] for name in graph.outputs}


def assert_close(ours: torch.Tensor, theirs: torch.Tensor) -> None:
    assert ours.shape == theirs.shape
    scale = theirs.abs().max()
    assert torch.isfinite(scale)
    assert (theirs - theirs[0]).abs().max() > 1e-3 * scale, "the outputs do not vary"
    assert (ours - theirs).abs().max() <= 1e-10 * scale


def assert_complete(adapter: Architecture, header: Header) -> None:
    explanation = adapter.explain(header)
    assert explanation.missing == ()
    assert explanation.problems == ()
    assert explanation.unexplained == ()
    assert explanation.explained == set(header)
    assert explanation.complete


def assert_computes(
    adapter: Architecture,
    model: torch.nn.Module,
    size: Sequence[int],
    *,
    count: int = 2,
    **options: object,
) -> Network:
    """The adapter's graph of ``model`` computes what the model does."""
    model = randomized(model)
    state = model.state_dict()
    assert_complete(adapter, header_of(state))
    network = adapter.build(header_of(state), {"input": list(size), **options})
    x = images(count, size)
    with torch.no_grad():
        theirs = model(x)
    (ours,) = evaluate(network.graph, state, x).values()
    assert_close(ours, theirs)
    assert set(network.passthrough) == {name for name in state if "num_batches" in name}
    return network
