"""Shares of a weight sum to it exactly; sums are taken in rational arithmetic."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ckgrow.header import numpy_dtype
from ckgrow.recipes import identity_statistics
from ckgrow.shares import split_exactly, whole_multiples

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
    import ml_dtypes

    limits = ml_dtypes.finfo(numpy_dtype(dtype))
    small = [float(limits.smallest_subnormal), float(limits.tiny), 3 * float(limits.tiny)]
    values = [0.0, *small, 1.0, float(limits.max)]
    return np.array([*values, *(-value for value in values)]).astype(numpy_dtype(dtype))


@st.composite
def fractions(draw):
    """Numbers that sum to one, some of them zero."""
    drawn = draw(st.lists(st.floats(0, 1), min_size=1, max_size=5))
    drawn = [*drawn, draw(st.floats(0.01, 1))]
    drawn = draw(st.permutations(drawn))
    return np.array(drawn) / np.sum(drawn)


def assert_exact(shares, whole, dtype):
    assert shares.dtype == numpy_dtype(dtype)
    for weight, parts in zip(whole.astype(np.float64), shares.astype(np.float64), strict=True):
        assert np.isfinite(parts).all()
        assert sum(map(Fraction, parts.tolist())) == Fraction(float(weight))


@given(DTYPES, st.data())
def test_shares_sum_to_the_weight(dtype, data):
    whole = data.draw(weights(dtype))
    wanted = data.draw(fractions())
    shares = split_exactly(whole, wanted, dtype)
    assert_exact(shares, whole, dtype)
    # and are what was asked for, to the weight's last place for every share
    ideal = whole.astype(np.float64)[:, None] * wanted
    place = np.ldexp(1.0, whole_multiples(whole, dtype)[1])[:, None]
    assert (np.abs(shares.astype(np.float64) - ideal) <= len(wanted) * place * 1.001).all()


@given(DTYPES, st.data())
def test_shares_with_noise_sum_to_the_weight(dtype, data):
    whole = data.draw(weights(dtype))
    wanted = data.draw(fractions())
    sizes = st.floats(-(2.0**20), 2.0**20)
    relative = data.draw(st.lists(sizes, min_size=len(wanted), max_size=len(wanted)).map(np.array))
    with np.errstate(over="ignore"):
        noise = relative * np.abs(whole.astype(np.float64))[:, None]
    noise = np.where(np.isfinite(noise), noise, 1.0)
    assert_exact(split_exactly(whole, wanted, dtype, noise), whole, dtype)


@pytest.mark.parametrize("dtype", sorted(BITS))
@pytest.mark.parametrize("count", [2, 3, 7])
def test_many_weights(dtype, count):
    generator = np.random.default_rng(count)
    whole = generator.standard_normal(500).astype(numpy_dtype(dtype))
    drawn = generator.exponential(size=(500, count))
    wanted = drawn / drawn.sum(axis=-1, keepdims=True)
    assert_exact(split_exactly(whole, wanted, dtype), whole, dtype)
    noise = generator.standard_normal((500, count)) * 0.3
    noisy = split_exactly(whole, wanted, dtype, noise)
    assert_exact(noisy, whole, dtype)
    changed = np.abs((noisy - split_exactly(whole, wanted, dtype)).astype(np.float64))
    assert changed[:, :-1].mean() > 0.05  # noise that is wanted is not all clipped away


def test_whole_shares_are_the_weight_itself():
    whole = np.array([0.1, -3.5, 1e-42], np.float32)
    shares = split_exactly(whole, np.array([0.0, 1.0, 0.0]), "float32")
    assert np.array_equal(shares, whole[:, None] * np.array([0, 1, 0], np.float32))


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
