"""Channel axes as lists of segments, and the union-find that says which channels are the same.

An *atom* is a run of channels that can only grow as a whole. A :class:`Segment` is an atom whose
every channel stands ``inner`` times in a row (flattening a C x H x W map gives inner = H * W), and
an :data:`Axis` is a list of segments: concatenation appends lists, slicing cuts them, and a sum
unifies two of them, splitting atoms where their boundaries differ.

Two atoms may also be *tied*: they are different channels whose number must stay equal (the groups
of a grouped convolution).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import Literal


@dataclass(frozen=True)
class Segment:
    """The channels of ``atom``, each repeated ``inner`` times in a row."""

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
        self._pieces: dict[int, tuple[int, ...]] = {}
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
                waiting.extend(Segment(piece, segment.inner) for piece in reversed(pieces))
        return tuple(resolved)

    def repeat(self, axis: Axis, times: int) -> Axis:
        """Every entry ``times`` times in a row, as flattening trailing dimensions does."""
        return tuple(Segment(segment.atom, segment.inner * times) for segment in axis)

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
        pieces = tuple(self._new_atom(size) for size in sizes)
        self._pieces[atom] = pieces
        if atom in self._fixed:
            for piece in pieces:
                self._fixed[piece] = self._fixed[atom]

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
        """Both axes as pairs of segments of equal size, after splitting atoms as needed."""
        while True:
            a_list, b_list = self.resolve(first), self.resolve(second)
            if not self._same_layout(a_list, b_list):
                reason = f"{where} joins channels of different layouts"
                self.fix(first, reason)
                self.fix(second, reason)
                return []
            a_split = self._split_at(first, self._bounds(b_list))
            b_split = self._split_at(second, self._bounds(a_list))
            if not (a_split or b_split):
                return list(zip(self.resolve(first), self.resolve(second), strict=True))

    def _bounds(self, axis: Axis) -> list[int]:
        sizes = (self._count[segment.atom] * segment.inner for segment in axis)
        return list(accumulate(sizes))[:-1]

    def _same_layout(self, first: Axis, second: Axis) -> bool:
        """Whether channels at one place are repeated equally often on both axes."""
        a_index = b_index = a_stop = b_stop = 0
        while a_index < len(first) and b_index < len(second):
            a, b = first[a_index], second[b_index]
            if a.inner != b.inner:
                return False
            a_end = a_stop + self._count[a.atom] * a.inner
            b_end = b_stop + self._count[b.atom] * b.inner
            if a_end <= b_end:
                a_index, a_stop = a_index + 1, a_end
            if b_end <= a_end:
                b_index, b_stop = b_index + 1, b_end
        return True
