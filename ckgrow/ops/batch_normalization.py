"""BatchNormalization in eval mode: per channel, gamma * (x - mean) / sqrt(var + eps) + beta.

Graphs of checkpoints are in eval mode. With ONNX's attribute ``training_mode`` mean and variance
are the batch's, and ``evaluate`` computes that too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from ckgrow.axes import Dim
from ckgrow.graph import Constant, Node, Shape
from ckgrow.ops.rule import Coupling, Entry, Rule, Site, elements

if TYPE_CHECKING:
    import torch

    from ckgrow.ops.tracing import Tracing

EPSILON = 1e-5


class BatchNormalization(Rule):
    """BatchNormalization(x, gamma, beta, mean, var)."""

    op = "BatchNormalization"
    channelwise = True
    entries: ClassVar[Mapping[int, Entry]] = {1: "mean", 2: 0.0, 3: 0.0, 4: 1.0}

    def shapes(self, site: Site) -> tuple[Shape, ...]:
        for index, name in enumerate(site.node.inputs[1:5], start=1):
            if site.sizes(index, 0) != (site.channels(),):
                raise site.fail(
                    f"{name!r} has shape {list(site.sizes(index, 0))} "
                    f"for {site.channels()} channels"
                )
        return (site.shape(),)

    def couple(self, site: Site, coupling: Coupling) -> None:
        axis = coupling.axis(site.node.inputs[0], 1)
        for name in site.node.inputs[1:5]:
            coupling.use(site.node, name, (Dim("channel", axis),))
        coupling.set(site.node.output, coupling.axes(site.node.inputs[0]))

    def trace(self, site: Site, tracing: Tracing) -> tuple[np.ndarray, ...]:
        return (tracing.follow(site, 0, 1, (1, 2, 3, 4)),)

    def affine(
        self, node: Node, tensors: Sequence[np.ndarray]
    ) -> tuple[np.ndarray, np.ndarray] | None:
        if node.get("training_mode", 0):
            return None
        gamma, beta, mean, var = tensors
        with np.errstate(all="ignore"):  # statistics from a file may be anything
            scale = gamma / np.sqrt(var + node.get("epsilon", EPSILON))
            return scale, beta - scale * mean

    def keeps_zero(self, node: Node, constants: Mapping[str, Constant]) -> bool:
        return True

    def flops(self, site: Site, outputs: Sequence[Shape]) -> int:
        return 2 * elements(outputs[0])

    def evaluate(self, node: Node, inputs: list[torch.Tensor]) -> tuple[torch.Tensor, ...]:
        import torch

        x, gamma, beta, mean, var = inputs
        epsilon = node.get("epsilon", EPSILON)
        normalize = torch.nn.functional.batch_norm
        if node.get("training_mode", 0):  # stored statistics are not read, and left as they are
            return (normalize(x, None, None, gamma, beta, training=True, eps=epsilon),)
        return (normalize(x, mean, var, gamma, beta, eps=epsilon),)


RULES = (BatchNormalization(),)
