"""Channel axes as lists of segments, and the union-find that says which channels are the same.

An *atom* is a run of channels that can only grow as a whole. A :class:`Segment` is an atom whose
every channel holds ``inner`` entries in a row (flattening a C x H x W map gives inner = H * W), and
an :data:`Axis` is a list of segments: concatenation appends lists, slicing cuts them, and a sum
unifies two of them, splitting atoms where their boundaries differ.

Channels may turn out to come in *units* of k neighbours that are copied together or not at all: the
groups of a convolution, the pieces of a maxout unit, what meets a flattened map in a sum. An atom
of n * k channels then becomes one of n, each of its channels with k times as many entries.

Two atoms may also be *tied*: they are different channels whose number must stay equal (the groups
of a grouped convolution).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import Literal


@dataclass(frozen=True)
class Segment:
    """The channels of ``atom``, each with ``inner`` entries in a row."""

    atom: int
    inner: int = 1


Axis = tuple[Segment, ...]

Role = Literal["rows", "columns", "channel"]


@dataclass(frozen=True)
class Dim:
    """How one dimension of a tensor follows a channel axis.

    ``rows``: one row of weights makes each channel. ``columns``: the channels are summed over,
    in ``blocks`` equal runs, one per convolution group (the tensor's dimension is one run long).
    ``channel``: one entry belongs to each channel (biases, BatchNorm, depthwise kernels).
    """

    role: Role
    axis: Axis
    blocks: int = 1


class Atoms:
    """Mutable table of atoms while a graph is walked. Sizes are in channels."""

    def __init__(self) -> None:
        self._count: list[int] = []
        self._parent: list[int] = []
        self._pieces: dict[int, Axis] = {}  # what a split atom, or one read in units, became
        self._fixed: dict[int, str] = {}
        self._ties: list[tuple[Axis, Axis]] = []

    def new(self, count: int) -> Axis:
        """A fresh axis of ``count`` channels that nothing else shares yet."""
        return (Segment(self._new_atom(count)),)

    def count(self, atom: int) -> int:
        """Number of channels of an atom."""
        return self._count[atom]

    def length(self, axis: Axis) -> int:
        """Number of entries of an axis."""
        return sum(self._count[segment.atom] * segment.inner for segment in axis)

    def resolve(self, axis: Iterable[Segment]) -> Axis:
        """The axis in terms of current atoms: unions followed, splits expanded."""
        resolved: list[Segment] = []
        waiting = list(axis)[::-1]
        while waiting:
            segment = waiting.pop()
            root = self._root(segment.atom)
            pieces = self._pieces.get(root)
            if pieces is None:
                resolved.append(Segment(root, segment.inner))
            else:
                waiting.extend(reversed(self.repeat(pieces, segment.inner)))
        return tuple(resolved)

    def repeat(self, axis: Axis, times: int) -> Axis:
        """Every entry ``times`` times in a row, as flattening trailing dimensions does."""
        return tuple(Segment(segment.atom, segment.inner * times) for segment in axis)

    def units(self, axis: Axis, size: int, where: str) -> Axis:
        """The axis with one entry for every ``size`` neighbouring ones, which become one channel.

        The inverse of :meth:`repeat`. Where a unit would lie across two atoms nothing can grow.
        """
        sizes = (self._count[part.atom] * part.inner for part in self.resolve(axis))
        if any(entries % size for entries in sizes):
            self.fix(axis, f"{where} takes channels of different kinds together")
            made = self.new(self.length(axis) // size)
            self.fix(made, f"{where} takes channels of different kinds together")
            return made
        while apart := [part for part in self.resolve(axis) if part.inner % size]:
            self._join(apart[0].atom, math.lcm(apart[0].inner, size) // apart[0].inner)
        return tuple(Segment(part.atom, part.inner // size) for part in self.resolve(axis))

    def fix(self, axis: Axis, reason: str) -> None:
        """No channel of ``axis`` can grow; the first reason given is kept."""
        for segment in self.resolve(axis):
            self._fixed.setdefault(segment.atom, reason)

    def fixed(self, atom: int) -> str | None:
        """Why an atom cannot grow, None when it can."""
        return self._fixed.get(self._root(atom))

    def unify(self, first: Axis, second: Axis, where: str) -> None:
        """The two axes hold the same channels, entry by entry."""
        for a, b in self._aligned(first, second, where):
            self._union(a.atom, b.atom)

    def tie(self, axes: Sequence[Axis]) -> None:
        """The axes stay equally long, segment by segment, whatever grows."""
        self._ties.extend((axes[0], other) for other in axes[1:])

    def cut(self, axis: Axis, start: int, stop: int) -> Axis:
        """Entries ``start`` to ``stop``; atoms are split where the cuts fall."""
        return self.pieces(axis, (start, stop))[1]

    def runs(self, axis: Axis, count: int) -> list[Axis]:
        """The axis cut into ``count`` equal parts, which divide its length."""
        run = self.length(axis) // count
        return self.pieces(axis, range(run, run * count, run))

    def pieces(self, axis: Axis, cuts: Sequence[int]) -> list[Axis]:
        """The parts of the axis before, between and behind ascending ``cuts``."""
        while self._split_at(axis, cuts):  # an atom may stand on the axis several times
            pass
        parts: list[list[Segment]] = [[]]
        position = 0
        ends = iter((*cuts, self.length(axis)))
        end = next(ends)
        for segment in self.resolve(axis):
            size = self._count[segment.atom] * segment.inner
            stop = position + size
            if not size:  # on which side of a cut its channels will stand, nothing says
                self.fix((segment,), "channels are counted and cut there")
            while position < stop:
                while position >= end:
                    parts.append([])
                    end = next(ends)
                taken = min(stop, end) - position
                if taken == size:
                    parts[-1].append(segment)
                else:  # a cut inside a repeated channel
                    loose = self.new(taken)
                    self.fix(loose, "cut in the middle of a repeated channel")
                    parts[-1].extend(loose)
                position += taken
        parts += ([] for _ in ends)
        return [tuple(part) for part in parts]

    def settle(self) -> dict[int, int]:
        """Ties as classes: for every current atom the smallest atom it is tied to."""
        pairs: list[tuple[int, int]] = []
        before = -1
        while before != len(self._count):  # aligning may split atoms that other ties hold
            before = len(self._count)
            pairs = [
                (a.atom, b.atom)
                for first, second in self._ties
                for a, b in self._aligned(first, second, "tied groups")
            ]
        leader = {atom: atom for atom in range(len(self._count)) if self._is_current(atom)}

        def find(atom: int) -> int:
            while leader[atom] != atom:
                leader[atom] = leader[leader[atom]]
                atom = leader[atom]
            return atom

        for a, b in pairs:
            low, high = sorted((find(a), find(b)))
            leader[high] = low
        return {atom: find(atom) for atom in leader}

    def _new_atom(self, count: int) -> int:
        self._count.append(count)
        self._parent.append(len(self._parent))
        return len(self._parent) - 1

    def _is_current(self, atom: int) -> bool:
        return self._parent[atom] == atom and atom not in self._pieces

    def _root(self, atom: int) -> int:
        while self._parent[atom] != atom:
            self._parent[atom] = self._parent[self._parent[atom]]
            atom = self._parent[atom]
        return atom

    def _union(self, a: int, b: int) -> None:
        low, high = sorted((self._root(a), self._root(b)))
        if low != high:
            self._parent[high] = low
            if high in self._fixed:
                self._fixed.setdefault(low, self._fixed[high])

    def _split(self, atom: int, sizes: Sequence[int]) -> None:
        self._replace(atom, tuple(Segment(self._new_atom(size)) for size in sizes))

    def _join(self, atom: int, size: int) -> None:
        """Every ``size`` neighbouring channels of an atom become one channel."""
        self._replace(atom, (Segment(self._new_atom(self._count[atom] // size), size),))

    def _replace(self, atom: int, pieces: Axis) -> None:
        self._pieces[atom] = pieces
        if atom in self._fixed:
            for piece in pieces:
                self._fixed[piece.atom] = self._fixed[atom]

    def _split_at(self, axis: Axis, cuts: Sequence[int]) -> bool:
        """Splits atoms at ``cuts``, or fixes those they fall into; whether any was split."""
        start, waiting, changed = 0, list(cuts)[::-1], False
        for segment in self.resolve(axis):
            stop = start + self._count[segment.atom] * segment.inner
            units: list[int] = []
            while waiting and waiting[-1] < stop:
                inside = waiting.pop() - start
                if inside > 0 and inside % segment.inner:
                    self.fix((segment,), "cut in the middle of a repeated channel")
                elif inside > 0:
                    units.append(inside // segment.inner)
            if units and segment.atom not in self._pieces:
                bounds = list(dict.fromkeys((0, *units, self._count[segment.atom])))
                self._split(segment.atom, [b - a for a, b in pairwise(bounds)])
                changed = True
            start = stop
        return changed

    def _aligned(self, first: Axis, second: Axis, where: str) -> list[tuple[Segment, Segment]]:
        """Both axes as pairs of segments of one size and inner, after splitting and joining.

        Where channels of c entries meet channels of d, lcm(c, d) entries are copied together.
        """
        first, second = self._filled(first, second, where)
        while True:
            a_list, b_list = self.resolve(first), self.resolve(second)
            a_bounds, b_bounds = self._bounds(a_list), self._bounds(b_list)
            if self._cuts_inside(a_list, b_bounds) or self._cuts_inside(b_list, a_bounds):
                reason = f"{where} joins channels of different layouts"
                self.fix(first, reason)
                self.fix(second, reason)
                return []
            a_split = self._split_at(first, b_bounds)
            b_split = self._split_at(second, a_bounds)
            if a_split or b_split:
                continue
            pairs = list(zip(self.resolve(first), self.resolve(second), strict=True))
            unlike = next(((a, b) for a, b in pairs if a.inner != b.inner), None)
            if unlike is None:
                return pairs
            together = math.lcm(*(part.inner for part in unlike))
            apart = next(part for part in unlike if part.inner != together)
            self._join(apart.atom, together // apart.inner)

    def _filled(self, first: Axis, second: Axis, where: str) -> tuple[Axis, Axis]:
        """Both axes without atoms of no channels, which would have nothing to meet as they grow."""
        axes = self.resolve(first), self.resolve(second)
        if axes[0] != axes[1]:
            for axis in axes:
                empty = tuple(part for part in axis if not self._count[part.atom])
                self.fix(empty, f"{where} joins as many channels from elsewhere")
        a, b = (tuple(part for part in axis if self._count[part.atom]) for axis in axes)
        return a, b

    def _bounds(self, axis: Axis) -> list[int]:
        sizes = (self._count[segment.atom] * segment.inner for segment in axis)
        return list(accumulate(sizes))[:-1]

    def _cuts_inside(self, axis: Axis, cuts: Sequence[int]) -> bool:
        """Whether any of the ascending ``cuts`` falls between the entries of one channel."""
        start, waiting = 0, list(cuts)[::-1]
        for segment in axis:
            stop = start + self._count[segment.atom] * segment.inner
            while waiting and waiting[-1] <= stop:
                if (waiting.pop() - start) % segment.inner:
                    return True
            start = stop
        return False
