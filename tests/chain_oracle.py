"""For tests of chain architectures: our graph in float64 beside a module's own forward."""

import torch
from architecture_oracles import assert_close, assert_complete, evaluate

from ckgrow.header import Header, TensorSpec


def header_of(tensors):
    """The header of a state dict; shapes alone also do: ``{"fc1.weight": (3, 4)}``."""
    specs = {}
    for name, tensor in tensors.items():
        dtype = "float32" if isinstance(tensor, tuple) else str(tensor.dtype).removeprefix("torch.")
        shape = tensor if isinstance(tensor, tuple) else tuple(tensor.shape)
        specs[name] = TensorSpec(dtype, shape)
    return Header(specs)


def agrees(adapter, module, x, options=None, *, forward=None):
    """Builds the checkpoint of ``module`` and compares both in float64; returns the network."""
    tensors = module.state_dict()
    header = header_of(tensors)
    assert_complete(adapter, header)
    network = adapter.build(header, options or {})
    assert set(network.graph.parameters()) | set(network.passthrough) == set(header)
    with torch.no_grad():
        expected = (forward or module)(x)
    (found,) = evaluate(network.graph, tensors, x).values()
    assert_close(found, expected)
    return network


def facts(network):
    """Assumptions by fact: (value, source)."""
    return {entry.fact: (entry.value, entry.source) for entry in network.assumptions}
