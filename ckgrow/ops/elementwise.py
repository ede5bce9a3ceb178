"""Activations and other functions of one element: channels pass through unchanged."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from ckgrow.axes import Dim
from ckgrow.graph import Constant, Node, Shape
from ckgrow.ops.rule import Coupling, Entry, Rule, Site, elements
from ckgrow.ops.tracing import signature

if TYPE_CHECKING:
    import torch

    from ckgrow.ops.tracing import Tracing

Function = Callable[[Node, "torch.Tensor"], "torch.Tensor"]


class Elementwise(Rule):
    """A function applied to every element by itself."""

    elementwise = True
    channelwise = True

    def __init__(
        self,
        op: str,
        function: Function,
        *,
        idempotent: bool = False,
        homogeneous: bool = False,
        zero: bool = True,
        flat: bool = False,
    ) -> None:
        super().__init__(op)
        self._function = function
        self._zero = zero
        self._flat = flat
        self.idempotent = idempotent
        self.homogeneous = homogeneous

    def shapes(self, site: Site) -> tuple[Shape, ...]:
        return (site.shape(),)

    def couple(self, site: Site, coupling: Coupling) -> None:
        coupling.set(site.node.output, coupling.axes(site.node.inputs[0]))

    def trace(self, site: Site, tracing: Tracing) -> tuple[np.ndarray, ...]:
        bounds = zip(site.node.inputs[1:], site.constants[1:], strict=True)
        if any(name and constant is None for name, constant in bounds):
            return tracing.opaque(site)
        made = tracing.table.applied(
            signature(site),
            tracing.labels(0),
            keeps_zero=self.keeps_zero(site.node, site.by_name),
            homogeneous=self.homogeneous,
            idempotent=self.idempotent,
        )
        return (made,)

    def keeps_zero(self, node: Node, constants: Mapping[str, Constant]) -> bool:
        return self._zero

    def flat_at_zero(self, node: Node, constants: Mapping[str, Constant]) -> bool:
        return self._flat

    def evaluate(self, node: Node, inputs: list[torch.Tensor]) -> tuple[torch.Tensor, ...]:
        return (self._function(node, inputs[0]),)


class Passing(Elementwise):
    """Identity, and Dropout as it is in eval mode."""

    def __init__(self, op: str) -> None:
        super().__init__(op, lambda _, x: x, idempotent=True, homogeneous=True)

    def trace(self, site: Site, tracing: Tracing) -> tuple[np.ndarray, ...]:
        return (tracing.labels(0),)

    def flops(self, site: Site, outputs: Sequence[Shape]) -> int:
        return 0


class Clip(Elementwise):
    """Clip(x, min, max); ReLU6 is Clip with 0 and 6."""

    def __init__(self) -> None:
        super().__init__("Clip", lambda _, x: x, idempotent=True)

    def keeps_zero(self, node: Node, constants: Mapping[str, Constant]) -> bool:
        low, high = self._bounds(node, constants)
        return low <= 0 <= high

    def flat_at_zero(self, node: Node, constants: Mapping[str, Constant]) -> bool:
        """At a bound too, as ReLU6 and Hardtanh of torch are."""
        low, high = self._bounds(node, constants)
        return not low < 0 < high

    def _bounds(self, node: Node, constants: Mapping[str, Constant]) -> tuple[float, float]:
        low, high = (constants.get(node.input(index)) for index in (1, 2))
        return (
            -math.inf if low is None else low.values[0],
            math.inf if high is None else high.values[0],
        )

    def evaluate(self, node: Node, inputs: list[torch.Tensor]) -> tuple[torch.Tensor, ...]:
        x, *bounds = inputs
        names = [name for name in node.inputs[1:] if name]
        low = bounds[0] if node.input(1) else None
        high = bounds[len(names) - 1] if node.input(2) else None
        return (x.clamp(min=low, max=high),)


class PRelu(Rule):
    """PRelu(x, slope): one slope for all channels, or one per channel."""

    op = "PRelu"
    homogeneous = True
    channelwise = True
    entries: ClassVar[Mapping[int, Entry]] = {1: "mean"}

    def shapes(self, site: Site) -> tuple[Shape, ...]:
        return (site.shape(),)

    def couple(self, site: Site, coupling: Coupling) -> None:
        value, slope = site.node.inputs[:2]
        sizes = site.sizes(1, 0)
        channel = 1 - (len(site.shape()) - len(sizes))  # slopes broadcast from the right
        dims: list[Dim | None] = [None] * len(sizes)
        if 0 <= channel < len(sizes) and sizes[channel] > 1:
            dims[channel] = Dim("channel", coupling.axis(value, 1))
        if any(size > 1 for dim, size in enumerate(sizes) if dim != channel):
            raise site.fail(f"slope of shape {list(sizes)} is not one per channel")
        coupling.use(site.node, slope, tuple(dims))
        coupling.set(site.node.output, coupling.axes(value))

    def trace(self, site: Site, tracing: Tracing) -> tuple[np.ndarray, ...]:
        return (tracing.follow(site, 0, 1, (1,)),)

    def affine(
        self, node: Node, tensors: Sequence[np.ndarray]
    ) -> tuple[np.ndarray, np.ndarray] | None:
        (slope,) = tensors
        return np.where(slope == 1.0, 1.0, np.nan), np.zeros_like(slope)

    def keeps_zero(self, node: Node, constants: Mapping[str, Constant]) -> bool:
        return True

    def flops(self, site: Site, outputs: Sequence[Shape]) -> int:
        return 2 * elements(outputs[0])

    def evaluate(self, node: Node, inputs: list[torch.Tensor]) -> tuple[torch.Tensor, ...]:
        x, slope = inputs
        return (x.clamp(min=0) + slope * x.clamp(max=0),)


def _functional(name: str) -> Function:
    def function(_: Node, x: torch.Tensor) -> torch.Tensor:
        import torch

        result: torch.Tensor = getattr(torch.nn.functional, name)(x)
        return result

    return function


def _gelu(node: Node, x: torch.Tensor) -> torch.Tensor:
    import torch

    return torch.nn.functional.gelu(x, approximate=node.get("approximate", "none"))


def _elu(node: Node, x: torch.Tensor) -> torch.Tensor:
    import torch

    return torch.nn.functional.elu(x, alpha=node.get("alpha", 1.0))


def _leaky_relu(node: Node, x: torch.Tensor) -> torch.Tensor:
    import torch

    return torch.nn.functional.leaky_relu(x, node.get("alpha", 0.01))


def _hard_sigmoid(node: Node, x: torch.Tensor) -> torch.Tensor:
    line: torch.Tensor = x * node.get("alpha", 0.2) + node.get("beta", 0.5)
    return line.clamp(0.0, 1.0)


RULES = (
    Passing("Identity"),
    Passing("Dropout"),
    Clip(),
    PRelu(),
    Elementwise("Relu", _functional("relu"), idempotent=True, homogeneous=True, flat=True),
    Elementwise("LeakyRelu", _leaky_relu, homogeneous=True),
    Elementwise("Abs", lambda _, x: x.abs(), idempotent=True, homogeneous=True, flat=True),
    Elementwise("Neg", lambda _, x: -x, homogeneous=True),
    Elementwise("Elu", _elu),
    Elementwise("Selu", _functional("selu")),
    Elementwise("Gelu", _gelu),
    Elementwise("Sigmoid", lambda _, x: x.sigmoid(), zero=False),
    Elementwise("HardSigmoid", _hard_sigmoid, zero=False),
    Elementwise("HardSwish", _functional("hardswish")),
    Elementwise("Mish", _functional("mish")),
    Elementwise("Softplus", _functional("softplus"), zero=False),
    Elementwise("Softsign", _functional("softsign")),
    Elementwise("Tanh", lambda _, x: x.tanh()),
    Elementwise("Erf", lambda _, x: x.erf()),
    Elementwise("Exp", lambda _, x: x.exp(), zero=False),
    Elementwise("Sqrt", lambda _, x: x.sqrt()),
)
