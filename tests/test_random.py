"""Streams of random numbers: any part alone is the same part of the whole, for ever."""

from __future__ import annotations

import hashlib
import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ckgrow.random import Stream, clusters


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


@pytest.mark.parametrize("kind", ["fractions", "normals"])
@given(st.lists(st.integers(0, 40), max_size=20), st.integers(0, 60), st.data())
def test_any_part_of_a_table_is_a_part_of_the_whole(kind, rows, length, data):
    start = data.draw(st.integers(0, length))
    stop = data.draw(st.integers(start, length))
    draw = getattr(Stream("table", length), kind)
    whole = draw(np.arange(41), length, 0, length)
    for chosen in (rows, sorted(rows), [3, 3, 5], [4, 5, 6]):
        index = np.array(chosen, dtype=np.int64)
        assert np.array_equal(draw(index, length, start, stop), whole[index, start:stop])


@given(st.text(max_size=9), st.integers(0, 2**30))
def test_fractions_are_quarters_of_philox_words(key, row):
    digest = hashlib.blake2b(repr((key,)).encode(), digest_size=16).digest()
    words = philox(
        (int.from_bytes(digest[:8], "little"), int.from_bytes(digest[8:], "little")), row + 1
    )
    shorts = [word >> shift & 0xFFFF for word in words for shift in (0, 16, 32, 48)]
    drawn = Stream(key).fractions(np.array([row]), 16, 0, 16)
    assert drawn[0].tolist() == [(short + 0.5) / 2**16 for short in shorts]
    normal = Stream(key).normals(np.array([row]), 8, 0, 8)[0].astype(np.float64)
    for number, word in enumerate(words):
        radius, angle = ((each + 0.5) / 2**32 for each in (word >> 32, word & 0xFFFFFFFF))
        size = math.sqrt(-2 * math.log(radius))
        around = 2 * math.pi * angle
        expected = size * math.cos(around), size * math.sin(around)
        assert normal[2 * number : 2 * number + 2] == pytest.approx(expected, abs=2e-5)


@given(st.lists(st.integers(0, 50), max_size=30), st.integers(0, 5))
def test_clusters_cover_all_rows_in_order(rows, gap):
    found = clusters(np.array(rows, dtype=np.int64), gap)
    assert [row for start, stop, _, _ in found for row in rows[start:stop]] == rows
    for start, stop, first, last in found:
        part = rows[start:stop]
        assert (first, last) == (part[0], part[-1])
        assert all(0 <= b - a <= gap + 1 for a, b in itertools.pairwise(part))
    breaks = sum(not 0 <= b - a <= gap + 1 for a, b in itertools.pairwise(rows))
    assert len(found) == (breaks + 1 if rows else 0)


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


def test_distributions_of_tables():
    count = 200_000
    u = Stream("fractions").fractions(np.arange(count // 100), 100, 0, 100).ravel()
    assert 0 < u.min() < u.max() < 1
    assert u.astype(np.float64).mean() == pytest.approx(0.5, abs=5 / math.sqrt(12 * count))
    assert np.histogram(u, 20)[0].std() < 5 * math.sqrt(count / 20)
    z = Stream("normals").normals(np.arange(count // 100), 100, 0, 100).ravel().astype(np.float64)
    assert z.mean() == pytest.approx(0, abs=5 / math.sqrt(count))
    assert z.std() == pytest.approx(1, abs=5 / math.sqrt(2 * count))
    assert np.mean(np.abs(z) < 1) == pytest.approx(math.erf(1 / math.sqrt(2)), abs=0.006)
    assert np.mean(np.abs(z) > 3) == pytest.approx(math.erfc(3 / math.sqrt(2)), abs=0.0008)
    assert np.corrcoef(z[:-1], z[1:])[0, 1] == pytest.approx(0, abs=5 / math.sqrt(count))
    assert np.corrcoef(z[::2] ** 2, z[1::2] ** 2)[0, 1] == pytest.approx(0, abs=0.02)


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
