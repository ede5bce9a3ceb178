"""The verdict on students with other inputs and classes: by their files' record, or not at all."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from commands import ckgrow, document, saved, tensors, written
from safetensors import safe_open
from safetensors.numpy import load_file, save_file
from student_oracles import deviation, outputs_of, random_state
from torch import nn

from ckgrow.public import apply, inspect, plan, verify

SPEC = "steps:\n  - inputs: {by: 2}\n  - classes: {by: 5}\n"
TEACHER, STUDENT = "teacher.safetensors", "student.safetensors"


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    saved(tmp_path / TEACHER, tensors())
    written(tmp_path / "spec.yaml", SPEC)
    assert ckgrow("apply", TEACHER, "spec.yaml", "-o", STUDENT).exit_code == 0
    return tmp_path


def verdict(*options, code=0):
    return document("verify", TEACHER, STUDENT, *options, code=code)


def record():
    with safe_open(STUDENT, "numpy") as file:
        return dict(file.metadata())


def retouched(change):
    metadata, values = record(), load_file(STUDENT)
    change(values)
    save_file(values, STUDENT, metadata)


def retold(change):
    metadata = record()
    told = json.loads(metadata["ckgrow"])
    change(told)
    save_file(load_file(STUDENT), STUDENT, {**metadata, "ckgrow": json.dumps(told)})


@pytest.mark.parametrize("quick", [(), ("--quick",)], ids=["", "quick"])
def test_the_old_logits_of_the_old_channels_are_compared(folder, quick):
    made = verdict(*quick)
    assert made["reason"] == (
        "every output agrees within its tolerance; logits compared on the teacher's 3 of 8 channels"
    )
    assert made["inputs"].endswith("zeros, ones; new channels of input seeded normal")
    assert made["outputs"][0]["top1"] == 1.0


@pytest.mark.parametrize("quick", [(), ("--quick",)], ids=["", "quick"])
@pytest.mark.parametrize("column", [4, 5])
def test_a_new_column_that_is_not_zero_is_found_out(folder, quick, column):
    def spoil(values):
        values["0.weight"][1, column] = 1e-3

    retouched(spoil)
    assert "the largest difference" in verdict(*quick, code=1)["reason"]


@pytest.mark.parametrize(("row", "preserved"), [(0, False), (2, False), (3, True), (7, True)])
def test_only_old_classes_count(folder, row, preserved):
    def spoil(values):
        values["2.weight"][row] += 1
        values["2.bias"][row] -= 3

    retouched(spoil)
    assert verdict(code=0 if preserved else 1)["preserved"] is preserved


def test_top1_is_about_old_classes(folder):
    def exalt(values):
        values["2.bias"][5] = 1e4

    retouched(exalt)
    assert verdict()["outputs"][0]["top1"] == 1.0


# The user's own arrays


def expected(x):
    module = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3))
    state = {name: torch.from_numpy(each) for name, each in tensors().items()}
    return outputs_of(module, state, torch.from_numpy(x))[0].numpy().astype("f4")


def test_own_inputs_of_either_side(folder):
    x = np.random.default_rng(3).normal(size=(7, 6)).astype("f4")
    np.save("student.npy", x)
    np.save("teacher.npy", x[:, :4])
    np.save("y.npy", expected(x[:, :4]))
    wide = verdict("--inputs", "student.npy", "--expect", "y.npy")
    assert wide["inputs"] == "7 samples from student.npy"
    assert wide["expectations"][0]["met"]
    narrow = verdict("--inputs", "teacher.npy", "--expect", "y.npy")
    assert narrow["inputs"] == "7 samples from teacher.npy; new channels of input seeded normal"
    assert narrow["expectations"][0]["met"]
    np.save("y.npy", expected(x[:, :4]) + 1)
    assert not verdict("--inputs", "teacher.npy", "--expect", "y.npy", code=1)["preserved"]


def test_inputs_of_neither_side(folder):
    np.save("x.npy", np.ones((7, 5), "f4"))
    done = ckgrow("verify", TEACHER, STUDENT, "--inputs", "x.npy")
    assert done.exit_code == 3
    assert "has shape [7, 5]; expected [N, 4] or [N, 6]" in done.stderr


# Without a record, or with another


def test_without_the_record_nothing_is_believed(folder):
    save_file(load_file(STUDENT), STUDENT)
    reason = verdict(code=1)["reason"]
    assert "the inputs differ: input ['N', 4] in the teacher, input ['N', 6]" in reason
    assert "in the metadata of the student's file (its entry 'ckgrow'), and there is none" in reason


def test_new_classes_without_the_record(folder):
    written(folder / "spec.yaml", "steps:\n  - classes: {by: 5}\n")
    ckgrow("apply", TEACHER, "spec.yaml", "-o", STUDENT, "--force")
    assert verdict()["preserved"]
    save_file(load_file(STUDENT), STUDENT)
    reason = verdict(code=1)["reason"]
    assert "its shape differs: [18, 3] in the teacher and [18, 8] in the student; which" in reason
    assert "there is none; name an earlier copy of it" in reason


def test_the_record_is_about_one_teacher(folder):
    saved(folder / TEACHER, tensors(seed=1))
    assert "tells of another teacher, whose tensors hash to" in verdict(code=1)["reason"]


def test_files_the_wrong_way_round(folder):
    made = document("verify", STUDENT, TEACHER, code=1)
    assert made["notes"] == ["the first file was grown from the second: give the teacher first"]


@pytest.mark.parametrize(
    "logits",
    [
        [3, [["copy", 1, 1], ["copy", 0, 1], ["copy", 2, 1], ["fresh", 0, 5]]],
        [3, [["fresh", 0, 5], ["copy", 0, 3]]],
        [2, [["copy", 0, 2], ["fresh", 0, 6]]],
        [3, [["copy", 0, 3], ["fresh", 0, 4]]],
    ],
    ids=["moved", "behind", "fewer", "short"],
)
def test_a_record_that_moves_old_classes_is_not_believed(folder, logits):
    retold(lambda told: told["interface"].update(logits=logits))
    reason = verdict(code=1)["reason"]
    assert "its shape differs" in reason
    assert "the student's record does not tell of this change" in reason


@pytest.mark.parametrize("damage", [{"input": 3}, {"input": [3]}, [], {"input": [3, [["copy"]]]}])
def test_a_damaged_record_is_told(folder, damage):
    retold(lambda told: told.update(interface=damage))
    done = ckgrow("verify", TEACHER, STUDENT)
    assert done.exit_code == 3
    assert "its ckgrow entry is damaged" in done.stderr


# What the documents say


def test_the_plan_shows_both_ends(folder):
    steps = plan(TEACHER, "spec.yaml").steps
    assert [step.widths for step in steps] == [{"input": (4, 6)}, {"logits": (3, 8)}]
    assert [step.summary for step in steps] == ["inputs by 2", "classes by 5 (match-std)"]
    shown = ckgrow("plan", TEACHER, "spec.yaml").stdout
    assert "input 4→6" in shown
    assert "logits 3→8" in shown


def test_the_same_run_again_is_up_to_date(folder):
    assert apply(TEACHER, "spec.yaml", STUDENT).status == "up to date"


# Images, whose size is stated


class Small(nn.Module):
    def __init__(self, inputs=3, classes=4):
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, 6, 3, padding=1)
        self.fc1 = nn.Linear(6 * 30, classes)

    def forward(self, x):
        return self.fc1(self.conv1(x).relu().flatten(1))


OPTIONS = {"input": [3, 5, 6], "head": "flatten", "activation": "relu"}


def test_a_stated_size_holds_for_each_side_with_its_own_channels(folder):
    saved(folder / TEACHER, {k: v.numpy() for k, v in random_state(Small()).items()})
    spec = {"teacher": {"options": OPTIONS}, "steps": [{"inputs": {"by": 1}}]}
    apply(TEACHER, spec, STUDENT, force=True)
    assert inspect(STUDENT).options == {**OPTIONS, "input": [4, 5, 6]}
    assert verify(TEACHER, STUDENT).preserved


def test_five_generations(folder):
    """Each is verified against the one before, and the last still knows what the first did."""
    module = Small()
    state = random_state(module)
    saved(folder / "0.safetensors", {name: each.numpy() for name, each in state.items()})
    generations = (
        [{"inputs": {"by": 1}}],
        [{"widen": "conv1", "factor": 1.5}, {"classes": {"by": 2}}],
        [{"deepen": "conv1"}, {"inputs": {"by": 2}}],
        [
            {"classes": {"to": 9}, "fill": "copy"},
            {"widen": "conv1*", "by": 2, "method": "netmorph"},
        ],
        [{"inputs": {"to": 8}}, {"classes": {"by": 1}}],
    )
    for number, steps in enumerate(generations):
        options = OPTIONS if number == 0 else {}
        files = f"{number}.safetensors", f"{number + 1}.safetensors"
        done = apply(files[0], {"teacher": {"options": options}, "steps": steps}, files[1])
        assert done.status == "written"
        assert verify(*files).preserved
    assert len(inspect("5.safetensors").lineage) == 5
    assert inspect("5.safetensors").options == {**OPTIONS, "input": [8, 5, 6]}
    assert "tells of another teacher" in verify("0.safetensors", "5.safetensors").reason

    last = {name: torch.from_numpy(each) for name, each in load_file("5.safetensors").items()}
    x = torch.randn(5, 8, 5, 6, generator=torch.Generator().manual_seed(2)).double()
    (before,) = outputs_of(module, state, x[:, :3])
    t = {name: each.double() for name, each in last.items()}
    hidden = x
    for name in ("conv1", "conv1_grown1"):
        hidden = nn.functional.conv2d(hidden, t[f"{name}.weight"], t[f"{name}.bias"], padding=1)
        hidden = hidden.relu()
    after = hidden.flatten(1) @ t["fc1.weight"].T + t["fc1.bias"]
    assert after.shape == (5, 10)
    assert deviation([before], [after[:, :4]]) <= 1e-12
