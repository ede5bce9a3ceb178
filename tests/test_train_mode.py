"""Both networks in training mode, beside torch's own modules in train mode."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
import torchvision
from student_oracles import grown, images, on_meta, random_state
from torch import nn
from torch.func import functional_call
from training_oracles import sides

from ckgrow.reports.documents import to_plain
from ckgrow.verdict.interface import Interface
from ckgrow.verdict.samples import Samples
from ckgrow.verdict.training import compare_in_training


def in_train_mode(module, tensors, x):
    """torch's forward: BatchNorm on the batch, dropout off."""
    module.train()
    for each in module.modules():
        if isinstance(each, nn.Dropout):
            each.eval()
    copies = {k: v.double() if v.is_floating_point() else v.clone() for k, v in tensors.items()}
    with torch.no_grad():
        return functional_call(module, copies, (torch.from_numpy(x).double(),)).numpy()


def compared(student, state, x):
    plan = student.plan
    interface = Interface(plan.draft.interface)
    before, after = sides(student, state)
    samples = interface.shared(Samples("the test's", {"input": x}), before.graph, after.graph, 0)
    return compare_in_training(before, after, samples, interface, plan.draft.renames)


def resnet():
    return on_meta(torchvision.models.resnet18, num_classes=5)


RESNET = random_state(resnet(), shrink=8)
PIXELS = {"input": [3, 32, 32]}
X = images(6, 3, 32, 32).numpy()


@pytest.mark.parametrize("method", ["net2wider", "r2wider", "netmorph", "symmetric", "random-pad"])
def test_widened(method):
    """Copies have their source's statistics; torchvision's forward says how far apart they are."""
    step = {"widen": "layer1.0.conv1", "factor": 2, "method": method}
    student = grown(RESNET, step, options=PIXELS)
    found = compared(student, RESNET, X)
    before, after = (in_train_mode(resnet(), each, X) for each in (RESNET, student.tensors))
    (output,) = found.outputs
    assert found.agrees == output.agrees == (method != "random-pad")
    assert found.causes == ()
    assert found.samples == 6
    scale = np.abs(before).max()
    apart = np.abs(before - after).max()
    assert output.max_abs == pytest.approx(apart, rel=1e-6, abs=1e-12 * scale)
    assert output.tolerance < 1e-10 * scale
    if method == "random-pad":
        assert "see the verdict" in found.reason
        assert output.max_rel == pytest.approx(apart / scale)


@pytest.mark.parametrize(
    ("name", "target", "agrees"),
    [("resnet18", "resnet34", True), ("vgg11_bn", "vgg13_bn", False), ("vgg11", "vgg13", True)],
)
def test_deepened(name, target, agrees):
    """A block whose gamma is zero agrees; the BatchNorm of an identity layer does not."""
    module = on_meta(getattr(torchvision.models, name), num_classes=5)
    deeper = on_meta(getattr(torchvision.models, target), num_classes=5)
    state = random_state(module, shrink=16)
    options = {"input": [3, 32, 32]}
    if name == "resnet18":
        student = grown(
            state, {"deepen": "layer1", "blocks": 1, "method": "zero-init"}, options=options
        )
        block = torchvision.models.resnet.BasicBlock
        deeper = on_meta(lambda: torchvision.models.ResNet(block, [3, 2, 2, 2], num_classes=5))
    else:
        layers = ("features.0", "features.4") if "bn" in name else ("features.0", "features.3")
        steps = [{"deepen": layer, "layers": 1} for layer in reversed(layers)]
        student = grown(state, *steps, options=options)
    found = compared(student, state, X)
    before, after = in_train_mode(module, state, X), in_train_mode(deeper, student.tensors, X)
    apart, scale = np.abs(before - after).max(), np.abs(before).max()
    assert found.agrees is agrees
    assert found.outputs[0].max_abs == pytest.approx(apart, rel=1e-6, abs=1e-11 * scale)
    norms = [node.name for node in student.plan.graph.nodes if node.op == "BatchNormalization"]
    if agrees:
        assert found.causes == ()
        assert ("there is no BatchNorm" in found.reason) == (not norms)
    else:
        assert found.causes == ("features.4", "features.11")
        assert "made for stored statistics" in found.reason


def test_only_what_parts_them_is_a_cause():
    """Of two new BatchNorms the zero block's is innocent."""
    steps = [
        {"deepen": "layer1.0.conv1", "layers": 1, "method": "net2deeper"},
        {"deepen": "layer2", "blocks": 1, "method": "zero-init"},
    ]
    found = compared(grown(RESNET, *steps, options=PIXELS), RESNET, X)
    assert len(found.causes) == 1
    assert found.causes[0].startswith("layer1.0.")


def test_new_channels_and_classes():
    student = grown(RESNET, {"inputs": {"by": 1}}, {"classes": {"by": 3}}, options=PIXELS)
    found = compared(student, RESNET, X)
    assert found.agrees, found


def test_a_broken_student_is_seen():
    student = grown(RESNET, {"widen": "layer1.0.conv1", "factor": 2}, options=PIXELS)
    student.tensors["layer1.0.bn1.weight"][3] *= 1.0001
    found = compared(student, RESNET, X)
    assert (found.agrees, found.causes) == (False, ())


def test_stored_statistics_do_not_matter():
    """Nor are they written: the student's own are nonsense, and its function the same."""
    student = grown(RESNET, {"widen": "layer1.0.conv1", "factor": 2}, options=PIXELS)
    student.tensors["layer1.0.bn1.running_mean"] += 5
    kept = {name: each.clone() for name, each in student.tensors.items()}
    assert compared(student, RESNET, X).agrees
    assert all(torch.equal(student.tensors[name], each) for name, each in kept.items())


def test_one_sample_and_other_inputs_are_not_compared():
    student = grown(RESNET, {"widen": "layer1.0.conv1", "factor": 2}, options=PIXELS)
    found = compared(student, RESNET, X[:1])
    assert (found.agrees, found.outputs) == (False, ())
    assert "give at least two" in found.reason
    before, after = sides(grown(RESNET, {"inputs": {"by": 1}}, options=PIXELS), RESNET)
    found = compare_in_training(before, after, Samples("", {"input": X}))
    assert (found.agrees, found.reason) == (False, "not compared: the inputs differ")


def test_it_goes_into_a_document():
    student = grown(RESNET, {"widen": "layer1.0.conv1", "factor": 2}, options=PIXELS)
    found = to_plain(compared(student, RESNET, X))
    assert json.loads(json.dumps(found))["outputs"][0]["name"] == "logits"
