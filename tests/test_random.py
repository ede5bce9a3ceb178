"""Streams of random numbers: any part alone is the same part of the whole, for ever."""

from __future__ import annotations

import hashlib
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ckgrow.random import Stream, contiguous


def philox(key: tuple[int, int], counter: int) -> list[int]:
    """Four words of Philox 4x64-10 (Salmon et al., SC 2011), as the paper defines it."""
    mask = 2**64 - 1
    words = [counter & mask, counter >> 64, 0, 0]
    k0, k1 = key
    for _ in range(10):
        first, second = 0xD2E7470EE14C6C93 * words[0], 0xCA5A826395121157 * words[2]
        words = [
            (second >> 64) ^ words[1] ^ k0,
            second & mask,
            (first >> 64) ^ words[3] ^ k1,
            first & mask,
        ]
        k0, k1 = (k0 + 0x9E3779B97F4A7C15) & mask, (k1 + 0xBB67AE8584CAA73B) & mask
    return words


@given(st.text(max_size=9), st.integers(0, 2**40))
def test_numbers_are_philox_words(key, block):
    digest = hashlib.blake2b(repr((7, key)).encode(), digest_size=16).digest()
    words = philox(
        (int.from_bytes(digest[:8], "little"), int.from_bytes(digest[8:], "little")), block + 1
    )
    expected = [((word >> 11) + 0.5) / 2**53 for word in words]
    assert Stream(7, key).uniform(4 * block, 4).tolist() == expected


@given(st.integers(0, 300), st.integers(0, 60))
def test_any_slice_is_a_slice_of_the_whole(start, count):
    whole = Stream("slices").uniform(0, 400)
    assert np.array_equal(Stream("slices").uniform(start, count), whole[start : start + count])


@given(st.lists(st.integers(0, 40), max_size=20), st.integers(0, 7))
def test_any_rows_are_rows_of_the_whole(rows, length):
    stream = Stream("rows", length)
    index = np.array(rows, dtype=np.int64)
    uniform = stream.uniform_rows(np.arange(41), length)
    assert np.array_equal(stream.uniform_rows(index, length), uniform[index])
    normal = stream.normal_rows(np.arange(41), length)
    assert np.array_equal(stream.normal_rows(index, length), normal[index])


@given(st.lists(st.integers(0, 50), max_size=30))
def test_contiguous_runs_cover_all_rows_in_order(rows):
    runs = contiguous(np.array(rows, dtype=np.int64))
    spelled = [row for start, stop, first in runs for row in range(first, first + stop - start)]
    assert spelled == rows
    assert len(runs) == sum(b != a + 1 for a, b in zip([-9, *rows], rows, strict=False))


def test_keys_tell_streams_apart():
    keys = [(0,), (1,), (0, 0), (0, "a"), (0, "b"), ("0",), (0, "a", "b"), (0, "ab")]
    assert len({Stream(*key).uniform(0, 1)[0] for key in keys}) == len(keys)


def test_distributions():
    count = 200_000
    u = Stream("uniform").uniform(0, count)
    assert 0 < u.min() < u.max() < 1
    assert u.mean() == pytest.approx(0.5, abs=5 / math.sqrt(12 * count))
    assert np.histogram(u, 20)[0].std() < 5 * math.sqrt(count / 20)
    z = Stream("normal").normal_rows(np.arange(count // 8), 8).ravel()
    assert np.isfinite(z).all()
    assert z.mean() == pytest.approx(0, abs=5 / math.sqrt(count))
    assert z.std() == pytest.approx(1, abs=5 / math.sqrt(2 * count))
    assert np.mean(np.abs(z) < 1) == pytest.approx(math.erf(1 / math.sqrt(2)), abs=0.006)
    assert np.corrcoef(z[:-1], z[1:])[0, 1] == pytest.approx(0, abs=5 / math.sqrt(count))


@given(st.integers(0, 40), st.data())
def test_chosen_numbers_are_different(population, data):
    count = data.draw(st.integers(0, population))
    chosen = Stream("choose", population).choose(population, count).tolist()
    assert len(chosen) == count
    assert chosen == sorted(set(chosen) & set(range(population)))


@given(st.integers(1, 20), st.integers(0, 50))
def test_integers_stay_below(below, count):
    drawn = Stream("integers", below).integers(below, count)
    assert len(drawn) == count
    assert set(drawn.tolist()) <= set(range(below))
    assert set(Stream("all").integers(below, 40 * below).tolist()) == set(range(below))
