"""Atoms and segments against the slow truth: one label per entry, joined one by one."""

from __future__ import annotations

from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ckgrow.axes import Atoms, Axis


class Classes:
    """Union-find on single entries."""

    def __init__(self) -> None:
        self.parent: list[int] = []

    def new(self, count: int) -> list[int]:
        first = len(self.parent)
        self.parent += range(first, first + count)
        return list(range(first, first + count))

    def find(self, entry: int) -> int:
        while self.parent[entry] != entry:
            entry = self.parent[entry]
        return entry

    def unify(self, first: Iterable[int], second: Iterable[int]) -> None:
        for a, b in zip(first, second, strict=True):
            self.parent[self.find(a)] = self.find(b)


class Truth:
    """Which entries are the same, and which are copied together."""

    def __init__(self) -> None:
        self.same, self.together = Classes(), Classes()

    def new(self, count: int, inner: int) -> list[int]:
        labels = self.same.new(count * inner)
        self.together.new(count * inner)
        self.join(labels, inner)
        return labels

    def join(self, labels: list[int], size: int) -> None:
        for start in range(0, len(labels), size):
            unit = labels[start : start + size]
            self.together.unify(unit[1:], unit[:-1])

    def unify(self, first: list[int], second: list[int]) -> None:
        self.same.unify(first, second)
        self.together.unify(first, second)


def entries(atoms: Atoms, axis: Axis) -> list[tuple[int, int, int]]:
    """Every entry of an axis as (atom, channel of the atom, place in the channel)."""
    return [
        (segment.atom, channel, place)
        for segment in atoms.resolve(axis)
        for channel in range(atoms.count(segment.atom))
        for place in range(segment.inner)
    ]


def reasons(atoms: Atoms, *axes: Axis) -> set[str | None]:
    return {atoms.fixed(segment.atom) for axis in axes for segment in atoms.resolve(axis)}


def is_inside(atoms: Atoms, axis: Axis, place: int) -> bool:
    found = entries(atoms, axis)
    return place < len(found) and found[place][2] > 0


def drawn_cut(data, atoms, axis):
    """A place to cut, not inside a channel."""
    found = entries(atoms, axis)
    places = [place for place in range(len(found)) if found[place][2] == 0]
    return data.draw(st.sampled_from([*places, len(found)]))


@given(st.data())
def test_the_same_channels_are_the_same_entries(data):
    atoms, truth = Atoms(), Truth()
    axes: list[tuple[Axis, list[int]]] = []
    plain = data.draw(st.booleans())
    inners, kinds = ([1], []) if plain else ([1, 1, 1, 2, 3], ["unify", "units"])
    for _ in range(data.draw(st.integers(1, 12))):
        what = data.draw(st.sampled_from(["new", "concat", "cut", "unify", *kinds]))
        if what == "new" or not axes:
            count, inner = data.draw(st.integers(1, 6)), data.draw(st.sampled_from(inners))
            axes.append((atoms.repeat(atoms.new(count), inner), truth.new(count, inner)))
            continue
        axis, labels = data.draw(st.sampled_from(axes))
        other, other_labels = data.draw(st.sampled_from(axes))
        if what == "concat":
            axes.append(((*axis, *other), [*labels, *other_labels]))
        elif what == "cut":
            start, stop = sorted(drawn_cut(data, atoms, axis) for _ in range(2))
            axes.append((atoms.cut(axis, start, stop), labels[start:stop]))
        elif what == "units":
            size = data.draw(
                st.sampled_from([size for size in (1, 2, 3) if not len(labels) % size])
            )
            units = atoms.units(axis, size, "a test of units")
            assert len(entries(atoms, units)) == len(labels) // size
            if entries(atoms, atoms.repeat(units, size)) == entries(atoms, axis):
                truth.join(labels, size)
            else:
                assert None not in reasons(atoms, axis, units)
        else:
            length = min(len(labels), len(other_labels))
            if any(is_inside(atoms, each, length) for each in (axis, other)):
                continue
            first, second = atoms.cut(axis, 0, length), atoms.cut(other, 0, length)
            atoms.unify(first, second, "a test of unions")
            if entries(atoms, first) == entries(atoms, second):
                truth.unify(labels[:length], other_labels[:length])
            else:
                assert None not in reasons(atoms, first, second)
    same: dict[tuple[int, int, int], int] = {}
    together: dict[tuple[int, int], int] = {}
    for axis, labels in axes:
        found = entries(atoms, axis)
        assert len(found) == len(labels) == atoms.length(axis)
        for entry, label in zip(found, labels, strict=True):
            assert same.setdefault(entry, truth.same.find(label)) == truth.same.find(label)
            unit = truth.together.find(label)
            assert together.setdefault(entry[:2], unit) == unit
    assert len(set(same.values())) == len(same)
    assert len(set(together.values())) == len(together)
    if plain:
        assert reasons(atoms, *(axis for axis, _ in axes)) <= {None}


@pytest.mark.parametrize(
    ("inner", "other", "units"), [(1, 3, 3), (3, 1, 3), (2, 2, 2), (2, 3, 6), (1, 1, 1), (4, 6, 12)]
)
def test_channels_that_meet_larger_ones_are_copied_together(inner, other, units):
    atoms = Atoms()
    channels, larger = atoms.new(12 // inner), atoms.new(12 // other)
    first, second = atoms.repeat(channels, inner), atoms.repeat(larger, other)
    atoms.unify(first, second, "a sum")
    assert entries(atoms, first) == entries(atoms, second)
    (segment,) = atoms.resolve(first)
    assert (atoms.count(segment.atom), segment.inner) == (12 // units, units)
    assert reasons(atoms, first, second) == {None}


def test_only_what_meets_larger_channels_is_copied_together():
    atoms = Atoms()
    channels, larger, others = atoms.new(7), atoms.new(2), atoms.new(3)
    atoms.unify(channels, (*atoms.repeat(larger, 2), *others), "a sum")
    found = [(atoms.count(part.atom), part.inner) for part in atoms.resolve(channels)]
    assert found == [(2, 2), (3, 1)]
    assert reasons(atoms, channels) == {None}


def test_units_are_the_inverse_of_repeating():
    atoms = Atoms()
    channels, maps = atoms.new(6), atoms.repeat(atoms.new(2), 4)
    axis = (*channels, *maps)
    units = atoms.units(axis, 2, "a reshape")
    assert [(atoms.count(part.atom), part.inner) for part in units] == [(3, 1), (2, 2)]
    assert atoms.repeat(units, 2) == atoms.resolve(axis)


def test_units_across_two_atoms_hold_both():
    atoms = Atoms()
    axis = (*atoms.new(3), *atoms.new(3))
    units = atoms.units(axis, 2, "a reshape")
    assert atoms.length(units) == 3
    assert reasons(atoms, axis, units) == {"a reshape takes channels of different kinds together"}


def test_ties_follow_units():
    atoms = Atoms()
    axis = atoms.new(12)
    runs = atoms.runs(axis, 2)
    atoms.tie(runs)
    atoms.units(runs[0], 3, "a reshape")
    leaders = atoms.settle()
    found = [(atoms.count(part.atom), part.inner) for part in atoms.resolve(axis)]
    assert found == [(2, 3), (2, 3)]
    assert len({leaders[part.atom] for part in atoms.resolve(axis)}) == 1


def test_repeated_channels_are_cut_between_but_not_inside():
    atoms = Atoms()
    axis = atoms.repeat(atoms.new(3), 4)
    between = atoms.cut(axis, 4, 12)
    assert entries(atoms, between) == entries(atoms, axis)[4:]
    assert all(atoms.fixed(segment.atom) is None for segment in atoms.resolve(axis))
    inside = atoms.cut(axis, 0, 6)
    assert atoms.length(inside) == 6
    assert "middle of a repeated channel" in (atoms.fixed(atoms.resolve(inside)[1].atom) or "")
    assert "middle of a repeated channel" in (atoms.fixed(atoms.resolve(axis)[1].atom) or "")


def test_different_layouts_hold_each_other():
    atoms = Atoms()
    channels = atoms.new(3)
    atoms.unify(atoms.repeat(channels, 2), (*channels, *channels), "a sum")
    assert atoms.fixed(channels[0].atom) == "a sum joins channels of different layouts"


def test_fixing_follows_unions_and_cuts():
    atoms = Atoms()
    first, second, third = atoms.new(4), atoms.new(4), atoms.new(2)
    atoms.unify(first, second, "a sum")
    atoms.fix(first, "held")
    atoms.unify(atoms.cut(second, 2, 4), third, "another")
    assert atoms.fixed(atoms.resolve(third)[0].atom) == "held"
    assert all(atoms.fixed(segment.atom) == "held" for segment in atoms.resolve(second))


def test_ties_keep_lengths_equal_through_later_cuts():
    atoms = Atoms()
    axis = atoms.new(6)
    atoms.tie([atoms.cut(axis, start, start + 2) for start in (0, 2, 4)])
    atoms.cut(axis, 0, 1)
    leaders = atoms.settle()
    classes: dict[int, list[int]] = {}
    for segment in atoms.resolve(axis):
        classes.setdefault(leaders[segment.atom], []).append(atoms.count(segment.atom))
    assert list(classes.values()) == [[1, 1, 1], [1, 1, 1]]
