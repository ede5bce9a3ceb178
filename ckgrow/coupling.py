"""Remapping inference: which channels of which tensors must change together.

The graph is walked once. The rule of each op (``ckgrow.ops``) says what it does to channel axes;
nothing else decides. The Net2Net paper (section 2.3) asks for such a "remapping inference
algorithm"; this one is a union-find over axes (``ckgrow.axes``).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from ckgrow.axes import Atoms, Axis, Dim
from ckgrow.errors import GraphError
from ckgrow.graph import BATCH, Graph, Node
from ckgrow.header import Header
from ckgrow.ops import Site, rule
from ckgrow.ops.rule import Coupling
from ckgrow.shapes import Shapes, infer_shapes


@dataclass(frozen=True)
class Use:
    """One node reading one parameter (or constant); ``dims`` has an entry per dimension."""

    node: str
    tensor: str
    dims: tuple[Dim | None, ...]


@dataclass(frozen=True)
class Coupled:
    """The result: axes of all values and tensors in terms of settled atoms.

    ``by_groups`` names the grouped convolutions whose groups were taken for units.
    """

    values: Mapping[str, tuple[Axis | None, ...]]
    uses: tuple[Use, ...]
    counts: Mapping[int, int]
    fixed: Mapping[int, str]
    ties: Mapping[int, int]
    shapes: Shapes
    by_groups: frozenset[str]

    def length(self, axis: Axis) -> int:
        """Number of entries of an axis."""
        return sum(self.counts[segment.atom] * segment.inner for segment in axis)


class _Walk(Coupling):
    """The coupling while the graph is walked."""

    def __init__(
        self,
        graph: Graph,
        shapes: Shapes,
        by_groups: frozenset[str],
        one_parameter: Mapping[str, str],
    ) -> None:
        self.atoms = Atoms()
        self.shapes = shapes
        self.by_groups = by_groups
        self._graph = graph
        self._one_parameter = one_parameter
        self._values: dict[str, tuple[Axis | None, ...]] = {}
        self._uses: list[Use] = []

    def is_value(self, name: str) -> bool:
        """Whether a node's input is computed, rather than a parameter or a constant."""
        return name in self._values

    def axes(self, value: str) -> tuple[Axis | None, ...]:
        """The axes of a value, None for dimensions that hold no channels."""
        return self._values[value]

    def axis(self, value: str, dim: int) -> Axis:
        """The channel axis of one dimension; a fixed one is made where there is none."""
        axes = self._values[value]
        found = axes[dim]
        if found is None:
            size = self.shapes[value][dim]
            if not isinstance(size, int):
                raise GraphError(f"dimension {dim} of {value!r} has no known size")
            found = self.atoms.new(size)
            self.atoms.fix(found, f"dimension {dim} of {value!r} holds no channels")
            filled = list(axes)
            filled[dim] = found
            self._values[value] = tuple(filled)
        return found

    def set(self, value: str, axes: tuple[Axis | None, ...]) -> None:
        """States the axes of a value that a node makes."""
        self._values[value] = axes

    def use(self, node: Node, tensor: str, dims: tuple[Dim | None, ...]) -> None:
        """States how a parameter follows channel axes; "" (omitted) is ignored."""
        if not tensor:
            return
        self._uses.append(Use(node.name, tensor, dims))
        if tensor in self._graph.constants:
            for dim in dims:
                if dim is not None and dim.role != "channel":
                    self.atoms.fix(dim.axis, f"{node.name!r} has constant weights")

    def fix_all(self, value: str, reason: str) -> None:
        """No channel of ``value`` can grow."""
        for axis in self._values[value]:
            if axis is not None:
                self.atoms.fix(axis, reason)

    def settled(self) -> Coupled:
        """The finished table. Uses of one tensor by several nodes are made to agree.

        So are uses of several tensors that are one parameter.
        """
        self._share_tensors()
        ties = self.atoms.settle()
        resolve = self.atoms.resolve
        values = {
            name: tuple(None if axis is None else resolve(axis) for axis in axes)
            for name, axes in self._values.items()
        }
        uses = tuple(
            Use(
                use.node,
                use.tensor,
                tuple(dim and Dim(dim.role, resolve(dim.axis), dim.blocks) for dim in use.dims),
            )
            for use in self._uses
        )
        counts = {atom: self.atoms.count(atom) for atom in ties}
        fixed = {atom: reason for atom in ties if (reason := self.atoms.fixed(atom)) is not None}
        return Coupled(values, uses, counts, fixed, ties, self.shapes, self.by_groups)

    def _share_tensors(self) -> None:
        first: dict[str, Use] = {}
        for use in self._uses:
            known = first.setdefault(self._one_parameter.get(use.tensor, use.tensor), use)
            if known is use:
                continue
            for a, b in zip(known.dims, use.dims, strict=True):
                where = f"the shared tensor {known.tensor!r}"
                if a is None or b is None or (a.role, a.blocks) != (b.role, b.blocks):
                    for dim in (a, b):
                        if dim is not None:
                            self.atoms.fix(dim.axis, f"{where} is used in two ways")
                else:
                    self.atoms.unify(a.axis, b.axis, where)


def couple(
    graph: Graph,
    header: Header,
    by_groups: frozenset[str] = frozenset(),
    open_ends: frozenset[str] = frozenset(),
    one_parameter: Mapping[str, str] = MappingProxyType({}),
) -> Coupled:
    """Infers which channels belong together; every op's rule is asked once, in order.

    ``by_groups`` names grouped convolutions that are to grow by whole groups rather than inside
    each of them; ``open_ends`` the graph inputs and outputs whose channels may grow.
    ``one_parameter`` leads from tensors that are tied to the first of them.
    """
    shapes = infer_shapes(graph, header)
    coupling = _Walk(graph, shapes, by_groups, one_parameter)
    for name in graph.inputs:
        coupling.set(name, _input_axes(coupling, name))
        if name not in open_ends:
            coupling.fix_all(name, f"graph input {name!r}")
    for node in graph.nodes:
        site = Site.of(node, shapes, graph.constants)
        rule(node.op).couple(site, coupling)
        for value in node.outputs:
            if value and not coupling.is_value(value):
                raise GraphError(f"the rule of {node.op} says nothing of {value!r}")
    for name in graph.outputs:
        if name not in open_ends:
            coupling.fix_all(name, f"graph output {name!r}")
    return coupling.settled()


def _input_axes(coupling: _Walk, name: str) -> tuple[Axis | None, ...]:
    shape = coupling.shapes[name]
    channel = 1 if len(shape) in (2, 4, 5) else len(shape) - 1
    axes: list[Axis | None] = [None] * len(shape)
    size = shape[channel]
    if size != BATCH and isinstance(size, int):
        axes[channel] = coupling.atoms.new(size)
    return tuple(axes)
