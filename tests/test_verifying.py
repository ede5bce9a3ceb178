"""The verdict on real files: yes to sound students, no to all others, and no to a comparison of
nothing. Plain torch modules say what the networks compute.
"""

from __future__ import annotations

import random

import ml_dtypes
import numpy as np
import pytest
import torch
from commands import WIDEN, ckgrow, document, saved, tensors, written
from safetensors import safe_open
from safetensors.numpy import load_file, save_file
from shipped import SPECS, TEACHERS, training
from torch import nn
from torch.func import functional_call

from ckgrow.public import verify
from ckgrow.verdict.tolerance import FLOAT64_RELATIVE


@pytest.fixture
def folder(tmp_path, monkeypatch):
    saved(tmp_path / "teacher.safetensors", tensors())
    written(tmp_path / "spec.yaml", WIDEN)
    monkeypatch.chdir(tmp_path)
    assert grow("spec.yaml").exit_code == 0
    return tmp_path


def grow(spec, output="student.safetensors"):
    return ckgrow("apply", "teacher.safetensors", spec, "-o", output, "--force")


def verdict(*options, code=0):
    return document("verify", "teacher.safetensors", "student.safetensors", *options, code=code)


def retouched(change):
    """The student, changed and saved again with its metadata."""
    with safe_open("student.safetensors", "numpy") as file:
        metadata = file.metadata()
    values = load_file("student.safetensors")
    change(values)
    save_file(values, "student.safetensors", metadata)


# --- what is no comparison ------------------------------------------------------------------


def test_teacher_is_its_own_student(folder):
    made = document("verify", "teacher.safetensors", "teacher.safetensors")
    assert made["outputs"][0]["max_abs"] == 0


def test_swapped_files_are_equal_all_the_same(folder):
    assert ckgrow("verify", "student.safetensors", "teacher.safetensors").exit_code == 0


@pytest.mark.parametrize("quick", [(), ("--quick",)], ids=["", "quick"])
def test_constant_outputs_prove_nothing(folder, quick):
    """Two networks that ignore their inputs agree, and may differ in everything."""
    values = tensors()
    values["2.weight"][:] = 0
    saved(folder / "teacher.safetensors", values)
    saved(folder / "student.safetensors", {**values, **{"0.weight": values["0.weight"] + 1}})
    made = verdict(*quick, code=1)
    assert "does not vary over the inputs" in made["reason"]


def test_inputs_that_show_nothing(folder):
    for count in (1, 5):
        np.save("same.npy", np.ones((count, 4), np.float32))
        assert not verdict("--inputs", "same.npy", code=1)["preserved"]


@pytest.mark.parametrize(
    ("other", "said"),
    [
        (TEACHERS / "mlp.safetensors", "the inputs differ"),
        (TEACHERS / "resnet.safetensors", "the inputs differ"),
    ],
)
def test_another_network(folder, other, said):
    """Whichever of the two it is, and whatever the student's provenance says of its teacher."""
    for files in (("teacher.safetensors", other), (other, "student.safetensors")):
        made = document("verify", *files, code=1)
        assert said in made["reason"]


def test_another_number_of_classes(folder):
    values = tensors()
    values["2.weight"], values["2.bias"] = values["2.weight"][:2], values["2.bias"][:2]
    made = document(
        "verify", "teacher.safetensors", saved(folder / "two.safetensors", values), code=1
    )
    assert "its shape differs: [18, 3] in the teacher and [18, 2]" in made["reason"]


def test_student_that_computes_nan(folder):
    def spoil(values):
        values["0.bias"][0] = np.nan

    retouched(spoil)
    assert "the student computes NaN or infinity" in verdict(code=1)["reason"]


# --- the user's own inputs and outputs ------------------------------------------------------


def mlp(activation):
    return nn.Sequential(nn.Linear(4, 6), activation, nn.Linear(6, 3))


def torch_outputs(activation, inputs):
    state = {name: torch.from_numpy(values) for name, values in tensors().items()}
    with torch.no_grad():
        return functional_call(mlp(activation), state, (torch.from_numpy(inputs),)).numpy()


@pytest.fixture
def inputs():
    return np.random.default_rng(3).normal(size=(7, 4)).astype(np.float32)


def stored(kind, stem, array):
    name = f"{stem}.{kind}"
    if kind == "npy":
        np.save(name, array)
    elif kind == "npz":
        np.savez(name, anything=array)
    else:
        save_file({"anything": array}, name)
    return name


@pytest.mark.parametrize("kind", ["npy", "npz", "safetensors"])
def test_own_inputs_and_expected_outputs(folder, inputs, kind):
    given = stored(kind, "x", inputs)
    made = verdict("--inputs", given)
    assert made["inputs"] == f"7 samples from {given}"
    assert made["samples"] == 7
    right = stored(kind, "right", torch_outputs(nn.ReLU(), inputs))
    wrong = stored(kind, "wrong", torch_outputs(nn.Tanh(), inputs))
    made = verdict("--inputs", given, "--expect", right)
    assert made["expectations"][0]["met"] is True
    made = verdict("--inputs", given, "--expect", wrong, code=1)
    assert made["outputs"][0]["preserved"] is True  # the two agree, under the same wrong guess
    assert "an assumption is probably wrong: activation = relu (default)" in made["reason"]
    assert verdict("--inputs", given, "--expect", wrong, "--option", "activation=tanh")["preserved"]


def test_what_is_stated_holds_for_students_of_students(folder, inputs):
    """Both files carry a provenance that guesses relu; the statement overrules both."""
    done = ckgrow("apply", "student.safetensors", "spec.yaml", "-o", "second.safetensors")
    assert done.exit_code == 0
    np.save("x.npy", inputs)
    np.save("y.npy", torch_outputs(nn.Tanh(), inputs))
    files = ("student.safetensors", "second.safetensors")
    given = ("--inputs", "x.npy", "--expect", "y.npy")
    assert ckgrow("verify", *files).exit_code == 0
    assert ckgrow("verify", *files, *given).exit_code == 1
    assert ckgrow("verify", *files, *given, "--option", "activation=tanh").exit_code == 0


def test_tanh_taken_for_relu(folder, inputs):
    """Widening is right whatever the activation; deepening waits until it is stated."""
    np.save("x.npy", inputs)
    np.save("y.npy", torch_outputs(nn.Tanh(), inputs))
    deepen = 'steps:\n  - deepen: "0"\n    layers: 1\n'
    given = ("--inputs", "x.npy", "--expect", "y.npy")
    assert verdict(*given, "--option", "activation=tanh")["preserved"]

    refused = grow(written(folder / "guess.yaml", deepen))
    assert refused.exit_code == 2
    assert "the activation is relu, which is a guess; state what is true" in refused.stderr

    stated = written(folder / "wrong.yaml", "teacher: {options: {activation: relu}}\n" + deepen)
    assert grow(stated).exit_code == 0  # both files agree under what was stated
    assert verdict()["preserved"]
    assert "activation = relu (spec)" in verdict(*given, code=1)["reason"]

    true = written(folder / "true.yaml", "teacher: {options: {activation: tanh}}\n" + deepen)
    assert "Tanh is not idempotent" in grow(true).stderr


def test_expected_outputs_of_other_samples(folder, inputs):
    np.save("x.npy", inputs)
    np.save("y.npy", torch_outputs(nn.ReLU(), inputs)[:5])
    done = ckgrow(
        *("verify", "teacher.safetensors", "student.safetensors"),
        *("--inputs", "x.npy", "--expect", "y.npy"),
    )
    assert done.exit_code == 3
    assert "must hold the same samples" in done.stderr


def test_stated_tolerance(folder):
    def nudge(values):
        values["2.bias"] += np.float32(1e-3)

    retouched(nudge)
    assert not verdict(code=1)["preserved"]
    assert verdict("--atol", "1e-2")["tolerance"].startswith("stated: ")
    assert not verdict("--atol", "1e-4", code=1)["preserved"]


def test_other_samples_by_seed(folder):
    first, second = verdict(), verdict("--seed", "1", "--samples", "5")
    assert (first["samples"], second["samples"]) == (18, 7)
    assert first["outputs"] != second["outputs"]


# --- students whose metadata is gone --------------------------------------------------------


def without_metadata(name="student.safetensors"):
    save_file(load_file(name), name)


def test_widened_student_is_known_by_its_shapes(folder):
    without_metadata()
    assert verdict()["preserved"]


def test_grown_layers_need_the_provenance(folder):
    """Their names stand nowhere in the architecture; the message says what they are."""
    teacher = TEACHERS / "resnet.safetensors"
    spec = written(folder / "deep.yaml", "steps:\n  - deepen: layer1.0.conv1\n    layers: 1\n")
    assert ckgrow("apply", teacher, spec, "-o", "deep.safetensors").exit_code == 0
    assert ckgrow("verify", teacher, "deep.safetensors").exit_code == 0
    without_metadata("deep.safetensors")
    done = ckgrow("verify", teacher, "deep.safetensors")
    assert done.exit_code == 3
    assert "layer1.0.conv1_grown1.weight" in done.stderr
    assert "the entry 'ckgrow' in the file's metadata" in done.stderr


def test_stated_options_stand_in_for_lost_metadata(folder):
    teacher = TEACHERS / "convnet.safetensors"
    done = ckgrow("apply", teacher, SPECS / "deepen_convnet.yaml", "-o", "deep.safetensors")
    assert done.exit_code == 0
    assert ckgrow("verify", teacher, "deep.safetensors").exit_code == 0
    without_metadata("deep.safetensors")
    done = ckgrow("verify", teacher, "deep.safetensors")
    assert done.exit_code == 3
    assert "the inputs differ" in done.stderr
    assert "names such as conv1_grown1.bias" in done.stderr
    options = ("--option", "input=[1,8,8]", "--option", 'pool={"conv1":"max 2","conv2":"max 2"}')
    assert ckgrow("verify", teacher, "deep.safetensors", *options).exit_code == 0


# --- faults of one channel ------------------------------------------------------------------

NETWORKS = {
    "resnet": (training().Resnet, "widen_resnet"),
    "inception": (training().Inception, "widen_inception"),
    "mlp": (training().Mlp, "widen_mlp"),
    "convnet": (training().Convnet, None),
}
WIDER_CONVNET = {
    "teacher": {"options": {"input": [1, 8, 8], "pool": {"conv1": "max 2", "conv2": "max 2"}}},
    "steps": [{"widen": "*", "factor": 1.5}],
}
WIDER_RESNET = {
    "teacher": {"options": {"input": [1, 8, 8]}},
    "steps": [{"widen": "*", "factor": 1.5, "split": "select"}],
}
SHAPE = {"mlp": (64,)}


def forward(module, values, inputs):
    state = {name: torch.from_numpy(each.astype(np.float64)) for name, each in values.items()}
    with torch.no_grad():
        return functional_call(module.double().eval(), state, (inputs,)).numpy()


@pytest.mark.parametrize("name", NETWORKS)
def test_one_channel_off(tmp_path, amount, name):
    """Sound students pass; one output channel times 1.1 fails whenever torch sees it change."""
    from ckgrow.public import apply

    teacher = TEACHERS / f"{name}.safetensors"
    make, spec = NETWORKS[name]
    grown = {"convnet": WIDER_CONVNET, "resnet": WIDER_RESNET}.get(name)
    inputs = torch.from_numpy(
        np.random.default_rng(5).normal(size=(16, *SHAPE.get(name, (1, 8, 8))))
    )
    draw = random.Random(name)
    reference = forward(make(), load_file(teacher), inputs)
    visible = 0
    for number in range(amount(2, 13)):
        student = tmp_path / f"{number}.safetensors"
        if grown is not None:
            apply(teacher, {**grown, "seed": number}, student)
        else:
            apply(teacher, SPECS / f"{spec}.yaml", student)
        values = load_file(student)
        exact = forward(make(), values, inputs)
        scale = np.abs(reference).max()
        assert np.abs(exact - reference).max() <= 1e-12 * scale
        assert verify(teacher, student).preserved

        layer = draw.choice([each for each in values if values[each].ndim > 1])
        channel = draw.randrange(len(values[layer]))
        values[layer][channel] *= 1.1
        bias = layer.replace("weight", "bias")
        if bias in values:
            values[bias][channel] *= 1.1
        with safe_open(student, "numpy") as file:
            metadata = file.metadata()
        save_file(values, student, metadata)
        change = np.abs(forward(make(), values, inputs) - reference).max()
        if change > 10 * FLOAT64_RELATIVE * scale:
            visible += 1
            assert not verify(teacher, student).preserved, (layer, channel, change)
    assert visible


def test_fault_far_below_float32(folder):
    """1e-9 of one weight: invisible in float32 arithmetic, and no rounding."""
    state = {name: each.astype(np.float64) for name, each in tensors().items()}
    saved(folder / "teacher.safetensors", state)
    grow("spec.yaml")

    def nudge(values):
        values["2.weight"][0, 0] *= 1 + 1e-9

    retouched(nudge)
    assert "in float64 the largest difference" in verdict(code=1)["reason"]
    assert verdict("--quick")["preserved"]  # and says what it does not see
    assert "are not seen" in verdict("--quick")["tolerance"]


def test_fault_in_bfloat16(folder):
    state = {name: each.astype(ml_dtypes.bfloat16) for name, each in tensors().items()}
    saved(folder / "teacher.safetensors", state)
    grow("spec.yaml")
    assert verdict()["preserved"]

    def nudge(values):
        values["2.weight"].view(np.uint16)[0, 0] ^= 1

    retouched(nudge)
    assert not verdict(code=1)["preserved"]
