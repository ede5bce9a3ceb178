"""Numbers over whole tensors are measured once for each tensor, whoever asks for them."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field

import numpy as np
import pytest

from ckgrow.errors import CheckpointError
from ckgrow.header import TensorSpec
from ckgrow.measuring import Measuring
from ckgrow.recipes import Recipe, Statistic

VALUES = np.random.default_rng(0).normal(3.0, 2.0, (5, 7)).astype(np.float32)


@dataclass(frozen=True, eq=False)
class Watched(Recipe):
    """A tensor that counts how often it is made."""

    values: np.ndarray
    made: list[int] = field(default_factory=list)

    @property
    def spec(self) -> TensorSpec:
        return TensorSpec(self.values.dtype.name, self.values.shape)

    def rows(self, index, reading):
        self.made.append(len(index))
        return self.values[index]

    def describe(self):
        return "watched"


def measuring() -> Measuring:
    return Measuring(lambda name, start, stop: np.empty(0), threading.Event())


def test_a_tensor_is_read_once_for_all_its_statistics():
    tensor, reading = Watched(VALUES), measuring()
    found = [
        reading.measure(Statistic(kind, tensor, label))
        for kind in ("mean", "deviation")
        for label in ("a", "b")
    ]
    assert tensor.made == [5]
    exact = VALUES.astype(np.float64)
    assert found[0] == found[1] == pytest.approx(exact.mean(), rel=1e-15)
    assert found[2] == found[3] == pytest.approx(exact.std(), rel=1e-14)
    assert reading.measure(Statistic("mean", Watched(VALUES + 1), "c")) > found[0] + 0.5


def test_each_statistic_has_its_own_stand_in_and_its_own_name():
    tensor, reading = Watched(np.full((3, 2), 0.1, np.float32)), measuring()
    assert reading.measure(Statistic("deviation", tensor, "a", otherwise=0.5)) == 0.5
    assert reading.measure(Statistic("deviation", tensor, "b", otherwise=0.25)) == 0.25
    broken = Watched(np.full((3, 2), np.nan, np.float32))
    for kind, label in (("deviation", "a"), ("mean", "b")):
        with pytest.raises(CheckpointError, match=f"^{label} has no finite {kind}"):
            reading.measure(Statistic(kind, broken, label))
    assert broken.made == [3]
