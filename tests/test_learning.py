"""Whether a student can learn: the verdict on its first steps, beside torch's own training."""

from __future__ import annotations

import dataclasses
import json
from itertools import pairwise

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
from ckgrow.coupling import couple
from ckgrow.errors import CheckpointError, SpecError
from ckgrow.graph import Graph, Node
from ckgrow.groups import group_channels
from ckgrow.learning.cures import cure
from ckgrow.learning.diagnosis import diagnose
from ckgrow.learning.learning import learn
from ckgrow.learning.report import Losses, TensorLearning
from ckgrow.learning.units import units_of
from ckgrow.memory import MemoryReader
from ckgrow.reports.documents import to_plain
from ckgrow.verdict.samples import Samples


def mlp(*widths, activation=nn.ReLU):
    layers = [nn.Linear(a, b) for a, b in pairwise(widths)]
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
    return x, labels, Samples(f"{count} of the test", {"input": x})


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
    assert [each.kind for each in found.findings] == [verdict] * (verdict != "learns")
    assert any(cure in each.cure for each in found.findings) == bool(cure)
    if verdict == "learns":
        assert (found.share, group.still, group.identical) == (1.0, 0, 0)
    elif verdict == "dead":
        assert (found.share, group.still, group.new) == (0.0, 8, 8)
    elif verdict == "locked":
        assert group.identical == 8


@pytest.mark.parametrize("step", [{"split": "uniform"}, {"method": "r2wider"}, {"zero": "in"}])
def test_the_rank_is_that_of_torch(step, tmp_path):
    """Torch's own module and its own singular values, on the same labels."""
    if "zero" in step:
        step = {"method": "netmorph", **step}
    student = toy(**step)
    x, labels, inputs = labelled(tmp_path, (10,), count=64, classes=6)
    np.save(tmp_path / "labels.npy", labels)
    found = learned(student, STATE, inputs=inputs, labels=tmp_path / "labels.npy")
    losses, gradients = trained(TOY, student.tensors, x, labels, found.rate)
    assert found.groups[0].rank == unit_rank(gradients[0], "0", "2")
    assert found.losses.student == pytest.approx(losses, rel=1e-12)


def test_units_of_a_grouped_convolution():
    """A run of channels is read by the rows of its own group alone."""
    x, kernel = np.zeros((4, 3)), np.zeros((6, 2, 1, 1))
    graph = Graph(
        {"x": ("N", 3, 2, 2)},
        ("grouped",),
        (
            Node("Conv", "first", ("x", "first.weight"), ("first",)),
            Node("Conv", "grouped", ("first", "grouped.weight"), ("grouped",), {"group": 2}),
        ),
    )
    header = MemoryReader({"first.weight": x[:, :, None, None], "grouped.weight": kernel}).header
    grouping = group_channels(graph, couple(graph, header))
    units = units_of(graph, grouping, grouping.groups["first"])
    read = torch.zeros((6, 2, 1, 1), dtype=torch.bool)
    read[4, 0] = True  # what the second group reads first: the third channel
    assert units.any({"grouped.weight": read}).tolist() == [False, False, True, False]


def test_groups_of_a_layer_that_makes_several():
    """A zero-padded shortcut leaves a stage with channels of two kinds, each with its own width."""
    subject, state = teacher("resnet option A")
    student = grown(state, {"widen": "layer2.0.conv2", "factor": 2}, options=subject.options)
    before, after = sides(student, state)
    widths = {
        name: group.width
        for name, group in group_channels(
            before.graph, couple(before.graph, before.header)
        ).groups.items()
    }
    found = {each.name: each.teacher_width for each in learn(before, after, None).groups}
    assert found
    assert found == {name: widths[name] for name in found}


def test_a_unit_moves_though_an_input_is_silent(tmp_path):
    _, _, inputs = labelled(tmp_path, (10,), count=16)
    inputs.arrays["input"][:, 0] = 0
    found = learned(toy(method="r2wider"), STATE, inputs=inputs)
    (group,) = found.groups
    assert (found.verdict, group.still, group.new) == ("learns", 0, 8)
    first = next(each for each in found.tensors if each.name == "0.weight")
    assert first.moved == first.new * 9 // 10


def test_a_bias_before_a_batch_norm_is_not_dead():
    """Training mode takes it out again, so its gradient is zero up to rounding."""
    nodes = (
        Node("Gemm", "0", ("x", "0.weight", "0.bias"), ("0",), {"transB": 1}),
        Node("BatchNormalization", "1", ("0", "1.w", "1.b", "1.m", "1.v"), ("1",)),
    )
    losses = Losses((1.0, 0.9), (1.0, 0.9), 1.0, 1.0)
    for tensor, verdict in (("0.bias", "learns"), ("0.weight", "dead"), ("1.b", "dead")):
        graph, still = Graph({"x": ("N", 3)}, ("1",), nodes), [TensorLearning(tensor, 2, 0)]
        assert diagnose(graph, losses, {}, still, (), {}, None).verdict == verdict


# --- what training does ----------------------------------------------------------------------

RESNET = random_state(resnet(), shrink=8)
PIXELS = {"input": [3, 32, 32]}


@pytest.mark.parametrize("who", ["teacher", "student"])
def test_training_is_that_of_torch(who, tmp_path):
    """torchvision's module in train mode, BatchNorm on batch statistics, by torch's optimizer."""
    student = grown(RESNET, {"widen": "layer1.0.conv1", "factor": 2}, options=PIXELS)
    x, labels, inputs = labelled(tmp_path, (3, 32, 32), count=16)
    found = learned(student, RESNET, inputs=inputs, labels=tmp_path / "labels.npy")
    tensors = RESNET if who == "teacher" else student.tensors
    losses, gradients = trained(resnet().train(), tensors, x, labels, found.rate)
    assert getattr(found.losses, who) == pytest.approx(losses, rel=1e-9)
    norm = sum(float(each.square().sum()) for each in gradients[0].values()) ** 0.5
    assert getattr(found.losses, f"{who}_gradient") == pytest.approx(norm, rel=1e-9)
    assert list(found.losses.teacher) == sorted(found.losses.teacher, reverse=True)


@pytest.mark.parametrize(
    ("method", "verdict"),
    [("zero-init", "learns"), ("r2deeper", "exploding"), ("random-pad", "learns")],
)
def test_new_blocks(method, verdict):
    """r2deeper's exactly-zero convolution stands before a BatchNorm, which magnifies gradients."""
    student = grown(RESNET, {"deepen": "layer1", "blocks": 1, "method": method}, options=PIXELS)
    found = learned(student, RESNET)
    assert found.verdict == verdict, found.reason
    told = "multiplies gradients" in " ".join(student.plan.steps[0].warnings)
    assert told == (verdict == "exploding")
    assert found.share == 1.0
    assert {each.name for each in found.tensors} == {
        f"layer1.2.{name}"
        for name in (
            *("conv1.weight", "bn1.weight", "bn1.bias"),
            *("conv2.weight", "bn2.weight", "bn2.bias"),
        )
    }
    if verdict == "exploding":
        assert max(found.losses.student) > 2 * found.losses.student[0]
        assert "layer1.2.conv2" in found.findings[0].layers
        assert found.findings[0].cure == "method: zero-init"


def test_in_the_first_step_a_zero_block_moves_its_gamma_alone():
    """Three steps are needed, and enough."""
    step = {"deepen": "layer1", "blocks": 1, "method": "zero-init"}
    student = grown(RESNET, step, options=PIXELS)
    x, labels = images(8, 3, 32, 32).numpy(), np.arange(8) % 5
    deeper = on_meta(lambda: torchvision.models.ResNet(BASIC, [3, 2, 2, 2], num_classes=5)).train()
    _, gradients = trained(deeper, student.tensors, x, labels, 1e-3)
    moved = {name for name, each in gradients[0].items() if bool((each != 0).any())}
    new = {each.name: each for each in learned(student, RESNET).tensors}
    assert moved & set(new) == {"layer1.2.bn2.weight", "layer1.2.bn2.bias"}
    assert all(each.moved == each.new for each in new.values())


BASIC = torchvision.models.resnet.BasicBlock


def test_a_block_of_zeros_is_dead():
    step = {"deepen": "layer1", "blocks": 1, "method": "zero-init", "fill": "zeros"}
    found = learned(grown(RESNET, step, options=PIXELS), RESNET)
    assert found.verdict == "dead"
    assert "fill: match-std" in found.reason
    assert any("layer1.2.conv1" in each.layers for each in found.findings)


@pytest.mark.parametrize(
    ("layer", "verdict"), [("features.3", "locked"), ("classifier.1", "learns")]
)
def test_dropout_tells_copies_apart(layer, verdict):
    """AlexNet has it behind its first dense layer, and plan warns of the other alone."""
    state = random_state(on_meta(torchvision.models.alexnet, num_classes=5), shrink=16)
    step = {"widen": layer, "factor": 2, "split": "uniform"}
    student = grown(state, step, options={"input": [3, 64, 64]})
    assert learned(student, state).verdict == verdict
    assert bool(student.plan.steps[0].warnings) == (verdict == "locked")


def test_a_student_that_is_broken_by_hand_is_dead():
    """Zero on both sides, whatever the record says of how it was grown."""
    student = toy(method="r2wider")
    student.tensors["0.weight"][8:] = 0
    student.tensors["0.bias"][8:] = 0
    student.tensors["2.weight"][:, 8:] = 0
    found = learned(student, STATE)
    assert (found.verdict, found.groups[0].still) == ("dead", 8)
    assert found.findings[0].layers == ("0",)


def test_several_outputs():
    """GoogLeNet's auxiliary heads are trained with it, and need not be widened."""
    module = on_meta(torchvision.models.googlenet, init_weights=False, num_classes=16)
    state = random_state(module, shrink=16)
    step = {"widen": "inception4a.branch2.0.conv", "factor": 2}
    found = learned(grown(state, step, options={"input": [3, 64, 64]}), state)
    assert found.verdict == "learns", found.reason
    assert found.losses.student[0] == pytest.approx(3, rel=0.2)  # one noise for each output


def test_new_channels_and_classes():
    student = grown(
        STATE, {"inputs": {"by": 2}}, {"classes": {"by": 3}}, options={"activation": "relu"}
    )
    found = learned(student, STATE)
    assert (found.verdict, found.share) == ("learns", 1.0)
    assert {each.name: each.new for each in found.tensors} == {
        "0.weight": 2 * 8,
        "2.weight": 3 * 8,
        "2.bias": 3,
    }


def test_without_a_record_every_weight_is_new():
    student = toy(split="uniform")
    before, after = sides(student, STATE)
    found = learn(before, after, None)
    assert found.new == sum(each.numel() for each in student.tensors.values())
    assert found.groups[0].teacher_width == 8
    assert found.verdict == "locked"
    assert "split: unequal (net2wider)" in found.findings[0].cure


def test_nothing_new():
    before, _ = sides(toy(), STATE)
    found = learn(before, before, None)
    assert (found.verdict, found.groups, found.findings) == ("learns", (), ())


def test_neither_side_is_changed():
    student = toy(method="r2wider")
    kept = [
        {name: each.clone() for name, each in each.items()} for each in (STATE, student.tensors)
    ]
    learned(student, STATE)
    for now, before in zip((STATE, student.tensors), kept, strict=True):
        assert all(torch.equal(now[name], each) for name, each in before.items())


def test_the_same_seed_says_the_same():
    student = toy(method="r2wider")
    assert learned(student, STATE, seed=3) == learned(student, STATE, seed=3)
    assert learned(student, STATE, seed=3).losses != learned(student, STATE, seed=4).losses


def test_it_goes_into_a_document():
    found = learned(toy(), STATE)
    assert json.loads(json.dumps(to_plain(found)))["verdict"] == "learns"
    assert dataclasses.is_dataclass(found)


# --- labels ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        (np.arange(8) % 6, "cross-entropy against the classes in labels.npy"),
        (np.zeros((8, 6), np.float32), "mean square error against labels.npy"),
    ],
)
def test_labels(tmp_path, labels, said):
    _, _, inputs = labelled(tmp_path, (10,), count=8)
    np.save(tmp_path / "labels.npy", labels)
    found = learned(toy(), STATE, inputs=inputs, labels=tmp_path / "labels.npy")
    assert (found.targets, found.batch, found.inputs) == (said, 8, "8 of the test")


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        (np.arange(7) % 6, "7 for 8 samples"),
        (np.full(8, 6), "there is a class 6; the student has 0 to 5"),
        (np.full(8, -1), "there is a class -1"),
        (np.eye(8, 6, dtype=int), r"of one-hot rows take array.argmax\(1\)"),
        (np.zeros((8, 5)), r"have shape \[8, 5\]; expected \[8, 6\] for 8 samples"),
        (np.full((8, 6), np.nan), r"hold NaN or infinity \(48 of 48 values\)"),
        (np.zeros(8, bool), "are bool; expected whole numbers"),
        ({"other": np.zeros((8, 6)), "more": np.zeros(8)}, "the array other is no output"),
    ],
)
def test_wrong_labels_are_errors(tmp_path, labels, said):
    _, _, inputs = labelled(tmp_path, (10,), count=8)
    path = tmp_path / "labels.npy"
    if isinstance(labels, dict):
        path = tmp_path / "labels.npz"
        np.savez(path, **labels)
    else:
        np.save(path, labels)
    with pytest.raises(CheckpointError, match=said):
        learned(toy(), STATE, inputs=inputs, labels=path)


def test_labels_of_new_classes(tmp_path):
    """The teacher is trained on those that it has."""
    student = grown(STATE, {"classes": {"by": 3}}, options={"activation": "relu"})
    _, _, inputs = labelled(tmp_path, (10,), count=16)
    np.save(tmp_path / "labels.npy", np.arange(16) % 9)
    found = learned(student, STATE, inputs=inputs, labels=tmp_path / "labels.npy")
    assert found.verdict == "learns"
    np.save(tmp_path / "labels.npy", np.arange(16) % 3 + 6)
    with pytest.raises(CheckpointError, match="none is below 6"):
        learned(student, STATE, inputs=inputs, labels=tmp_path / "labels.npy")


def test_one_sample_is_not_enough(tmp_path):
    _, _, inputs = labelled(tmp_path, (10,), count=1)
    with pytest.raises(CheckpointError, match="give at least two"):
        learned(toy(), STATE, inputs=inputs)


@pytest.mark.parametrize("value", [np.nan, 0.0])
def test_a_teacher_that_cannot_learn_itself(value):
    state = {name: torch.full_like(each, value) for name, each in STATE.items()}
    student = grown(STATE, {"widen": "0", "to": 16}, options={"activation": "relu"})
    before, after = sides(student, {**state, "2.bias": STATE["2.bias"]})
    if value == 0.0:
        state["2.bias"] = STATE["2.bias"]
        assert learn(before, after, None).losses.teacher_gradient > 0  # its last bias learns
        return
    with pytest.raises(CheckpointError, match="the teacher computes NaN"):
        learn(before, after, None)


@pytest.mark.parametrize(
    ("kind", "layer", "cured"),
    [
        ("locked", "layer1.0.conv1", "split: unequal, or noise: {kind: zero-sum}"),
        ("locked", "layer2.0.conv1", "noise at its default (zero-sum)"),
        ("exploding", "layer3.2.conv2", "method: zero-init"),
        ("exploding", "layer1.0.conv1_grown1.branch.3", "method: zero-init"),
        ("dead", "fc", "zero: out"),
        ("dead", "layer4.2.conv1", "fill: match-std"),
    ],
)
def test_the_cure_is_of_the_step_that_made_the_layer(kind, layer, cured):
    steps = (
        {"widen": ["layer1.*.conv1"], "factor": 2, "method": "net2wider", "split": "uniform"},
        {"widen": "layer2.*", "factor": 2, "method": "symmetric"},
        {"deepen": ["layer3", "layer1.0.conv1"], "blocks": 1, "method": "r2deeper"},
        {"deepen": "layer4", "blocks": 1, "method": "zero-init", "fill": "zeros"},
        {"widen": "fc", "by": 2, "method": "netmorph", "zero": "in"},
    )
    assert cure(kind, (layer,), steps) == cured


# --- what is shipped, and what plan says -------------------------------------------------------


@pytest.mark.parametrize("spec", sorted(path.stem for path in SPECS.glob("*.yaml")))
def test_every_shipped_spec_makes_a_student_that_learns(spec, tmp_path):
    path, source = SPECS / f"{spec}.yaml", TEACHERS / f"{spec.split('_')[1]}.safetensors"
    ckgrow.apply(source, path, tmp_path / "student.safetensors", check=False)
    document = ckgrow.verify(source, tmp_path / "student.safetensors", quick=True, learn=True)
    assert document.learning is not None
    assert document.learning.verdict == "learns", document.learning.reason


SAID = {
    "dead": ("are dead", "cannot learn"),
    "exploding": ("explode", "multiplies gradients"),
    "locked": ("locked together", "stay identical"),
}
HEAVY = ("googlenet", "inception_v3")
STEEPER = {"widen random-pad | convnet | all"}
"""Baselines that change the function, and make it so steep that the teacher's rate is too large."""


def matrix():
    for number, cell in enumerate(cells()):
        chosen = number % 61 == 0 and cell.network not in HEAVY
        marks = () if chosen else (pytest.mark.full,)
        yield pytest.param(cell, id=cell.name, marks=marks)


@pytest.mark.parametrize("cell", tuple(matrix()))
def test_plan_says_the_same_of_the_spec_alone(cell):
    subject, state = teacher(cell.network)
    size = {"input": list(subject.size)} if len(subject.size) > 1 else {}
    try:
        student = grown(state, cell.step, options={**size, **subject.options})
    except SpecError:
        return
    told = " ".join(text for step in student.plan.steps for text in step.warnings)
    warned = {kind for kind, words in SAID.items() if any(word in told for word in words)}
    found = learned(student, state)
    if cell.name in STEEPER:
        warned = {"exploding"}
    assert {each.kind for each in found.findings} == warned, found.findings
