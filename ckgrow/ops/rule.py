"""What a rule is, and the place where it is asked."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal, Protocol

from ckgrow.axes import Atoms, Axis, Dim
from ckgrow.errors import GraphError
from ckgrow.graph import Constant, Node, Shape

if TYPE_CHECKING:
    import numpy as np
    import torch

    from ckgrow.ops.tracing import Tracing


@dataclass(frozen=True)
class Site:
    """A node with what is known of its inputs: shapes and constants by position."""

    node: Node
    shapes: tuple[Shape | None, ...]
    constants: tuple[Constant | None, ...]

    @staticmethod
    def of(node: Node, shapes: Mapping[str, Shape], constants: Mapping[str, Constant]) -> Site:
        """The site of a node; GraphError when an input has no shape yet."""
        try:
            known = tuple([shapes[name] if name else None for name in node.inputs])
        except KeyError as unknown:
            raise GraphError(
                f"{node.name!r} reads {unknown.args[0]!r}, which nothing makes"
            ) from None
        return Site(node, known, tuple([constants.get(name) for name in node.inputs]))

    @property
    def by_name(self) -> Mapping[str, Constant]:
        """The constants among the inputs by their names."""
        pairs = zip(self.node.inputs, self.constants, strict=True)
        return {name: constant for name, constant in pairs if constant is not None}

    def shape(self, index: int = 0) -> Shape:
        """The shape of a required input."""
        found = self.shapes[index] if index < len(self.shapes) else None
        if found is None:
            raise GraphError(f"{self.node.op} {self.node.name!r} lacks its input {index}")
        return found

    def sizes(self, index: int = 0, start: int = 2) -> tuple[int, ...]:
        """Dimensions ``start`` on of an input as whole numbers (spatial ones by default)."""
        sizes = self.shape(index)[start:]
        if not all(isinstance(size, int) for size in sizes):
            raise GraphError(f"{self.node.op} {self.node.name!r} needs whole sizes, not {sizes}")
        return tuple(int(size) for size in sizes)

    def channels(self, index: int = 0, dim: int = 1) -> int:
        """The size of one dimension of an input as a whole number."""
        return self.sizes(index, dim)[0]

    def ints(self, index: int) -> tuple[int, ...] | None:
        """A constant input as whole numbers, None when it is omitted."""
        if index >= len(self.node.inputs) or not self.node.inputs[index]:
            return None
        constant = self.constants[index]
        if constant is None:
            name = self.node.inputs[index]
            raise GraphError(f"{self.node.op} {self.node.name!r}: {name!r} must be a constant")
        return tuple(int(value) for value in constant.values)

    def fail(self, problem: str) -> GraphError:
        """An error that names this node."""
        return GraphError(f"{self.node.op} {self.node.name!r}: {problem}")


class Coupling(Protocol):
    """What a rule sees, and says, while the graph is walked. ``atoms`` is the table of axes.

    ``by_groups`` names grouped convolutions that are to grow by whole groups.
    """

    atoms: Atoms
    shapes: Mapping[str, Shape]
    by_groups: Collection[str]

    def is_value(self, name: str) -> bool:
        """Whether a node's input is computed, rather than a parameter or a constant."""
        ...

    def axes(self, value: str) -> tuple[Axis | None, ...]:
        """The axes of a value, None for dimensions that hold no channels."""
        ...

    def axis(self, value: str, dim: int) -> Axis:
        """The channel axis of one dimension; a fixed one is made where there is none."""
        ...

    def set(self, value: str, axes: tuple[Axis | None, ...]) -> None:
        """States the axes of a value that the node makes."""
        ...

    def use(self, node: Node, tensor: str, dims: tuple[Dim | None, ...]) -> None:
        """States how a parameter follows channel axes; "" (omitted) is ignored."""
        ...

    def fix_all(self, value: str, reason: str) -> None:
        """No channel of ``value`` can grow."""
        ...


class Growth(Protocol):
    """What a rule sees when widths have changed; axes are those before the growth."""

    @property
    def by_groups(self) -> Collection[str]:
        """Grouped convolutions that have grown by whole groups."""
        ...

    def value_axis(self, value: str, dim: int) -> Axis | None:
        """The axis of a dimension of a value."""
        ...

    def length(self, axis: Axis) -> int:
        """The new length of an axis."""
        ...

    def head(self, axis: Axis, stop: int) -> int:
        """The new length of an axis' first ``stop`` entries."""
        ...


Entry = float | Literal["mean"]
"""What a new channel's entry of a per-channel tensor starts from: a number, or the others' mean."""


class Rule(ABC):
    """The rule of one op.

    ``idempotent``: f(f(x)) = f(x). ``homogeneous``: f(a x) = a f(x) for every a > 0.
    ``elementwise``: one input, one output, every element by itself with the same function.
    ``channelwise``: one value and perhaps parameters, every channel by itself; every elementwise
    op is. ``neutral``: the operand with which a binary op leaves the other as it is.
    ``entries``: what new channels' entries of per-channel tensors start from, by input position.

    ``makes_channels``: a layer; inputs are a value, a weight whose first two dimensions are its
    channels on either side, and perhaps a bias. ``channel_dim``: where its values hold channels.
    """

    op: str
    idempotent = False
    homogeneous = False
    elementwise = False
    channelwise = False
    neutral: float | None = None
    entries: ClassVar[Mapping[int, Entry]] = {}
    makes_channels = False
    channel_dim = 1

    def __init__(self, op: str = "") -> None:
        if op:
            self.op = op

    @abstractmethod
    def shapes(self, site: Site) -> tuple[Shape, ...]:
        """Shapes of the outputs."""

    @abstractmethod
    def couple(self, site: Site, coupling: Coupling) -> None:
        """States the axes of the outputs and how parameters follow them."""

    def trace(self, site: Site, tracing: Tracing) -> tuple[np.ndarray, ...]:
        """Labels of the outputs (``ckgrow.labels``): what is equal where the inputs' are.

        An op that says nothing is a function of all of its inputs as they are, no more.
        """
        return tracing.opaque(site)

    def affine(
        self, node: Node, tensors: Sequence[np.ndarray]
    ) -> tuple[np.ndarray, np.ndarray] | None:
        """(scale, shift) per channel of an op that is x -> scale x + shift, NaN where it is not.

        ``tensors`` are its parameters in float64, one entry per channel each. None for an op that
        never is.
        """
        return None

    def keeps_zero(self, node: Node, constants: Mapping[str, Constant]) -> bool:
        """Whether a channel that is zero everywhere is so behind the node, given that new entries
        of parameters are as :attr:`entries` says. No promise by default."""
        return False

    def flat_at_zero(self, node: Node, constants: Mapping[str, Constant]) -> bool:
        """Whether the gradient of a channel that is zero everywhere is zero, so that the channel
        stays zero when it is trained."""
        return False

    def rows(self, node: Node) -> int:
        """The dimension of a layer's weight that makes its outputs; the other reads its input."""
        return 0

    def resize(self, site: Site, growth: Growth) -> tuple[Node, Mapping[int, Constant]]:
        """The node after growth, and new constants by input position."""
        return site.node, {}

    def flops(self, site: Site, outputs: Sequence[Shape]) -> int:
        """Floating point operations for one sample; one per output element by default."""
        return sum(elements(shape) for shape in outputs)

    @abstractmethod
    def evaluate(self, node: Node, inputs: list[torch.Tensor]) -> tuple[torch.Tensor, ...]:
        """Computes the op in the dtype of its inputs; omitted inputs are left out at the end."""


def elements(shape: Shape) -> int:
    """Number of elements of one sample; the batch counts as one."""
    return math.prod(size for size in shape if isinstance(size, int))


class Layout(Rule):
    """An op without arithmetic: it costs nothing, and scaling passes through."""

    homogeneous = True

    def keeps_zero(self, node: Node, constants: Mapping[str, Constant]) -> bool:
        return True

    def flops(self, site: Site, outputs: Sequence[Shape]) -> int:
        return 0
