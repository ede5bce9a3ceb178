"""For tests of chain architectures: our graph in float64 beside a module's own forward."""

import torch

from ckgrow.header import Header, TensorSpec
from ckgrow.ops import rule
from ckgrow.shapes import infer_shapes


def header_of(tensors):
    """The header of a state dict; shapes alone also do: ``{"fc1.weight": (3, 4)}``."""
    specs = {}
    for name, tensor in tensors.items():
        dtype = "float32" if isinstance(tensor, tuple) else str(tensor.dtype).removeprefix("torch.")
        shape = tensor if isinstance(tensor, tuple) else tuple(tensor.shape)
        specs[name] = TensorSpec(dtype, shape)
    return Header(specs)


def evaluate(graph, tensors, x):
    """The graph's first output in float64, node by node."""
    values = {name: tensor.double() for name, tensor in tensors.items()}
    values |= {
        name: torch.from_numpy(constant.array()).double()
        for name, constant in graph.constants.items()
    }
    (name,) = graph.inputs
    values[name] = x.double()
    for node in graph.nodes:
        inputs = [values[entry] for entry in node.inputs if entry]
        values.update(zip(node.outputs, rule(node.op).evaluate(node, inputs), strict=True))
    return values[graph.outputs[0]]


def randomised(module, seed=0):
    """The module in float64 and eval mode, all parameters and statistics drawn at random."""
    generator = torch.Generator().manual_seed(seed)
    module = module.double().eval()
    for name, tensor in module.state_dict().items():
        if name.endswith("running_var"):
            tensor.copy_(torch.rand(tensor.shape, generator=generator, dtype=torch.float64) + 0.5)
        elif tensor.is_floating_point():
            scale = 1.0 / max(tensor[0].numel(), 4) ** 0.5
            drawn = torch.randn(tensor.shape, generator=generator, dtype=torch.float64)
            tensor.copy_(drawn * scale)
    return module


def agrees(adapter, module, x, options=None, *, forward=None, tolerance=1e-10):
    """Builds the module's checkpoint and compares; returns the network."""
    tensors = module.state_dict()
    header = header_of(tensors)
    explanation = adapter.explain(header)
    assert explanation.complete, explanation
    network = adapter.build(header, options or {})
    infer_shapes(network.graph, header)
    used = set(network.graph.parameters()) | set(network.passthrough)
    assert used == set(header)
    with torch.no_grad():
        expected = (forward or module)(x.double())
        found = evaluate(network.graph, tensors, x)
    scale = float(expected.abs().max())
    assert found.shape == expected.shape
    assert scale > 0
    assert float((found - expected).abs().max()) <= tolerance * scale
    return network


def facts(network):
    """Assumptions by fact: (value, source)."""
    return {entry.fact: (entry.value, entry.source) for entry in network.assumptions}
