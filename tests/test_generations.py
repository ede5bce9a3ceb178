"""Students of students: five generations, each a file, each verified, and none drifts."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import load_file, save_file
from student_oracles import deviation, images, on_meta, outputs_of, random_state
from test_architecture_resnet import CifarResNet
from torchvision.models.resnet import BasicBlock, ResNet

import ckgrow

WIDENED = (
    [{"widen": "layer*.conv1", "factor": 1.5}],
    [{"widen": "*", "factor": 2, "method": "r2wider"}],
    [{"widen": "layer[12].*.conv1", "by": 3, "method": "netmorph", "placement": "interleave"}],
    [{"widen": "*", "factor": 2, "method": "diagonal"}],
    [{"widen": "layer*.conv2", "by": 2, "method": "envelope"}],
)


def grown(path, steps, folder):
    student = folder / f"{path.stem}+.safetensors"
    made = ckgrow.apply(path, {"seed": len(path.stem), "steps": steps}, student)
    assert made.verify.preserved
    return student


def test_five_generations_by_width_load_into_the_module_itself(tmp_path):
    module = on_meta(CifarResNet, (8, 16, 32), (1, 1, 1), option="B")
    state = random_state(module)
    path = tmp_path / "teacher.safetensors"
    save_file(state, path)
    x = images(4, 3, 16, 16)
    first = outputs_of(module, state, x)
    for steps in WIDENED:
        path = grown(path, steps, tmp_path)
    last = load_file(path)
    assert deviation(first, outputs_of(module, last, x)) < 1e-12
    assert last["conv1.weight"].shape[0] > 4 * state["conv1.weight"].shape[0]
    grown_by = [each["spec"]["steps"][0]["widen"] for each in ckgrow.inspect(path).lineage]
    assert grown_by == [[steps[0]["widen"]] for steps in WIDENED]


def test_five_generations_of_every_verb(tmp_path):
    module = on_meta(ResNet, BasicBlock, [1, 1, 1, 1], num_classes=10)
    state = random_state(module, shrink=8)
    path = tmp_path / "teacher.safetensors"
    save_file(state, path)
    generations = (
        [{"deepen": "layer1"}, {"widen": "*", "factor": 1.5}],
        [{"classes": {"by": 2}}, {"inputs": {"by": 1}}],
        [{"deepen": "layer2.0.conv1", "method": "r2deeper"}, {"kernel": "layer3.0.conv1", "to": 5}],
        [{"branch": "layer1.0.conv2", "width": 3}, {"widen": "layer3.0.conv1", "by": 2}],
        [{"deepen": "layer4", "blocks": 2}, {"classes": {"by": 1}}],
    )
    for steps in generations:
        path = grown(path, steps, tmp_path)
    last = load_file(path)
    assert last["conv1.weight"].shape[1] == 4
    assert last["fc.weight"].shape[0] == state["fc.weight"].shape[0] + 3
    assert len(ckgrow.inspect(path).lineage) == 5
    assert all(torch.isfinite(tensor).all() for tensor in last.values())


@pytest.mark.parametrize("method", ["net2wider", "r2wider", "symmetric"])
def test_the_same_method_five_times(tmp_path, method):
    module = on_meta(CifarResNet, (4, 8, 16), (1, 1, 1), option="A")
    state = random_state(module)
    path = tmp_path / "teacher.safetensors"
    save_file(state, path)
    x = images(4, 3, 16, 16)
    first = outputs_of(module, state, x)
    for _ in range(5):
        path = grown(path, [{"widen": "layer*.conv1", "factor": 2, "method": method}], tmp_path)
    assert deviation(first, outputs_of(module, load_file(path), x)) < 1e-12
