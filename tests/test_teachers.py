"""The shipped teachers are small, load into plain torch modules, and are as good as recorded."""

from __future__ import annotations

import json

import pytest
from safetensors import safe_open
from safetensors.torch import load_file
from shipped import TEACHERS, training

RECORDED = json.loads((TEACHERS / "accuracy.json").read_text())
NAMES = ("resnet", "inception", "mlp", "convnet")


def test_every_teacher_is_recorded_and_every_record_has_its_teacher():
    assert set(RECORDED) == set(NAMES) == set(training().TEACHERS)
    assert {path.stem for path in TEACHERS.glob("*.safetensors")} == set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_is_small_and_has_no_metadata(name):
    path = TEACHERS / f"{name}.safetensors"
    assert path.stat().st_size < 1_000_000
    with safe_open(path, "numpy") as file:
        assert not file.metadata()


@pytest.mark.parametrize("name", NAMES)
def test_reaches_its_recorded_accuracy_in_torch(name):
    network = training().TEACHERS[name]()
    network.load_state_dict(load_file(TEACHERS / f"{name}.safetensors"), strict=True)
    accuracy = training().accuracy(network)
    assert accuracy > 0.96
    assert accuracy == pytest.approx(RECORDED[name], abs=0.003)  # one of the 449 images


@pytest.mark.parametrize("name", NAMES)
def test_readme_tells_the_recorded_accuracy(name):
    rows = (TEACHERS / "README.md").read_text().splitlines()
    (row,) = (row for row in rows if row.startswith(f"| `{name}.safetensors`"))
    assert f"{RECORDED[name]:.1%}" in row


def test_training_and_test_images_are_different_ones():
    images, labels = training().digits(test=False)
    held_out, held_out_labels = training().digits(test=True)
    assert len(images) == len(labels) == 1348
    assert len(held_out) == len(held_out_labels) == 449
    assert not (images.flatten(1)[:, None] == held_out.flatten(1)).all(2).any()
    assert abs(images.mean()) < 0.01
    assert abs(images.std() - 1) < 0.01
