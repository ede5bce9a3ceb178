"""What training scripts really save: averages, settings, counters, a framework's own module."""

from __future__ import annotations

import argparse

import numpy as np
import pytest
import safetensors.torch
import torch
from commands import ckgrow, written
from torch.func import functional_call
from torch.optim.swa_utils import AveragedModel
from torchvision.models import resnet18

SPEC = 'steps:\n  - widen: "layer1.*.conv1"\n    factor: 1.5\n'


@pytest.fixture(scope="module")
def net():
    torch.manual_seed(0)
    return resnet18(num_classes=5).eval()


@pytest.fixture
def spec(tmp_path):
    return written(tmp_path / "spec.yaml", SPEC)


def apply(teacher, spec, output, *options):
    done = ckgrow("apply", teacher, spec, "-o", output, "--no-verify", *options)
    assert done.exit_code == 0, done.output
    return output


def outputs(net, state):
    images = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        return functional_call(net, state, images)


def test_the_average_of_a_model_grows_with_it(net, spec, tmp_path):
    average = AveragedModel(net)
    average.update_parameters(net)
    torch.save(
        {
            "model": net.state_dict(),
            "model_ema": average.state_dict(),
            "args": argparse.Namespace(lr=0.1, arch="resnet18"),
            "best": np.float64(71.5),
            "seen": np.int64(4),
            "epoch": 3,
        },
        tmp_path / "teacher.pth",
    )
    path = apply(tmp_path / "teacher.pth", spec, tmp_path / "student.pth")
    student = torch.load(path, weights_only=False)  # made by this very test
    assert student["args"] == argparse.Namespace(lr=0.1, arch="resnet18")
    assert (student["best"], student["seen"], student["epoch"]) == (71.5, 4, 3)
    assert list(student["model_ema"])[:2] == ["n_averaged", "module.conv1.weight"]
    assert student["model_ema"]["n_averaged"] == 1
    averaged = {
        name.removeprefix("module."): each
        for name, each in student["model_ema"].items()
        if name != "n_averaged"
    }
    assert averaged["layer1.0.conv1.weight"].shape[0] == 96
    expected = outputs(net, net.state_dict())
    for state in (student["model"], averaged):
        torch.testing.assert_close(outputs(net, state), expected, rtol=1e-4, atol=1e-4)
    alone = apply(path.with_name("teacher.pth"), spec, tmp_path / "a.pth", "--weights", "model_ema")
    assert torch.load(alone, weights_only=False)["model_ema"]["n_averaged"] == 1


@pytest.mark.parametrize("outer", ["model.", "net.model.", "module.model."])
def test_the_network_inside_a_frameworks_module(net, spec, tmp_path, outer):
    state = {outer + name: each for name, each in net.state_dict().items()}
    torch.save({"state_dict": state, "epoch": 2, "callbacks": {}}, tmp_path / "teacher.ckpt")
    path = apply(tmp_path / "teacher.ckpt", spec, tmp_path / "student.ckpt")
    student = torch.load(path, weights_only=True)["state_dict"]
    assert list(student) == list(state)
    inside = {name.removeprefix(outer): each for name, each in student.items()}
    assert inside["layer1.0.conv1.weight"].shape[0] == 96
    expected = outputs(net, net.state_dict())
    torch.testing.assert_close(outputs(net, inside), expected, rtol=1e-4, atol=1e-4)
    assert ckgrow("verify", tmp_path / "teacher.ckpt", path, "--quick").exit_code == 0


def test_a_module_that_fits_nothing_is_told_by_its_own_keys(tmp_path):
    safetensors.torch.save_file({"outer.strange": torch.zeros(2)}, tmp_path / "a.safetensors")
    done = ckgrow("inspect", tmp_path / "a.safetensors")
    assert done.exit_code == 3
    assert "outer.strange" in done.stderr


class Opened:
    """Runs something when it is unpickled."""

    def __reduce__(self):
        return print, ("unpickled",)


@pytest.mark.parametrize("hidden", [Opened(), np.array([Opened()], object)])
def test_code_beside_the_weights_is_not_run(tmp_path, capfd, hidden):
    torch.save({"model": {"w": torch.zeros(2)}, "extra": hidden}, tmp_path / "a.pt")
    done = ckgrow("inspect", tmp_path / "a.pt")
    assert done.exit_code == 3
    assert "unpickled" not in done.output + capfd.readouterr().out
