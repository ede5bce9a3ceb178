"""Channel maps against lists of plain sources: ("copy", i), ("fresh", k) and ("zero",)."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ckgrow.maps import ZERO, ChannelMap


@st.composite
def maps(draw, width=None):
    width = draw(st.integers(0, 6)) if width is None else width
    return ChannelMap.of(width, draw(st.lists(st.integers(-5, width - 1), max_size=12)))


def sources(each: ChannelMap) -> list[tuple[str, int] | tuple[str]]:
    return [
        ("copy", code) if code >= 0 else ("zero",) if code == ZERO else ("fresh", -2 - code)
        for code in each.sources.tolist()
    ]


def shifted(source, width, fresh):
    kind, *number = source
    return (kind, *(each + (width if kind == "copy" else fresh) for each in number))


def fresh_units(each: ChannelMap) -> int:
    return max((number[0] + 1 for kind, *number in sources(each) if kind == "fresh"), default=0)


@given(st.lists(maps(), max_size=4))
def test_concat_shifts_what_stands_behind(parts):
    expected, width, fresh = [], 0, 0
    for part in parts:
        expected += [shifted(source, width, fresh) for source in sources(part)]
        width += part.width
        fresh += fresh_units(part)
    whole = ChannelMap.concat(parts)
    assert (whole.width, sources(whole)) == (width, expected)


@given(maps(), st.integers(1, 4))
def test_repeat_repeats_every_source(each, inner):
    expected = []
    for kind, *number in sources(each):
        for place in range(inner):
            expected.append((kind, *(n * inner + place for n in number)))
    repeated = each.repeat(inner)
    assert (repeated.width, sources(repeated)) == (each.width * inner, expected)


@given(st.data())
def test_then_is_growing_twice(data):
    first = data.draw(maps())
    second = data.draw(maps(width=len(first)))
    fresh = fresh_units(first)
    expected = [
        sources(first)[number[0]] if kind == "copy" else shifted((kind, *number), 0, fresh)
        for kind, *number in sources(second)
    ]
    both = first.then(second)
    assert (both.width, sources(both)) == (first.width, expected)


@given(st.data())
def test_then_is_associative(data):
    first = data.draw(maps())
    second = data.draw(maps(width=len(first)))
    third = data.draw(maps(width=len(second)))
    # numbers of fresh units may be skipped, so only which channels are equal is compared
    one, other = first.then(second).then(third), first.then(second.then(third))
    assert _same_kinds(sources(one)) == _same_kinds(sources(other))


def _same_kinds(found):
    return [(source[0], found.index(source)) for source in found]


@given(maps())
def test_runs_say_everything(each):
    runs = each.runs()
    assert ChannelMap.from_runs(each.width, runs) == each
    assert sum(count for _, _, count in runs) == len(each)
    spelled = [
        (kind,) if kind == "zero" else (kind, first + place)
        for kind, first, count in runs
        for place in range(count)
    ]
    assert spelled == sources(each)


@given(maps())
def test_counts_and_ranks(each):
    found = sources(each)
    assert each.counts.tolist() == [found.count(("copy", i)) for i in range(each.width)]
    assert each.ranks.tolist() == [found[:place].count(s) for place, s in enumerate(found)]
    assert each.fresh_count == fresh_units(each)


@given(maps())
def test_identity_is_what_changes_nothing(each):
    unchanged = sources(each) == [("copy", place) for place in range(each.width)]
    assert each.is_identity == unchanged == (each == ChannelMap.identity(each.width))
    assert ChannelMap.identity(each.width).then(each) == each
    assert each.then(ChannelMap.identity(len(each))) == each


def test_equal_maps_hash_alike():
    first, second = ChannelMap.of(2, [0, 1, 1]), ChannelMap(2, np.array([0, 1, 1]))
    assert len({first, second, ChannelMap.of(3, [0, 1, 1])}) == 2
    assert first != [0, 1, 1]


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: ChannelMap.of(2, [0, 2]), "source 2 of a teacher with 2 channels"),
        (lambda: ChannelMap.from_runs(2, [("copy", 1, 2)]), "source 2 of a teacher"),
        (lambda: ChannelMap.from_runs(2, [("other", 0, 1)]), "unknown source 'other'"),
        (lambda: ChannelMap.identity(2).then(ChannelMap.identity(3)), "cannot follow"),
    ],
)
def test_what_is_no_map(make, said):
    with pytest.raises(ValueError, match=said):
        make()
