"""Checks the rows of one layer of a student against what its record claims of them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
from blake3 import blake3

from ckgrow.labels import UNKNOWN, ZERO, Labels
from ckgrow.maps import ZERO as ZERO_SOURCE
from ckgrow.proof.deviation import Extent, aligned, beyond, biases_beyond, multiple, power_of_two
from ckgrow.proof.effective import Effective, Plain, Product, centre, keeps_size

ADD_UP = "the weights of every channel that is read add up to the teacher's"
FRESH = "rows of one new unit have equal sums, and equal biases"
NOTHING = "rows of a channel that is zero add up to zero"
IDENTITY = "every row passes one channel on as it is"
BIAS = "the bias is the teacher's"


@dataclass
class Rows:
    """What was found out of a layer's rows: their labels, and those that are not as claimed.

    ``wrong`` has for each tensor and equation the rows that violate it.
    """

    labels: np.ndarray
    wrong: dict[tuple[str, str], list[int]] = field(default_factory=dict)
    extent: Extent = field(default_factory=Extent)

    def fail(self, tensor: str, equation: str, rows: np.ndarray) -> None:
        """Notes rows that violate an equation at a tensor."""
        self.wrong.setdefault((tensor, equation), []).extend(rows.tolist())


@dataclass(frozen=True)
class RowCheck:
    """One layer of the student, with the teacher's layer it comes from, if it comes from one.

    ``sources`` are the claims: a map's code for every row; None where nothing is claimed.
    ``passing`` says that the layer is certified to pass channels on, ``rescaled`` that rows may be
    powers of two times the teacher's.
    """

    student: Effective
    teacher: Plain | None
    sources: np.ndarray | None
    passing: bool
    rescaled: bool
    table: Labels

    def run(self) -> Rows:
        """All rows, group by group."""
        weights = self.student.weights
        found = Rows(np.full(weights.linear.width, UNKNOWN, dtype=np.int64))
        first_of: dict[int, tuple[int, bytes]] = {}
        moved = np.zeros(weights.linear.width)
        total = 0.0
        for group in range(weights.linear.groups):
            if UNKNOWN in self.student.columns(group):
                continue
            every = np.arange(weights.rows_per_group) + group * weights.rows_per_group
            copies = self._copies(every)
            for part, other in self._by_teacher_group(copies):
                total += self._compare(found, part, group, other, moved)
            rest = np.setdiff1d(every, copies, assume_unique=True)
            for tile in weights.tiles(rest):
                self._look(found, tile, group, first_of)
        allowed = (self.student.defect * (1 + 1e-6)) ** 2 * total
        product = isinstance(self.student, Product)
        if product and not found.wrong and moved.sum() > allowed:
            most = moved > moved.sum() / 2
            found.fail(weights.linear.weight, ADD_UP, np.flatnonzero(most | ~most.any()))
        self._blame_factor(found)
        return found

    def _blame_factor(self, found: Rows) -> None:
        """A row of a factor that is wrong makes all rows of the product wrong."""
        if isinstance(self.student, Plain):
            return
        outer, inner = self.student.weights, self.student.inner.weights
        pairs = ((outer.linear.weight, inner.linear.weight), (outer.linear.bias, inner.linear.bias))
        copies = 0 if self.sources is None else int((self.sources >= 0).sum())
        in_group = (copies or outer.linear.width) // outer.linear.groups
        for tensor, other in pairs:
            wrong = [each for each in found.wrong if each[0] == tensor]
            rows = {row for each in wrong for row in found.wrong[each]}
            if other and 2 * len(rows) > in_group:
                for each in wrong:
                    found.wrong.setdefault((other, each[1]), []).extend(found.wrong.pop(each))

    def _copies(self, rows: np.ndarray) -> np.ndarray:
        if self.sources is None or self.teacher is None or self.passing:
            return rows[:0]
        return rows[self.sources[rows] >= 0]

    def _by_teacher_group(self, rows: np.ndarray) -> Iterator[tuple[np.ndarray, int]]:
        if not len(rows) or self.sources is None or self.teacher is None:
            return
        groups = self.sources[rows] // self.teacher.weights.rows_per_group
        for group in np.unique(groups).tolist():
            yield rows[groups == group], group

    def _compare(
        self, found: Rows, rows: np.ndarray, group: int, other: int, moved: np.ndarray
    ) -> float:
        """Copies beside the teacher's rows: the squares of these; of differences in ``moved``."""
        assert self.teacher is not None
        assert self.sources is not None
        alike = self._stored_alike(group, other)
        classes = np.union1d(self.student.classes(group), self.teacher.classes(other))
        total = 0.0
        for tile in self.student.weights.tiles(rows):
            origins = self.sources[tile]
            names = self.teacher.weights.linear.node.name
            found.labels[tile] = [self.table.of("row", names, int(row)) for row in origins]
            if alike:
                same = self._same_bytes(tile, origins)
                tile, origins = tile[~same], origins[~same]
            if not len(tile):
                continue
            ours, theirs = aligned(
                self.student.sums(tile, group, classes),
                self.student.taps,
                self.teacher.sums(origins, other, classes),
                self.teacher.taps,
            )
            off = ours - theirs
            moved[tile] = (off**2).sum(axis=(1, 2))
            total += float((theirs**2).sum())
            tensor = self.student.weights.linear.weight
            wrong = beyond(self.student, off, tile, group, classes, found.extent)
            bias_off = self.student.bias(tile) - self.teacher.bias(origins)
            bias_wrong = biases_beyond(self.student, bias_off, tile, found.extent)
            if not isinstance(self.student, Plain):  # a wrong row of M makes M b' wrong as well
                bias_wrong &= ~wrong
            if self.rescaled and (wrong | bias_wrong).any():
                for index in np.flatnonzero(wrong | bias_wrong):
                    row, bias = tile[index : index + 1], self.teacher.bias(origins[index, None])
                    rows_and_biases = (ours[index], self.student.bias(row)), (theirs[index], bias)
                    factor, off = multiple(*rows_and_biases)
                    if factor and self._within(found, row, group, classes, off):
                        label = int(found.labels[row[0]])
                        found.labels[row] = self.table.times(factor, label)
                        wrong[index] = bias_wrong[index] = False
                        moved[row] = ((off[0] / factor) ** 2).sum()
            if wrong.any():
                found.fail(tensor, ADD_UP, tile[wrong])
            if bias_wrong.any():
                name = self.student.weights.linear.bias or tensor
                found.fail(name, BIAS, tile[bias_wrong])
        return total

    def _look(
        self, found: Rows, tile: np.ndarray, group: int, first_of: dict[int, tuple[int, bytes]]
    ) -> None:
        """Rows that are no copies: zero, one channel passed on, or a new unit."""
        classes = self.student.classes(group)
        sums, bias = self.student.sums(tile, group, classes), self.student.bias(tile)
        zero = ~beyond(self.student, sums, tile, group, classes)
        zero &= ~biases_beyond(self.student, bias, tile)
        passed = self._passed(tile, sums, bias, group, classes)
        sources = None if self.sources is None else self.sources[tile]
        linear, read = self.student.weights.linear, blake3(classes.tobytes()).digest()
        for index, row in enumerate(tile.tolist()):
            source = None if sources is None else int(sources[index])
            if zero[index]:
                label = ZERO
            elif passed[index] != UNKNOWN and (self.passing or source is None):
                label = int(passed[index])
            elif self.passing and (source is None or source >= ZERO_SOURCE):
                label, off = self._nearest(sums[index], classes)
                if keeps_size(self.student.geometry):
                    self._fail(found, IDENTITY, row, off, bias[index], classes)
                else:
                    found.fail(linear.weight, IDENTITY, np.array([row]))
            elif source == ZERO_SOURCE:
                self._fail(found, NOTHING, row, sums[index], bias[index], classes)
                label = ZERO
            elif source is None or source >= 0:
                label = self.table.of(
                    "row", linear.node.name, _digest(sums[index], bias[index], read)
                )
            else:
                label = self.table.of("row", linear.node.name, source)
            found.labels[row] = label
            if source is not None and source < ZERO_SOURCE:
                digest = _digest(sums[index], bias[index], read)
                first, known = first_of.setdefault(source, (row, digest))
                if known != digest:
                    found.labels[row] = self._same_unit(found, row, first, classes)

    def _fail(
        self,
        found: Rows,
        equation: str,
        row: int,
        off: np.ndarray,
        bias_off: float,
        classes: np.ndarray,
    ) -> None:
        """Notes a row that is wrong if it is off by so much: in its weights, or in its bias."""
        linear, rows = self.student.weights.linear, np.array([row])
        group = row // self.student.weights.rows_per_group
        if beyond(self.student, off[None], rows, group, classes, found.extent).any():
            found.fail(linear.weight, equation, rows)
        elif biases_beyond(self.student, np.array([bias_off]), rows, found.extent).any():
            found.fail(linear.bias or linear.weight, equation, rows)

    def _same_unit(self, found: Rows, row: int, other: int, classes: np.ndarray) -> int:
        """The label of a row of a new unit, beside the first one: they are equal, or multiples."""
        per_group = self.student.weights.rows_per_group
        pair = [np.array([each]) for each in (row, other)]
        both = np.union1d(classes, self.student.classes(other // per_group))
        rows = [
            (self.student.sums(each, int(each[0]) // per_group, both)[0], self.student.bias(each))
            for each in pair
        ]
        factor, off = multiple(*rows) if self.rescaled else (0.0, rows[0])
        if not factor:
            factor, off = 1.0, (rows[0][0] - rows[1][0], rows[0][1] - rows[1][1])
        self._fail(found, FRESH, row, off[0], float(off[1][0]), both)
        return self.table.times(factor, int(found.labels[other]))

    def _within(
        self,
        found: Rows,
        row: np.ndarray,
        group: int,
        classes: np.ndarray,
        off: tuple[np.ndarray, np.ndarray],
    ) -> bool:
        """Whether a row and its bias may be ``off`` by so much."""
        weights = beyond(self.student, off[0][None], row, group, classes, found.extent)
        return not (weights.any() or biases_beyond(self.student, off[1], row, found.extent).any())

    def _passed(
        self,
        tile: np.ndarray,
        sums: np.ndarray,
        bias: np.ndarray,
        group: int,
        classes: np.ndarray,
    ) -> np.ndarray:
        """The label that each row passes on as it is, UNKNOWN where it does something else."""
        made = np.full(len(tile), UNKNOWN, dtype=np.int64)
        middle = centre(self.student.taps)
        if middle is None or not keeps_size(self.student.geometry) or not len(classes):
            return made
        best = sums[:, :, middle].argmax(axis=1)
        factors = [self._factor(row[at, middle]) for row, at in zip(sums, best, strict=True)]
        off = sums.copy()
        off[np.arange(len(tile)), best, middle] -= factors
        passed = ~beyond(self.student, off, tile, group, classes)
        passed &= ~biases_beyond(self.student, bias, tile)
        for index in np.flatnonzero(passed):
            made[index] = self.table.times(factors[index], int(classes[best[index]]))
        return made

    def _nearest(self, sums: np.ndarray, classes: np.ndarray) -> tuple[int, np.ndarray]:
        """The channel that a row was most likely to pass on, and how far it is from doing so."""
        middle = centre(self.student.taps)
        if not len(classes) or middle is None:
            return ZERO, sums
        best = int(np.abs(sums).max(axis=1).argmax())
        factor = self._factor(sums[best, middle])
        off = sums.copy()
        off[best, middle] -= factor
        return self.table.times(factor, int(classes[best])), off

    def _factor(self, weight: float) -> float:
        """What a row that passes a channel on multiplies it by: 1, if it was not rescaled."""
        return (self.rescaled and power_of_two(np.array([weight]), np.ones(1))) or 1.0

    def _stored_alike(self, group: int, other: int) -> bool:
        """Whether copies are to be the teacher's rows bit for bit."""
        assert self.teacher is not None
        if not isinstance(self.student, Plain):
            return False
        ours, theirs = self.student.weights, self.teacher.weights
        return (
            ours.dtype == theirs.dtype
            and ours.taps == theirs.taps
            and ours.linear.factors == theirs.linear.factors
            and np.array_equal(self.student.columns(group), self.teacher.columns(other))
        )

    def _same_bytes(self, rows: np.ndarray, origins: np.ndarray) -> np.ndarray:
        assert self.teacher is not None
        ours, theirs = self.student.weights.raw(rows), self.teacher.weights.raw(origins)
        same = (ours == theirs).reshape(len(rows), -1).all(axis=1)
        return same & (self.student.bias(rows) == self.teacher.bias(origins))


def _digest(sums: np.ndarray, bias: float, read: bytes) -> bytes:
    """Of a row: the same only for the same sums of what is ``read``."""
    return blake3(read + (sums + 0.0).tobytes() + np.float64(bias + 0.0).tobytes()).digest()
