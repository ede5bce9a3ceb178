"""Watches a student's steps: which entries receive a gradient, and which units stay together."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch

from ckgrow.coupling import couple
from ckgrow.groups import Group, Grouping, group_channels
from ckgrow.learning.network import Trainee
from ckgrow.learning.ancestry import Ancestry, new_entries
from ckgrow.learning.report import GroupLearning, TensorLearning
from ckgrow.learning.units import Units, units_of
from ckgrow.verdict.running import Side


@dataclass(frozen=True)
class Grown:
    """A group with new units; ``teacher_width`` is None where new layers make it."""

    group: Group
    teacher_width: int | None
    runs: tuple[Units, ...]

    @property
    def wider(self) -> bool:
        """Whether the teacher has the same group with fewer units."""
        return self.teacher_width is not None and self.group.width > self.teacher_width

    @property
    def members(self) -> frozenset[str]:
        """The tensors that follow its units."""
        return frozenset(part.tensor for units in self.runs for part in units.parts)

    def rank(self, tensors: Mapping[str, torch.Tensor]) -> int | None:
        """The units that move independently, in all runs."""
        if not self.wider:
            return None
        ranks = [units.rank(tensors) for units in self.runs]
        known = [each for each in ranks if each is not None]
        return sum(known) * self.group.unit if len(known) == len(ranks) else None


def grown_groups(teacher: Side, student: Side, ancestry: Ancestry | None) -> tuple[Grown, ...]:
    """The groups of the student that are wider than the teacher's, or that it does not have."""
    before, after = _grouping(teacher), _grouping(student)
    layers = ancestry.layers if ancestry else {name: name for name in after.layers}
    found = []
    for group in after.groups.values():
        width = _teacher_width(group, before, after, layers)
        if width is None or group.width > width:
            found.append(Grown(group, width, units_of(student.graph, after, group)))
    return tuple(found)


class Observer:
    """Called with the gradients of every step; tells afterwards what they showed."""

    def __init__(
        self, network: Trainee, groups: tuple[Grown, ...], ancestry: Ancestry | None
    ) -> None:
        self._network = network
        self._groups = groups
        self._new = {
            name: torch.from_numpy(new_entries(ancestry, name, tuple(each.shape)))
            for name, each in network.weights.items()
        }
        self._moved = {name: torch.zeros_like(each) for name, each in self._new.items()}
        self._ranks: list[list[int | None]] = []
        self.slopes: dict[str, float] = {}
        """By weight the length of its first gradient, in lengths of the weight itself."""

    def __call__(self, step: int, gradients: Mapping[str, torch.Tensor]) -> None:
        """Sees one step before it is made."""
        for name, gradient in gradients.items():
            self._moved[name] |= gradient != 0
        self._ranks.append([each.rank(gradients) for each in self._groups])
        if step == 0:
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

    def groups(self, attainable: list[int | None]) -> tuple[GroupLearning, ...]:
        """What became of the units of every group that has grown."""
        rows = []
        for index, grown in enumerate(self._groups):
            new = self._per_unit(grown, self._without_old)
            moved = self._per_unit(grown, lambda units: units.any(self._moved))
            twins = self._per_unit(grown, lambda units: units.twins(self._network.weights))
            ranks = [each[index] for each in self._ranks] or [None]
            rows.append(
                GroupLearning(
                    grown.group.name,
                    grown.group.width,
                    grown.teacher_width,
                    ranks[0],
                    ranks[-1],
                    attainable[index],
                    int(new.sum()),
                    int((new & ~moved).sum()),
                    int((~new & ~moved).sum()),
                    int((new & moved & twins).sum()),
                )
            )
        return tuple(rows)

    def _without_old(self, units: Units) -> torch.Tensor:
        """Units none of whose weights is the teacher's."""
        return ~units.any({name: ~each for name, each in self._new.items()})

    def _per_unit(self, grown: Grown, look: Callable[[Units], torch.Tensor]) -> torch.Tensor:
        found = [look(units) for units in grown.runs]
        return torch.cat(found) if found else torch.zeros(0, dtype=torch.bool)


def _grouping(side: Side) -> Grouping:
    return group_channels(side.graph, couple(side.graph, side.header))


def _teacher_width(
    group: Group, before: Grouping, after: Grouping, layers: Mapping[str, str]
) -> int | None:
    """The width of the teacher's group whose layer the group's first layer comes from."""
    if not group.layers:  # channels that no layer makes: of a graph input
        same = before.groups.get(group.name)
        return same.width if same else None
    maker = after.layers[group.layers[0]]
    model = before.layers.get(layers.get(maker.name, ""))
    if model is None or len(model.groups) != len(maker.groups):
        return None
    return before.groups[model.groups[maker.groups.index(group.name)]].width
