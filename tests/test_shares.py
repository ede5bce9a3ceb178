"""Shares of a weight sum to it exactly; sums are taken in rational arithmetic."""

from __future__ import annotations

from fractions import Fraction

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ckgrow.header import numpy_dtype
from ckgrow.recipes import identity_statistics
from ckgrow.shares import divide, divide_evenly, last_places, split_exactly

BITS = {"float64": 64, "float32": 32, "float16": 16, "bfloat16": 16}
DTYPES = st.sampled_from(sorted(BITS))
NAMED = ("zero", "smallest", "subnormal", "normal", "largest")


@st.composite
def weights(draw, dtype):
    """Finite numbers of a format, from any bits and at the ends of its range."""
    patterns = draw(st.lists(st.integers(0, 2 ** BITS[dtype] - 1), min_size=1, max_size=8))
    found = np.array(patterns, f"uint{BITS[dtype]}").view(numpy_dtype(dtype))
    found = found[np.isfinite(found.astype(np.float64))]
    return np.concatenate([found, extremes(dtype)])


def extremes(dtype):
    limits = ml_dtypes.finfo(numpy_dtype(dtype))
    small = [float(limits.smallest_subnormal), float(limits.tiny), 3 * float(limits.tiny)]
    values = [0.0, *small, 1.0, float(limits.max)]
    return np.array([*values, *(-value for value in values)]).astype(numpy_dtype(dtype))


@st.composite
def fractions(draw):
    """Numbers that sum to at most one with what the last share gets; some of them zero."""
    drawn = draw(st.lists(st.floats(0, 1), min_size=1, max_size=5))
    last = draw(st.floats(0.01, 1))
    return [value / (sum(drawn) + last) for value in drawn]


def in_format(wanted, dtype):
    """As divide takes them."""
    return [np.asarray(value, "float64" if dtype == "float64" else "float32") for value in wanted]


def assert_exact(shares, whole, dtype):
    assert {share.dtype for share in shares} == {numpy_dtype(dtype)}
    parts = np.stack([share.astype(np.float64) for share in shares], axis=-1)
    for weight, own in zip(whole.astype(np.float64), parts, strict=True):
        assert np.isfinite(own).all()
        assert sum(map(Fraction, own.tolist())) == Fraction(float(weight))


@given(DTYPES, st.data())
def test_shares_sum_to_the_weight(dtype, data):
    whole = data.draw(weights(dtype))
    wanted = data.draw(fractions())
    place = last_places(whole.astype(np.float64), dtype)
    for made in (
        divide(whole, in_format(wanted, dtype), dtype),
        split_exactly(whole, wanted, dtype),
    ):
        assert_exact(made, whole, dtype)
        # and are what was asked for, to the weight's last place for every share
        for share, fraction in zip(made, [*wanted, 1 - sum(wanted)], strict=True):
            off = np.abs(share.astype(np.float64) - whole.astype(np.float64) * fraction)
            assert (off <= (len(wanted) + 1) * place * 1.001).all()
            # in multiples of it, so that they add up in any order
            assert (np.fmod(share.astype(np.float64), place) == 0).all()


@given(DTYPES, st.integers(2, 9), st.data())
def test_equal_shares_sum_to_the_weight(dtype, count, data):
    whole = data.draw(weights(dtype))
    shares = divide_evenly(whole, count, dtype)
    assert_exact(shares, whole, dtype)
    place = last_places(whole.astype(np.float64), dtype)
    ideal = whole.astype(np.float64) / count
    for share in shares:
        assert (np.abs(share.astype(np.float64) - ideal) <= count * place).all()
    ordinary = np.abs(whole.astype(np.float64)) > count * 2 * smallest_normal(dtype)
    if count in (2, 4, 8):
        assert all((share == shares[0])[ordinary].all() for share in shares)


def smallest_normal(dtype):
    return float(ml_dtypes.finfo(numpy_dtype(dtype)).tiny)


@given(DTYPES, st.data())
def test_shares_with_noise_sum_to_the_weight(dtype, data):
    whole = data.draw(weights(dtype))
    wanted = data.draw(fractions())
    sizes = st.floats(-(2.0**20), 2.0**20)
    relative = data.draw(st.lists(sizes, min_size=len(wanted), max_size=len(wanted)))
    with np.errstate(over="ignore"):
        noise = [size * np.abs(whole.astype(np.float64)) for size in relative]
    noise = [np.where(np.isfinite(each), each, 1.0) for each in noise]
    assert_exact(split_exactly(whole, wanted, dtype, noise), whole, dtype)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("count", [2, 3])
def test_every_number_of_a_short_format(dtype, count):
    whole = np.arange(2**16, dtype=np.uint16).view(numpy_dtype(dtype))
    generator = np.random.default_rng(count)
    cuts = np.sort(generator.random((count - 1, len(whole)), np.float32), axis=0)
    shares = divide(whole, [cuts[0], *np.diff(cuts, axis=0)], dtype)
    with np.errstate(invalid="ignore"):
        wide = np.stack([share.astype(np.float64) for share in shares])
        total, expected = wide.sum(axis=0), whole.astype(np.float64)  # float64 rounds none of these
    assert np.array_equal(total, expected, equal_nan=True)
    finite = np.isfinite(expected)
    assert finite.sum() > 60_000
    assert np.isfinite(wide[:, finite]).all()
    # the others stay whole
    assert (wide[:-1, ~finite] == 0).all()


@pytest.mark.parametrize("dtype", sorted(BITS))
@pytest.mark.parametrize("count", [2, 3, 7])
def test_many_weights(dtype, count):
    generator = np.random.default_rng(count)
    whole = generator.standard_normal(500).astype(numpy_dtype(dtype))
    drawn = generator.exponential(size=(count, 500))
    wanted = list((drawn / drawn.sum(axis=0))[:-1].astype("f8" if dtype == "float64" else "f4"))
    quick = divide(whole, wanted, dtype)
    assert_exact(quick, whole, dtype)
    # a weight is divided alike whatever stands beside it
    beside = np.append(whole, np.array([np.nan, np.inf, 1e-40]).astype(whole.dtype))
    mixed = divide(beside, [np.append(each, each[:3]) for each in wanted], dtype)
    assert all(np.array_equal(a[:500], b) for a, b in zip(mixed, quick, strict=True))
    noise = list(generator.standard_normal((count - 1, 500)) * 0.3)
    noisy = split_exactly(whole, wanted, dtype, noise)
    assert_exact(noisy, whole, dtype)
    quiet = split_exactly(whole, wanted, dtype)
    changed = [np.abs((a - b).astype(np.float64)).mean() for a, b in zip(noisy, quiet, strict=True)]
    assert min(changed[:-1]) > 0.05  # noise that is wanted is not all clipped away


def test_whole_shares_are_the_weight_itself():
    whole = np.array([0.1, -3.5, 1e-42], np.float32)
    shares = divide(whole, [np.float32(0), np.float32(1)], "float32")
    assert np.array_equal(np.stack(shares), np.array([[0], [1], [0]], np.float32) * whole)


@pytest.mark.parametrize("epsilon", [1e-5, 1e-3, 1e-8, 0.01, 0.0])
@pytest.mark.parametrize(
    ("dtype", "bound"), [("float64", 1e-15), ("float32", 1e-12), ("float16", 1e-3)]
)
def test_identity_statistics_undo_themselves(dtype, bound, epsilon):
    gamma, variance, defect = identity_statistics(dtype, epsilon)
    stored = numpy_dtype(dtype)
    assert (gamma, variance) == (float(stored.type(gamma)), float(stored.type(variance)))
    assert defect == pytest.approx(abs(gamma / (variance + epsilon) ** 0.5 - 1), abs=1e-16)
    assert defect < bound
