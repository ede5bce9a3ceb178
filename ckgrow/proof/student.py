"""Leads labels through a student, checking what its record claims against its tensors."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ckgrow.drafts.draft import Origin
from ckgrow.graph import Node, Shape
from ckgrow.header import last_place
from ckgrow.labels import UNKNOWN, ZERO, Labels
from ckgrow.ops import Site
from ckgrow.ops.tracing import Linear
from ckgrow.proof.certificate import Finding
from ckgrow.proof.channels import ChannelCheck
from ckgrow.proof.claims import Claims
from ckgrow.proof.describing import described
from ckgrow.proof.effective import Plain
from ckgrow.proof.factors import Factors
from ckgrow.proof.matching import Matching
from ckgrow.proof.reading import LayerWeights
from ckgrow.proof.rows import IDENTITY, RowCheck, Rows
from ckgrow.proof.walking import Network, TeacherWalk, Walk, input_dim
from ckgrow.provenance import UNPLACED, most_recorded
from ckgrow.verdict.interface import Interface

SILENT = "the branch adds zero"
SAID = 8
"""Of how many channels of a finding the sources are said."""


@dataclass(frozen=True)
class Seen:
    """What was found of one tensor: the sources of its channels, and how far off it is."""

    tensor: str
    layer: str
    sources: np.ndarray
    equation: str
    defect: float


class StudentWalk(Walk):
    """The student: rows get the labels that its record claims, and findings where they do not fit.

    A row that violates an equation keeps the label that it should have, so that what reads it is
    judged on its own.
    """

    def __init__(
        self, network: Network, teacher: TeacherWalk, claims: Claims, table: Labels
    ) -> None:
        super().__init__(network, table)
        self.findings: list[Finding] = []
        self.lacking: list[str] = []
        self.seen: list[Seen] = []
        self._teacher = teacher
        self._claims = claims
        self._matching = Matching(teacher, network.graph, claims)
        self._factors = Factors(lambda linear: self._plain(self, linear), claims.defects)
        self._silent: set[str] = set()
        self._new = len(table)  # the first label that the teacher does not know

    def input(self, name: str, shape: Shape) -> np.ndarray:
        known = self._teacher.values.get(name)
        teacher = self._teacher.network.graph.inputs.get(name)
        if known is None or teacher is None:
            self.lacking.append(f"the teacher has no graph input {name!r}")
            return np.full((1,) * len(shape), UNKNOWN, dtype=np.int64)
        if shape == teacher:
            return known
        dim = Interface(self._claims.interface).dim(name, teacher, shape)
        if dim is None or dim != input_dim(shape):
            self.lacking.append(f"a map of the graph input {name!r}, whose shape changed")
            return np.full((1,) * len(shape), UNKNOWN, dtype=np.int64)
        new = range(int(teacher[dim]), int(shape[dim]))
        made = [*known.ravel().tolist(), *(self.table.of("new input", name, each) for each in new)]
        return np.array(made, dtype=np.int64).reshape(
            [len(made) if each == dim else 1 for each in range(len(shape))]
        )

    def parameter(self, name: str) -> int:
        before = self._claims.teacher_names.get(name)
        if before is not None and self._same(name, before):
            return self.table.of("parameter", before)
        return self.table.of("parameter of the student", name)

    def unlooked(self, site: Site, key: tuple[object, ...]) -> int:
        if self.table.knows(*key):
            return self.table.of(*key)
        what = f"{site.node.op} {site.node.name!r}"
        self.lacking.append(f"a rule for {what}, which reads other channels than the teacher's")
        return UNKNOWN

    def layer(self, linear: Linear) -> np.ndarray:
        name = linear.node.name
        self.layers[name] = linear
        origin = self._claims.origins.get(name)
        model = self._matching.layer(linear)
        passing = origin is not None and origin.certificate == "identity"
        sources = self._matching.sources(linear, model)
        teacher = self._plain(self._teacher, model) if model is not None else None
        copied = sources is not None and bool((sources >= 0).any())
        found: Rows | None = None
        for student in self._factors.readings(linear, copied, passing):
            lacking = self._matching.lacking(student, teacher, sources, passing=passing)
            if lacking:
                self.lacking.append(lacking)
                return np.full(linear.width, UNKNOWN, dtype=np.int64)
            rescaled = self._claims.rescaled
            with np.errstate(all="ignore"):  # what is no number is a finding of its own
                made = RowCheck(student, teacher, sources, passing, rescaled, self.table).run()
            if found is None or not made.wrong:
                found = made
            if not made.wrong:
                break
        if found is None:
            self.lacking.append(f"what {name} and the dense factor in front of it make together")
            return np.full(linear.width, UNKNOWN, dtype=np.int64)
        if origin is not None and passing:
            self._require_own(linear, found, origin)
        self._report(linear, found, sources, model)
        if origin is not None and origin.certificate == "factor":
            self._factors.add(linear, found.labels)
        return found.labels

    def channels(
        self,
        site: Site,
        before: np.ndarray,
        names: tuple[str, ...],
        entries: tuple[np.ndarray, ...],
    ) -> np.ndarray:
        node = site.node
        model = self._matching.followed(node, names)
        recorded = self._claims.defects.get(node.name)
        somewhere = self._claims.defects.get(UNPLACED, 0.0)
        most = most_recorded(self.network.header[names[0]].dtype)
        believed = min(somewhere if recorded is None else recorded, most)
        undoing = np.full(len(before), self._behind_factor(before, node))
        if recorded is not None:  # what is new need not pass on as it is
            undoing |= self._known(before)
        affine = self.affine(node, entries)
        check = ChannelCheck(node, model, affine, names, entries, self.table, undoing, believed)
        found = check.run(before)
        for index, wrong in found.wrong.items():
            said = tuple(wrong.values())[:SAID]
            self._fail(names[index], node.name, found.equation, tuple(wrong), said)
        sources = np.array([self._source(label) for label in before.tolist()])
        for name in names:
            defect = found.defect / last_place(self.network.header[name].dtype)
            self.seen.append(Seen(name, node.name, sources, found.equation, defect))
        return found.labels

    def added(self, site: Site, first: np.ndarray, second: np.ndarray) -> np.ndarray:
        silent = [name in self._silent for name in site.node.inputs]
        if silent[0] == silent[1]:
            return super().added(site, first, second)
        made = super().added(site, first, second)
        branch, other = (first, second) if silent[0] else (second, first)
        branch, other = np.broadcast_arrays(branch, other)
        # to a channel that is new it may add what it likes
        old = self._known(other.ravel())
        loud = np.flatnonzero((branch.ravel() != ZERO) & (branch.ravel() != UNKNOWN) & old)
        if len(loud):
            node, tensor = self._silencing(site.node.inputs[0 if silent[0] else 1])
            self._fail(tensor, node.name, SILENT, tuple(loud.tolist()), ())
            for value in node.outputs:  # what it should be
                self.values[value] = np.full_like(self.values[value], ZERO)
        return np.where(old.reshape(made.shape) & (branch != UNKNOWN), other, made)

    def passed(self, node: Node) -> None:
        """Keeps track of the branches that are certified to add zero."""
        if node.name in self.layers:
            origin = self._claims.origins.get(node.name)
            silent = origin is not None and origin.certificate == "zero"
        else:
            read = [name for name in node.inputs if name in self.values]
            silent = bool(read) and all(name in self._silent for name in read)
        if silent:
            self._silent.update(node.outputs)

    def _require_own(self, linear: Linear, found: Rows, origin: Origin) -> None:
        """A row that passes a channel on passes on the one that its map says.

        That channel is made of a row of the teacher's layer; where just one of those that are read
        is, it is known which it has to be.
        """
        made_of = {label: self.table.ancestors(label) for label in set(linear.columns.tolist())}
        for row, source in enumerate(origin.map.sources.tolist()):
            label = int(found.labels[row])
            known = source >= 0 and self.table.knows("row", origin.of, source)
            if not known or label in (ZERO, UNKNOWN):
                continue
            own = self.table.of("row", origin.of, source)
            meant = [each for each, parts in made_of.items() if own in parts]
            if meant and own not in self.table.ancestors(label):
                found.fail(linear.weight, IDENTITY, np.array([row]))
                found.labels[row] = meant[0] if len(meant) == 1 else UNKNOWN

    def _plain(self, walk: Walk, linear: Linear) -> Plain:
        network = walk.network
        return Plain(LayerWeights(linear, network.header, network.read), self.table)

    def _report(
        self, linear: Linear, found: Rows, sources: np.ndarray | None, model: Linear | None
    ) -> None:
        name = linear.node.name
        for (tensor, equation), rows in found.wrong.items():
            where = tuple(sorted(set(rows)))
            said = tuple(described(self.table, int(found.labels[row])) for row in where[:SAID])
            owner = self._owner(linear, tensor)
            product = "" if owner == name else name
            worst = found.extent.wrong
            self.findings.append(Finding(tensor, owner, equation, where, said, worst, product))
        known = found.labels if sources is None else sources
        own = np.array([self._source(label) for label in known]) if sources is None else sources
        for tensor in (linear.weight, linear.bias):
            if tensor:
                equation = IDENTITY if model is None else "sums of shares"
                self.seen.append(Seen(tensor, name, own, equation, found.extent.held))

    def _owner(self, linear: Linear, tensor: str) -> str:
        """The layer a tensor belongs to: this one, or a factor in front of it."""
        if tensor in (linear.weight, linear.bias):
            return linear.node.name
        return self._factors.owner(tensor) or linear.node.name

    def _source(self, label: int) -> int:
        """A label as a map would code it: a copy, something new, or zero."""
        if label == ZERO:
            return -1
        head = self.table.head(label)
        return 0 if head[0] != "row" or (isinstance(head[-1], int) and head[-1] >= 0) else -2

    def _behind_factor(self, before: np.ndarray, node: Node) -> bool:
        """Whether a new op stands between a dense factor and what makes the product of it."""
        new = all(name not in self._claims.teacher_names for name in node.inputs[1:])
        return new and self._factors.made(set(before.tolist()))

    def _known(self, labels: np.ndarray) -> np.ndarray:
        """Which of these stand for something that the teacher computes."""
        bases = [self.table.parted(each)[1] for each in labels.tolist()]
        return np.array([each != ZERO and each < self._new for each in bases], dtype=bool)

    def _silencing(self, value: str) -> tuple[Node, str]:
        """The node that makes a branch zero: a BatchNorm with gamma 0, or else its last layer."""
        producers = self.network.graph.producers()
        node = producers[value]
        while node.name not in self.layers:
            seen = self.followed.get(node.name)
            if seen is not None:
                scale, _ = self.affine(node, seen.entries)
                loud = np.flatnonzero(seen.behind != ZERO)
                if 2 * int((scale == 0.0).sum()) >= len(scale):
                    return node, seen.tensors[0 if (scale[loud] != 0.0).any() else 1]
            node = producers[node.inputs[0]]
        return node, self.layers[node.name].weight

    def _same(self, name: str, before: str) -> bool:
        ours, theirs = self.network.header[name], self._teacher.network.header[before]
        if ours != theirs:
            return False
        count = ours.shape[0] if ours.shape else 1
        return bool(
            (
                self.network.read(name, 0, count) == self._teacher.network.read(before, 0, count)
            ).all()
        )

    def _fail(
        self,
        tensor: str,
        layer: str,
        equation: str,
        channels: tuple[int, ...],
        sources: tuple[str, ...],
        defect: float = float("inf"),
    ) -> None:
        self.findings.append(Finding(tensor, layer, equation, channels, sources, defect))
