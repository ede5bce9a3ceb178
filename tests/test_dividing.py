"""Divided weights: exact sums, the same bytes in any tiles, the statistics that are promised."""

from __future__ import annotations

import threading

import numpy as np
import pytest

from ckgrow.header import TensorSpec, numpy_dtype
from ckgrow.maps import ChannelMap
from ckgrow.measuring import Measuring
from ckgrow.memory import MemoryReader
from ckgrow.random import Stream
from ckgrow.recipes import Disturbance, Divided, Statistic, Stored

MAP = ChannelMap.of(6, [0, 1, 2, 3, 4, 5, 4, 1, 5, 2, 1, 5])  # 1, 3, 2, 1, 2 and 3 copies
SPLITS = ("unequal", "uniform", "select", "per-channel", "diagonal")


def divided(weight, axis, split="unequal", *, noisy=False, grown=MAP):
    """A recipe for ``weight`` and what it reads from."""
    stored = Stored(TensorSpec(weight.dtype.name, weight.shape), "w")
    noise = Disturbance(Stream("noise"), Statistic("deviation", stored, "w"), 0.3)
    rows = weight.shape[1 if axis == 0 else 0]
    recipe = Divided(
        stored,
        axis,
        (grown,),
        split,
        (np.arange(1.0, len(grown) + 1),) if split == "per-channel" else (),
        Stream("shares"),
        noise if noisy else None,
        copy_of_row=np.arange(rows) % 5 if split == "diagonal" else None,
    )
    return recipe, Measuring(MemoryReader({"w": weight}).read, threading.Event())


def drawn(shape, dtype, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(numpy_dtype(dtype))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16", "float64"])
@pytest.mark.parametrize("noisy", [False, True])
@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize(("shape", "axis"), [((5, 6), 1), ((5, 6, 3, 1), 1), ((6, 5, 2), 0)])
def test_sums_are_exact_and_tiles_do_not_matter(shape, axis, split, noisy, dtype, monkeypatch):
    weight = drawn(shape, dtype)
    recipe, reading = divided(weight, axis, split, noisy=noisy)
    whole = recipe.rows(np.arange(recipe.spec.shape[0]), reading)
    assert (whole.dtype, whole.shape) == (weight.dtype, recipe.spec.shape)
    wide = np.moveaxis(whole.astype(np.longdouble), axis, 0)  # rounds no sum of a few of them
    sums = [wide[MAP.sources == source].sum(axis=0) for source in range(6)]
    assert np.array_equal(np.moveaxis(np.stack(sums), 0, axis), weight.astype(np.float64))
    if not noisy and split != "uniform":
        assert not np.array_equal(wide[4], wide[6])
    for chunk, most in ((7, 10**6), (1, 3), (40, 11)):
        monkeypatch.setattr("ckgrow.recipes.divided.CHUNK", chunk)
        monkeypatch.setattr("ckgrow.recipes.splits.MOST_DRAWN", most)
        for index in ([0, 1], [2], [4, 3], [1, 4, 4]):
            assert np.array_equal(recipe.rows(np.array(index), reading), whole[index])


def test_what_is_not_copied_stays_as_it_is():
    weight = drawn((5, 6), "float32")
    recipe, reading = divided(weight, 1, noisy=True)
    made = recipe.rows(np.arange(5), reading)
    assert np.array_equal(made[:, [0, 3]], weight[:, [0, 3]])


@pytest.mark.parametrize("copies", [2, 3, 5])
def test_unequal_shares_are_uniform_on_the_simplex(copies):
    grown = ChannelMap.of(40, np.tile(np.arange(40), copies).tolist())
    recipe, reading = divided(np.ones((500, 40)), 1, grown=grown)
    shares = recipe.rows(np.arange(500), reading).reshape(500, copies, 40)
    for copy in range(copies):
        own = shares[:, copy].ravel()
        assert own.mean() == pytest.approx(1 / copies, rel=0.03)
        # as Dirichlet's distribution with parameters 1 has them
        assert (own**2).mean() == pytest.approx(2 / (copies * (copies + 1)), rel=0.05)
        assert (own < 0.5 / copies).mean() == pytest.approx(
            1 - (1 - 0.5 / copies) ** (copies - 1), abs=0.02
        )
    pairs = np.corrcoef(shares[:, 0].ravel(), shares[:, 1].ravel())[0, 1]
    assert pairs == pytest.approx(-1 / (copies - 1), abs=0.03)
    across = np.corrcoef(shares[:, 0, 0], shares[:, 0, 1])[0, 1]
    assert across == pytest.approx(0, abs=0.15)


@pytest.mark.parametrize("copies", [2, 3])
def test_selected_copies_are_all_as_frequent(copies):
    grown = ChannelMap.of(30, np.tile(np.arange(30), copies).tolist())
    recipe, reading = divided(np.full((400, 30), 3.0), 1, "select", grown=grown)
    shares = recipe.rows(np.arange(400), reading).reshape(400, copies, 30)
    assert set(np.unique(shares)) == {0.0, 3.0}
    assert np.array_equal((shares == 3).sum(axis=1), np.ones((400, 30)))
    assert (shares == 3).mean(axis=(0, 2)) == pytest.approx([1 / copies] * copies, abs=0.02)


@pytest.mark.parametrize(("shape", "axis"), [((300, 40), 1), ((40, 300), 0)])
def test_noise_has_its_size_on_every_copy(shape, axis):
    grown = ChannelMap.of(40, np.tile(np.arange(40), 3).tolist())
    weight = np.random.default_rng(0).uniform(0.5, 1, shape) * 4  # nothing is clipped
    quiet, noisy = (
        divided(weight, axis, "uniform", noisy=noisy, grown=grown) for noisy in (False, True)
    )
    rows = np.arange(quiet[0].spec.shape[0])
    noise = noisy[0].rows(rows, noisy[1]) - quiet[0].rows(rows, quiet[1])
    noise = np.moveaxis(noise, axis, 0).reshape(3, 40, 300)
    assert noise.sum(axis=0) == pytest.approx(np.zeros((40, 300)), abs=1e-12)
    for copy in noise:
        assert copy.std() == pytest.approx(0.3 * weight.std(), rel=0.03)
        assert copy.mean() == pytest.approx(0, abs=0.01)
