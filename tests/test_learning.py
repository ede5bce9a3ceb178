"""Whether a student can learn: the verdict on its first steps, beside torch's own training."""

from __future__ import annotations

import dataclasses
import json
import re

import numpy as np
import pytest
import torch
import torchvision
from method_matrix import cells, teacher
from shipped import SPECS, TEACHERS
from student_oracles import grown, images, on_meta, random_state
from torch import nn
from training_oracles import learned, sides, trained, unit_rank

import ckgrow
from ckgrow.errors import CheckpointError, SpecError
from ckgrow.learning.learning import learn
from ckgrow.reports.documents import to_plain
from ckgrow.verdict.samples import Samples


def mlp(*widths, activation=nn.ReLU):
    layers = [nn.Linear(a, b) for a, b in zip(widths, widths[1:], strict=False)]
    return nn.Sequential(*[each for layer in layers for each in (layer, activation())][:-1])


# Eight units become sixteen, which [dW_in | db | dW_out] has room for: 10 + 1 + 6 columns.
TOY = on_meta(mlp, 10, 8, 6)
STATE = random_state(TOY)


def toy(**step):
    return grown(STATE, {"widen": "0", "to": 16, **step}, options={"activation": "relu"})


def resnet(first=2):
    return on_meta(torchvision.models.resnet18, num_classes=5)


def labelled(tmp_path, size, count=24, classes=5):
    """Samples and class indices: in memory, and as files."""
    x = images(count, *size).numpy()
    labels = (np.arange(count) * 7) % classes
    np.save(tmp_path / "labels.npy", labels)
    (name,) = ("input",)
    return x, labels, Samples(f"{count} of the test", {name: x})


# --- what the units of a layer do ------------------------------------------------------------


@pytest.mark.parametrize(
    ("step", "rank", "verdict", "cure"),
    [
        ({"split": "uniform"}, 8, "locked", "split: unequal"),
        ({"split": "per-channel"}, range(9, 17), "learns", ""),
        ({"split": "unequal"}, range(12, 17), "learns", ""),
        ({"method": "r2wider"}, 16, "learns", ""),
        ({"method": "netmorph"}, range(12, 17), "learns", ""),
        ({"method": "netmorph", "zero": "in"}, 8, "dead", "zero: out"),
        ({"method": "netmorph", "fill": "zeros"}, 8, "dead", "fill: match-std"),
        ({"method": "envelope", "noise": "none"}, 8, "dead", "noise at its default"),
        ({"method": "symmetric", "noise": "none"}, 8, "locked", "noise at its default"),
        ({"split": "uniform", "noise": {"scale": 1e-9}}, 8, "locked", "split: unequal"),
        ({"method": "symmetric"}, range(12, 17), "learns", ""),
        ({"method": "r2wider", "scale": 5.0}, 16, "exploding", "scale: 0.3"),
    ],
)
def test_the_paper_table(step, rank, verdict, cure):
    """Section 6 of the measurements that this check stands on: who moves alone, who never does."""
    found = learned(toy(**step), STATE)
    (group,) = found.groups
    assert (group.name, group.width, group.teacher_width) == ("0", 16, 8)
    assert group.rank in (rank if isinstance(rank, range) else [rank])
    assert group.attainable == 16
    assert found.verdict == verdict
    assert all(each.kind == verdict for each in found.findings)
    assert any(cure in each.cure for each in found.findings) == bool(cure)
    if verdict == "learns":
        assert (found.share, group.still, group.identical) == (1.0, 0, 0)
    elif verdict == "dead":
        assert (found.share, group.still, group.new) == (0.0, 8, 8)
    elif verdict == "locked":
        assert group.identical == 8
