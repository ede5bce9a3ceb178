"""Atoms and segments against the slow truth: one label per channel, joined one by one."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from ckgrow.axes import Atoms, Axis


class Channels:
    """The same operations on lists of single channels."""

    def __init__(self) -> None:
        self.parent: list[int] = []

    def new(self, count: int) -> list[int]:
        first = len(self.parent)
        self.parent += range(first, first + count)
        return list(range(first, first + count))

    def find(self, channel: int) -> int:
        while self.parent[channel] != channel:
            channel = self.parent[channel]
        return channel

    def unify(self, first: list[int], second: list[int]) -> None:
        for a, b in zip(first, second, strict=True):
            self.parent[self.find(a)] = self.find(b)


def entries(atoms: Atoms, axis: Axis) -> list[tuple[int, int]]:
    """Every entry of an axis as (atom, channel of the atom)."""
    return [
        (segment.atom, channel)
        for segment in atoms.resolve(axis)
        for channel in range(atoms.count(segment.atom))
        for _ in range(segment.inner)
    ]


@given(st.data())
def test_the_same_channels_are_the_same_entries(data):
    atoms, channels = Atoms(), Channels()
    axes: list[tuple[Axis, list[int]]] = []
    for _ in range(data.draw(st.integers(1, 12))):
        what = data.draw(st.sampled_from(["new", "concat", "cut", "unify"]))
        if what == "new" or not axes:
            count = data.draw(st.integers(1, 5))
            axes.append((atoms.new(count), channels.new(count)))
            continue
        axis, labels = data.draw(st.sampled_from(axes))
        other, other_labels = data.draw(st.sampled_from(axes))
        if what == "concat":
            axes.append(((*axis, *other), [*labels, *other_labels]))
        elif what == "cut":
            start = data.draw(st.integers(0, len(labels)))
            stop = data.draw(st.integers(start, len(labels)))
            axes.append((atoms.cut(axis, start, stop), labels[start:stop]))
        else:
            length = min(len(labels), len(other_labels))
            atoms.unify(atoms.cut(axis, 0, length), atoms.cut(other, 0, length), "a test of unions")
            channels.unify(labels[:length], other_labels[:length])
    seen: dict[tuple[int, int], int] = {}
    for axis, labels in axes:
        found = entries(atoms, axis)
        assert len(found) == len(labels) == atoms.length(axis)
        for entry, label in zip(found, labels, strict=True):
            assert seen.setdefault(entry, channels.find(label)) == channels.find(label)
    assert len(set(seen.values())) == len(seen)
    assert all(atoms.fixed(segment.atom) is None for axis, _ in axes for segment in axis)


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
