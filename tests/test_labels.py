"""Labels: what they say is equal is equal, on numbers."""

from __future__ import annotations

import hypothesis
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ckgrow.labels import UNKNOWN, ZERO, Labels


def test_an_expression_has_one_label():
    table = Labels()
    one = table.of("row", "conv1", 3)
    assert table.of("row", "conv1", 3) == one != table.of("row", "conv1", 4)
    assert table.head(one) == ("row", "conv1", 3)
    assert table.knows("row", "conv1", 4)
    assert not table.knows("row", "conv1", 5)


def test_multiples_multiply_and_vanish():
    table = Labels()
    x = table.of("x")
    half = table.times(0.5, x)
    assert table.parted(half) == (0.5, x)
    assert table.times(2.0, half) == x
    assert table.times(3.0, ZERO) == ZERO
    assert table.times(3.0, UNKNOWN) == UNKNOWN


def test_laws_of_a_function():
    table = Labels()
    x = np.array([table.of("x"), ZERO, UNKNOWN, table.times(0.5, table.of("x"))])
    plain = table.applied("f", x)
    assert len(set(plain.tolist())) == 4
    assert plain[2] == UNKNOWN
    assert plain[1] != ZERO  # of which nothing was promised
    once = table.applied("relu", x, keeps_zero=True, homogeneous=True, idempotent=True)
    assert once[1] == ZERO
    assert once[3] == table.times(0.5, int(once[0]))
    again = table.applied("relu", once, keeps_zero=True, homogeneous=True, idempotent=True)
    assert np.array_equal(once, again)
    assert not np.array_equal(once, table.applied("relu", once))


SIZES = st.lists(st.sampled_from([1, 2, 3, 4]), min_size=1, max_size=4)


@st.composite
def reshapes(draw):
    """A shape, which of its dimensions are labelled, and a shape of as many entries."""
    before = draw(SIZES)
    labelled = [draw(st.booleans()) for _ in before]
    left, after = int(np.prod(before)), []
    while left > 1:
        size = draw(st.sampled_from([each for each in range(2, left + 1) if left % each == 0]))
        after.append(size)
        left //= size
    for _ in range(draw(st.integers(0, 2))):
        after.insert(draw(st.integers(0, len(after))), 1)
    return before, labelled, after


@given(reshapes())
@hypothesis.settings(max_examples=300, deadline=None)
def test_reshaped_labels_tell_of_the_reshaped_value(case):
    """A value whose labelled slices repeat: wherever labels are equal, the slices still are."""
    before, labelled, after = case
    table = Labels()
    shape = [size if marked else 1 for size, marked in zip(before, labelled, strict=True)]
    random = np.random.default_rng(0)
    sources = random.integers(0, 3, shape)
    labels = np.vectorize(lambda source: table.of("source", int(source)))(sources)[None]
    plain = [1 if marked else size for size, marked in zip(before, labelled, strict=True)]
    slices = random.normal(size=(3, *plain))
    value = np.empty(before)
    for index in np.ndindex(*before):
        own = tuple(0 if marked else i for i, marked in zip(index, labelled, strict=True))
        kind = sources[tuple(i if marked else 0 for i, marked in zip(index, labelled, strict=True))]
        value[index] = slices[(kind, *own)]
    made = table.reshaped(labels, ("N", *before), ("N", *after))
    reshaped = value.reshape([1, *after])
    assert made.ndim == reshaped.ndim
    seen: dict[int, np.ndarray] = {}
    for index in np.ndindex(*made.shape):
        where = tuple(i if made.shape[d] > 1 else slice(None) for d, i in enumerate(index))
        part = reshaped[where]
        assert np.array_equal(seen.setdefault(int(made[index]), part), part)


def test_a_flattened_map_is_numbered_channel_by_channel():
    table = Labels()
    labels = np.array([table.of("a"), table.of("b")]).reshape(1, 2, 1, 1)
    flat = table.reshaped(labels, ("N", 2, 2, 3), ("N", 12))
    assert flat.shape == (1, 12)
    assert len(set(flat.ravel().tolist())) == 12
    twice = table.reshaped(np.concatenate([labels, labels], 1), ("N", 4, 2, 3), ("N", 24))
    assert np.array_equal(twice[0, :12], flat[0])
    assert np.array_equal(twice[0, 12:], flat[0])


@pytest.mark.parametrize("size", [1, 2])
def test_a_zero_stays_zero_in_every_position(size):
    table = Labels()
    assert (table.at(np.full((1, 1, 1), ZERO), 1, size) == ZERO).all()
