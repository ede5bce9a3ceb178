"""Work on tiles: every tile once, hashed in order, whoever is fast; failures end it."""

from __future__ import annotations

import random
import threading
import time

import numpy as np
import pytest
from blake3 import blake3
from hypothesis import given
from hypothesis import strategies as st

from ckgrow.header import TensorSpec
from ckgrow.tiles import CancelledError, digest_tiles, tiles

DTYPES = st.sampled_from(["float32", "uint8", "float64"])


@given(DTYPES, st.lists(st.integers(0, 9), max_size=3), st.integers(1, 300))
def test_tiles_are_all_rows_in_order(dtype, shape, size):
    spec = TensorSpec(dtype, tuple(shape))
    found = list(tiles(spec, size))
    rows = spec.shape[0] if spec.shape else 1
    assert [row for start, stop in found for row in range(start, stop)] == (
        list(range(rows)) if spec.size else []
    )
    row = spec.nbytes // rows if rows else 0
    assert all(stop - start == 1 or (stop - start) * row <= size for start, stop in found)


@pytest.mark.parametrize("workers", [1, 2, 5])
def test_hashes_are_those_of_the_whole_tensors_whoever_is_fast(workers):
    generator = np.random.default_rng(workers)
    shapes = {"large": (400, 8), "row": (1, 7), "none": (0, 3), "number": (), "other": (90, 11)}
    arrays = {name: generator.standard_normal(shape) for name, shape in shapes.items()}
    specs = {name: TensorSpec("float64", shape) for name, shape in shapes.items()}
    made: list[tuple[str, int]] = []
    done: list[str] = []

    def work(name: str, start: int, stop: int) -> memoryview:
        time.sleep(random.choice([0, 0, 0.002]))
        made.extend((name, row) for row in range(start, stop))
        return np.atleast_1d(arrays[name])[start:stop].reshape(-1).view(np.uint8).data

    digests = digest_tiles(specs, 200, work, done.append, workers, threading.Event())
    assert digests == {name: blake3(array.tobytes()).hexdigest() for name, array in arrays.items()}
    assert len(made) == len(set(made)) == 400 + 1 + 1 + 90
    assert sorted(done) == ["large", "number", "other", "row"]


def test_few_tiles_wait_for_one_that_is_slow(monkeypatch):
    monkeypatch.setattr("ckgrow.tiles.WAITING_BYTES", 20)
    alive = set()
    most = 0
    lock = threading.Lock()

    class Tile(bytearray):
        def __del__(self):
            alive.discard(id(self))

    def work(name: str, start: int, stop: int) -> memoryview:
        nonlocal most
        if start == 0:
            time.sleep(0.3)
        tile = Tile(10)
        with lock:
            alive.add(id(tile))
            most = max(most, len(alive))
        return memoryview(tile)

    spec = {"large": TensorSpec("uint8", (200, 10))}
    digest_tiles(spec, 10, work, lambda _: None, 3, threading.Event())
    assert most < 15


@pytest.mark.parametrize("failing", [0, 3, 199])
def test_the_first_failure_is_raised_and_ends_the_others(failing):
    calls: list[int] = []

    def work(name: str, start: int, stop: int) -> memoryview:
        calls.append(start)
        if start == failing:
            raise ValueError("broken")
        time.sleep(0.001)
        return memoryview(b"x" * 10)

    stop = threading.Event()
    with pytest.raises(ValueError, match="broken"):
        digest_tiles({"large": TensorSpec("uint8", (1000, 10))}, 10, work, lambda _: None, 3, stop)
    assert stop.is_set()
    assert len(calls) < failing + 100


def test_a_run_that_was_given_up_does_nothing():
    stop = threading.Event()
    stop.set()
    with pytest.raises(CancelledError):
        digest_tiles(
            {"a": TensorSpec("uint8", (9, 9))}, 10, lambda *_: memoryview(b""), print, 2, stop
        )
