"""Module paths of grown layers and blocks, and the renaming of what stands behind them.

In a numbered container (an ``nn.Sequential``, a ``ModuleList``, a stage) a new module takes the
next number and later ones move up; elsewhere it is called ``<path>_grown1`` beside its model.
Paths are compared component by component, never by substring.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from ckgrow.drafts.draft import Draft
from ckgrow.graph import Constant, Node
from ckgrow.naming import free_name, is_grown, ungrown

Rename = Callable[[str], str]


def split_number(path: str) -> tuple[str, int] | None:
    """``features.3`` as ("features", 3), ``3`` as ("", 3); None when the end is no number."""
    container, _, last = path.rpartition(".")
    return (container, int(last)) if last.isdecimal() else None


def numbered(container: str, number: int) -> str:
    """The inverse of :func:`split_number`."""
    return f"{container}.{number}" if container else str(number)


def is_inside(name: str, path: str) -> bool:
    """Whether a node, key or value belongs to the module at ``path`` (or is that module)."""
    return name == path or name.startswith((f"{path}.", f"{path}/"))


def moved(name: str, path: str, new_path: str) -> str:
    """``name`` with ``path`` at its start replaced; unchanged when it does not belong there."""
    return new_path + name[len(path) :] if is_inside(name, path) else name


@dataclass(frozen=True)
class Shift:
    """Modules of ``container`` from number ``first`` on move up by ``count``."""

    container: str
    first: int
    count: int

    def __call__(self, name: str) -> str:
        """The new name of a node, key, value or constant."""
        start = f"{self.container}." if self.container else ""
        if not name.startswith(start):
            return name
        rest = name[len(start) :]
        digits = len(rest) - len(rest.lstrip("0123456789"))
        if not digits or rest[digits : digits + 1] not in ("", ".", "/"):
            return name
        number = int(rest[:digits])
        if number < self.first or str(number) != rest[:digits]:
            return name
        return f"{start}{number + self.count}{rest[digits:]}"


def renamed(draft: Draft, rename: Rename) -> Draft:
    """The draft with every node, tensor, constant and inner value renamed.

    Names of graph inputs and outputs stay: they are the network's interface. A value that would
    be called as one of them gets another name.
    """
    graph = draft.graph
    if all(rename(name) == name for name in draft.taken):
        return draft
    interface = {*graph.inputs, *graph.outputs}

    def inner(name: str) -> str:
        if name in interface:
            return name
        moved_to = rename(name)
        return f"{moved_to}/inner" if moved_to in interface else moved_to

    nodes = tuple(
        replace(
            node,
            name=rename(node.name),
            inputs=tuple(map(inner, node.inputs)),
            outputs=tuple(map(inner, node.outputs)),
        )
        for node in graph.nodes
    )
    constants: Mapping[str, Constant] = {rename(k): v for k, v in graph.constants.items()}
    return draft.with_changes(
        graph=replace(graph, nodes=nodes, constants=constants),
        recipes={rename(name): recipe for name, recipe in draft.recipes.items()},
        origins={rename(name): origin for name, origin in draft.origins.items()},
        defects={rename(name): defect for name, defect in draft.defects.items()},
        names={key: rename(name) for key, name in draft.names.items()},
        known={inner(name): shape for name, shape in draft.shapes.items()},
    )


def is_grown_from(name: str, path: str) -> bool:
    """Whether ``name`` was inserted behind the layer at ``path``, or behind what was."""
    return is_grown(name) and ungrown(name) == ungrown(path)


def new_paths(
    models: Sequence[str], taken: Iterable[str], others: Sequence[str] = ()
) -> tuple[dict[str, str], tuple[Shift, ...]]:
    """Paths for modules inserted behind ``models``, and the shifts that make room for them.

    ``models`` are the paths of a layer and of its followers (BatchNorm, activation) that stand
    for modules; those in one container get successive numbers behind the last of them. ``others``
    (``prelu``) have no model; they stand in front of the layer's copy.
    """
    names = tuple(taken)
    paths: dict[str, str] = {}
    containers: dict[str, list[tuple[int, str]]] = {}
    home = split_number(models[0])
    for other in others:
        if home is None:
            paths[other] = free_name(f"{ungrown(models[0])}_{other}", names)
        else:
            containers.setdefault(home[0], []).append((-1, other))
    for model in models:
        place = split_number(model)
        if place is None:
            paths[model] = free_name(model, names)
        else:
            containers.setdefault(place[0], []).append((place[1], model))
    shifts: list[Shift] = []
    for container, members in containers.items():
        first = max(number for number, _ in members) + 1
        shifts.append(Shift(container, first, len(members)))
        for offset, (_, model) in enumerate(sorted(members)):
            paths[model] = numbered(container, first + offset)
    return paths, tuple(shifts)


def functional_name(node: Node, paths: Mapping[str, str]) -> str:
    """The name of a copy of a node without a module: beside the copy of its layer."""
    for path, new_path in paths.items():
        if is_inside(node.name, path):
            return moved(node.name, path, new_path)
    return f"{next(iter(paths.values()))}/{node.op.lower()}"
