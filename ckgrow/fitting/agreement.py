"""Whether a module's own forward computes what the student's graph does."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import chain
from typing import Any

import numpy as np
import torch
from torch import nn

from ckgrow.errors import CheckpointError
from ckgrow.loading import Loaded
from ckgrow.registry import runtime
from ckgrow.verdict.samples import seeded_samples

SAMPLES = 2
TOLERANCE = 1e-2
"""Largest difference, relative to the largest output, in float32 and float64. A forward that does
not follow its tensors is off by much more, TF32 on a graphics card by less."""
TOLERANCE_HALF = 1e-1
"""The same in float16 and bfloat16."""


def check_forward(module: nn.Module, student: Loaded) -> None:
    """Compares both on a small random batch, in eval mode.

    Only the first output counts: heads that hang on the side run in training mode alone.
    Raises CheckpointError when the forward fails or its output is another.
    """
    graph = student.network.graph
    inputs = seeded_samples(graph, SAMPLES, seed=0).rows(0, SAMPLES)
    session = runtime("torch_float64").Session(graph, student.header, student.tensor)
    expected = session.run(inputs)[graph.outputs[0]]
    like = next(
        (each for each in chain(module.parameters(), module.buffers()) if each.is_floating_point()),
        torch.empty(0),
    )
    batch = [torch.from_numpy(inputs[name]).to(like) for name in graph.inputs]
    try:
        with _evaluating(module), torch.no_grad():
            found = _first(module(*batch))
    except Exception as failure:  # whatever the forward of a foreign class may raise
        reason = " ".join(str(failure).split())[:300]
        raise CheckpointError(
            _refusal(student, f"fails with {type(failure).__name__}: {reason}")
        ) from failure
    if found is None:
        raise CheckpointError(
            f"{type(module).__name__} returns no tensor that could be compared with the "
            "student's outputs; pass check=False to load without the comparison"
        )
    _compare(found.double().cpu().numpy(), expected, like.dtype, student)


@contextmanager
def _evaluating(module: nn.Module) -> Iterator[None]:
    """Eval mode; afterwards every submodule is in the mode it was in."""
    modes = [(each, each.training) for each in module.modules()]
    module.eval()
    try:
        yield
    finally:
        for each, mode in modes:
            each.training = mode


def _first(output: Any) -> torch.Tensor | None:
    if isinstance(output, Mapping):
        output = tuple(output.values())
    while isinstance(output, tuple | list) and output:
        output = output[0]
    return output if isinstance(output, torch.Tensor) else None


def _compare(found: np.ndarray, expected: np.ndarray, dtype: torch.dtype, student: Loaded) -> None:
    if found.shape != expected.shape:
        said = f"makes outputs of shape {list(found.shape)} instead of {list(expected.shape)}"
        raise CheckpointError(_refusal(student, said))
    scale = float(np.abs(expected).max(initial=0.0))
    difference = float(np.abs(found - expected).max(initial=0.0))
    half = dtype in (torch.float16, torch.bfloat16)
    if not difference <= (TOLERANCE_HALF if half else TOLERANCE) * scale:
        said = (
            f"differs from the student's graph by {difference:.2g} in outputs of up to {scale:.2g}"
        )
        raise CheckpointError(_refusal(student, said))


def _refusal(student: Loaded, what: str) -> str:
    said = [
        f"the module has all of the student's tensors, but its forward {what}",
        "it does not follow its tensors (widths or depths may be written in its code): construct "
        "it at the student's widths first",
    ]
    guessed = [each for each in student.network.assumptions if each.source == "default"]
    if guessed:
        facts = ", ".join(f"{each.fact}: {each.value}" for each in guessed)
        said.append(f"or something assumed of the student is wrong ({facts}): state it in options")
    return "; ".join(said)
