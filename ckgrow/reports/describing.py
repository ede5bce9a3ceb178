"""Networks and plans as documents: sizes, costs, tables."""

from __future__ import annotations

from collections.abc import Callable

from ckgrow.drafts.draft import Draft
from ckgrow.graph import Graph
from ckgrow.groups import Grouping
from ckgrow.header import Header
from ckgrow.loading import Loaded
from ckgrow.ops import Site, rule
from ckgrow.planning import Plan
from ckgrow.recipes import history
from ckgrow.reports.documents import (
    Amount,
    GroupRow,
    InspectDocument,
    LayerRow,
    PlanDocument,
    TensorRow,
)
from ckgrow.shapes import Shapes

_STATISTICS = (3, 4)
"""BatchNormalization's inputs that are measured, not learned."""


def describe_checkpoint(loaded: Loaded) -> InspectDocument:
    """The ``inspect`` document of an open checkpoint."""
    network, prefix = loaded.network, loaded.prefix
    grouping = Draft.of_teacher(network.graph, loaded.header, loaded.ties).grouping
    history_ = loaded.provenance
    return InspectDocument(
        loaded.label,
        loaded.architecture.name,
        network.options,
        network.assumptions,
        layer_rows(grouping),
        group_rows(grouping, prefix),
        {stage.name: stage.blocks for stage in loaded.architecture.stages(network.graph)},
        _prefixed(prefix, network.passthrough),
        loaded.reader.contents.dropped,
        count_parameters(network.graph, loaded.header),
        count_bytes(loaded.header),
        count_flops(network.graph, grouping.coupled.shapes),
        _prefixed(prefix, history_.new_tensors) if history_ else (),
        {prefix + name: axes for name, axes in history_.kept.items()} if history_ else {},
        history_.as_ancestor() if history_ else (),
    )


def describe_plan(plan: Plan) -> PlanDocument:
    """The ``plan`` document."""
    teacher, network = plan.teacher, plan.teacher.network
    prefix = teacher.prefix
    return PlanDocument(
        teacher.label,
        teacher.architecture.name,
        network.options,
        network.assumptions,
        group_rows(plan.start.grouping, prefix),
        plan.steps,
        plan.preserves,
        tensor_rows(plan),
        {prefix + before: prefix + now for before, now in plan.draft.renames.items()},
        _prefixed(prefix, plan.new_tensors),
        teacher.reader.contents.dropped,
        plan.stock_loadable,
        *amounts(plan),
    )


def amounts(plan: Plan) -> tuple[Amount, Amount, Amount]:
    """Parameters, bytes and FLOPs of teacher and student."""

    def amount(count: Callable[[Draft], int]) -> Amount:
        return Amount(count(plan.start), count(plan.draft))

    return (
        amount(lambda draft: count_parameters(draft.graph, draft.header)),
        amount(lambda draft: count_bytes(draft.header)),
        amount(lambda draft: count_flops(draft.graph, draft.shapes)),
    )


def group_rows(grouping: Grouping, prefix: str) -> tuple[GroupRow, ...]:
    """The coupling as a table; tensors are named as in the file, ``prefix`` included."""
    return tuple(
        GroupRow(
            group.name,
            group.width,
            group.runs,
            group.layers,
            _prefixed(prefix, group.axes),
            group.growable,
            group.reason,
        )
        for group in grouping.groups.values()
    )


def layer_rows(grouping: Grouping) -> tuple[LayerRow, ...]:
    """Layers and their groups."""
    return tuple(
        LayerRow(layer.name, layer.op, layer.width, layer.groups)
        for layer in grouping.layers.values()
    )


def tensor_rows(plan: Plan) -> tuple[TensorRow, ...]:
    """Every student tensor as the file names it, in the order of the student."""
    before = {after: name for name, after in plan.draft.names.items()}
    return tuple(
        TensorRow(
            plan.teacher.prefix + name,
            plan.teacher.header.shape(before[name]) if name in before else None,
            recipe.spec.shape,
            history(recipe),
            plan.kept.get(name),
        )
        for name, recipe in plan.draft.recipes.items()
    )


def count_parameters(graph: Graph, header: Header) -> int:
    """Entries of everything that training changes; BatchNorm's running statistics are not."""
    measured = {
        node.inputs[index]
        for node in graph.nodes
        if node.op == "BatchNormalization"
        for index in _STATISTICS
    }
    return sum(header[name].size for name in graph.parameters() if name not in measured)


def count_bytes(header: Header) -> int:
    """Bytes of all tensors."""
    return sum(spec.nbytes for spec in header.values())


def count_flops(graph: Graph, shapes: Shapes) -> int:
    """Floating point operations for one sample at the graph's input size."""
    return sum(
        rule(node.op).flops(
            Site.of(node, shapes, graph.constants), [shapes[name] for name in node.outputs]
        )
        for node in graph.nodes
    )


def _prefixed(prefix: str, names: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(prefix + name for name in names)
