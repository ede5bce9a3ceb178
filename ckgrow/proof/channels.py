"""Checks a node with parameters per channel: a BatchNorm, a PReLU, a scale."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from ckgrow.graph import Node
from ckgrow.labels import UNKNOWN, ZERO, Labels
from ckgrow.ops import rule
from ckgrow.proof.walking import Followed, simplified

FOLLOWS = "per-channel parameters are those of the source"
UNDOES = "the inserted op gives back what it is given"
ROUNDING = 2.0**-50
"""What an inserted BatchNorm may be off by in float64, besides its recorded defect."""


@dataclass
class Channels:
    """The labels behind the node; ``wrong`` has by parameter the channels that are not as claimed.

    And what each should be, in words. ``defect`` is how far one that undoes itself is off.
    """

    labels: np.ndarray
    equation: str
    defect: float = 0.0
    wrong: dict[int, dict[int, str]] = field(default_factory=dict)

    def fail(self, parameter: int, channel: int, source: str) -> None:
        """Notes a channel."""
        self.wrong.setdefault(parameter, {})[channel] = source


@dataclass(frozen=True)
class ChannelCheck:
    """One node of the student. ``model`` is the teacher's that it was, None for a new one.

    ``affine`` are scale and shift of every channel, NaN where it is more than that; ``entries``
    its parameters, ``tensors`` what these are called. Channels that it is ``undoing`` have to
    pass as they are, within what is ``recorded``; others may.
    """

    node: Node
    model: Followed | None
    affine: tuple[np.ndarray, np.ndarray]
    tensors: tuple[str, ...]
    entries: tuple[np.ndarray, ...]
    table: Labels
    undoing: np.ndarray
    recorded: float

    def run(self, before: np.ndarray) -> Channels:
        """All channels, whose labels in front of the node are ``before``."""
        equation = UNDOES if self.undoing.any() else FOLLOWS
        found = Channels(np.empty(len(before), dtype=np.int64), equation)
        places: dict[int, list[int]] = {}
        for channel, label in enumerate([] if self.model is None else self.model.before.tolist()):
            places.setdefault(label, []).append(channel)
        first_of: dict[int, int] = {}
        for channel, label in enumerate(before.tolist()):
            factor, base = self._parted(channel, label)
            if label == UNKNOWN:
                made = UNKNOWN
            elif label == ZERO and self.affine[1][channel] == 0.0:  # by whatever parameters
                made = ZERO
            elif self.model is not None and base in places:
                at = self._source(found, self.model, channel, places[base])
                made = self.table.times(factor, int(self.model.behind[at]))
            elif self._undoes(channel):
                made = label
                found.defect = max(found.defect, abs(float(self.affine[0][channel]) - 1.0))
            elif self.undoing[channel]:
                made = label
                found.fail(0, channel, "the identity")
            else:
                made = self._own(found, channel, label, first_of.setdefault(label, channel))
            found.labels[channel] = made
        if rule(self.node.op).affine(self.node, self.entries) is not None:
            for channel in np.flatnonzero(~np.isfinite(self.affine[1])).tolist():
                found.fail(len(self.entries) - 1, channel, "numbers that can be computed with")
        return found

    def _parted(self, channel: int, label: int) -> tuple[float, int]:
        """(factor, label) of a multiple where the node makes the same multiple of it."""
        scale, shift = (float(each[channel]) for each in self.affine)
        multiplies = shift == 0.0 and (np.isfinite(scale) or rule(self.node.op).homogeneous)
        return self.table.parted(label) if multiplies else (1.0, label)

    def _source(self, found: Channels, model: Followed, channel: int, places: list[int]) -> int:
        """Of the teacher's channels the one with most of these parameters; the others differ."""
        values = [self._at(index, channel) for index in range(len(self.entries))]

        def differing(at: int) -> list[int]:
            pairs = enumerate(zip(model.entries, values, strict=True))
            return [index for index, (entry, value) in pairs if entry[at] != value]

        at = min(places, key=lambda each: len(differing(each)))
        for index in differing(at):
            found.fail(index, channel, f"{model.node.name}[{at}]")
        return at

    def _own(self, found: Channels, channel: int, label: int, first: int) -> int:
        """A channel that is not the teacher's: plain, or like the first with its label."""
        scale, shift = (float(each[channel]) for each in self.affine)
        plain = simplified(label, scale, shift)
        if plain is not None:
            return plain
        if label == ZERO and np.isfinite(shift):
            return self.table.of("constant", shift)
        for index, entry in enumerate(self.entries):
            if entry[first] != entry[channel]:
                found.fail(index, channel, f"its channel {first}")
        return self.table.of("channel", self.node.name, "of", parts=(label,))

    def _undoes(self, channel: int) -> bool:
        scale, shift = (float(each[channel]) for each in self.affine)
        allowed = self.recorded * (1 + 1e-6) + ROUNDING
        size = max((abs(self._at(index, channel)) for index in self._added()), default=0.0)
        return abs(scale - 1.0) <= allowed and abs(shift) <= allowed * size

    def _added(self) -> list[int]:
        """The parameters that are added or taken away, in some multiple: those that start at 0."""
        starts = rule(self.node.op).entries
        position = self.node.inputs.index
        return [at for at, name in enumerate(self.tensors) if starts[position(name)] == 0.0]

    def _at(self, index: int, channel: int) -> float:
        return float(self.entries[index][channel])
