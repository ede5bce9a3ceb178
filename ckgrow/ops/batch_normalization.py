"""BatchNormalization in eval mode: per channel, gamma * (x - mean) / sqrt(var + eps) + beta."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, ClassVar

from ckgrow.axes import Dim
from ckgrow.graph import Constant, Node, Shape
from ckgrow.ops.rule import Coupling, Entry, Rule, Site, elements

if TYPE_CHECKING:
    import torch

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

    def keeps_zero(self, node: Node, constants: Mapping[str, Constant]) -> bool:
        return True

    def flops(self, site: Site, outputs: Sequence[Shape]) -> int:
        return 2 * elements(outputs[0])

    def evaluate(self, node: Node, inputs: list[torch.Tensor]) -> tuple[torch.Tensor, ...]:
        import torch

        x, gamma, beta, mean, var = inputs
        epsilon = node.get("epsilon", EPSILON)
        return (torch.nn.functional.batch_norm(x, mean, var, gamma, beta, eps=epsilon),)


RULES = (BatchNormalization(),)
