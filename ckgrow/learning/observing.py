"""Watches steps of training: which entries receive a gradient, and which units stay together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

from ckgrow.coupling import couple
from ckgrow.groups import Group, Grouping, group_channels
from ckgrow.learning.ancestry import Ancestry, new_entries
from ckgrow.learning.network import Tensors, Trainee
from ckgrow.learning.report import GroupLearning, TensorLearning
from ckgrow.learning.units import Units, units_of
from ckgrow.verdict.running import Side


@dataclass(frozen=True)
class Grown:
    """A group with new units; ``before`` is the teacher's, None where new layers make it."""

    group: Group
    units: Units
    before: Group | None


def grown_groups(teacher: Side, student: Side, ancestry: Ancestry | None) -> tuple[Grown, ...]:
    """The groups of the student that are wider than the teacher's, or that it does not have.

    Channels that no layer makes (a graph's input, zeros for padding) are no units.
    """
    old, grouping = _grouping(teacher), _grouping(student)
    layers = ancestry.layers if ancestry else {name: name for name in grouping.layers}
    found = []
    for group in grouping.groups.values():
        if not group.layers:
            continue
        before = _model(group, old, grouping, layers)
        if before is None or group.width > before.width:
            found.append(Grown(group, units_of(student.graph, grouping, group), before))
    return tuple(found)


def ranks(groups: Sequence[Grown], gradients: Tensors) -> list[int | None]:
    """How many channels of each wider group move independently."""
    return [each.units.rank(gradients) if each.before else None for each in groups]


class Observer:
    """Called with the gradients of every step; tells afterwards what they showed.

    ``slopes`` are the lengths of the first gradient of every weight, in lengths of the weight.
    """

    def __init__(
        self, network: Trainee, groups: Sequence[Grown], ancestry: Ancestry | None
    ) -> None:
        self._network = network
        self._groups = groups
        self._new = {
            name: torch.from_numpy(new_entries(ancestry, name, tuple(each.shape)))
            for name, each in network.weights.items()
        }
        self._moved = {name: torch.zeros_like(each) for name, each in self._new.items()}
        self._ranks: list[int | None] = [None] * len(groups)
        self.slopes: dict[str, float] = {}

    def __call__(self, step: int, gradients: Tensors) -> None:
        """Sees one step before it is made."""
        for name, gradient in gradients.items():
            self._moved[name] |= gradient != 0
        if step == 0:
            self._ranks = ranks(self._groups, gradients)
            for name, weight in self._network.weights.items():
                length, size = float(gradients[name].norm()), float(weight.detach().norm())
                self.slopes[name] = length / size if size else 0.0

    def tensors(self) -> tuple[TensorLearning, ...]:
        """Weights with new entries."""
        rows = (
            TensorLearning(name, int(new.sum()), int((new & self._moved[name]).sum()))
            for name, new in self._new.items()
        )
        return tuple(row for row in rows if row.new)

    def groups(self, attainable: Sequence[int | None]) -> tuple[GroupLearning, ...]:
        """What became of the units; ``attainable`` are ranks to compare with."""
        old = {name: ~each for name, each in self._new.items()}
        rows = []
        for index, grown in enumerate(self._groups):
            if grown.units.tensors.isdisjoint(self._network.weights):
                continue  # of layers with constant weights
            new = ~grown.units.any(old)
            moved = grown.units.any(self._moved)
            twins = grown.units.twins(self._network.weights)
            rows.append(
                GroupLearning(
                    name=grown.group.name,
                    width=grown.group.width,
                    teacher_width=grown.before.width if grown.before else None,
                    rank=self._ranks[index],
                    attainable=attainable[index],
                    new=_count(new),
                    still=_count(new & ~moved),
                    still_before=_count(~new & ~moved),
                    identical=_count(new & moved & twins),
                )
            )
        return tuple(rows)


def _count(mask: torch.Tensor) -> int:
    return int(mask.sum())


def _grouping(side: Side) -> Grouping:
    return group_channels(side.graph, couple(side.graph, side.header))


def _model(
    group: Group, old: Grouping, grouping: Grouping, layers: Mapping[str, str]
) -> Group | None:
    """The teacher's group whose layer the group's first layer comes from."""
    maker = grouping.layers[group.layers[0]]
    model = old.layers.get(layers.get(maker.name, ""))
    if model is None or len(model.groups) != len(maker.groups):
        return None
    return old.groups[model.groups[maker.groups.index(group.name)]]
