"""New residual blocks and new layers: r2deeper, zero-init and random-pad, in torch's own forward.

Behind single layers the oracle is torchvision's module, or a chain written here, with a block
``x + branch(x)`` put where the plan says, by hand.
"""

from __future__ import annotations

import copy
from collections import OrderedDict
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
import torchvision
from architecture_oracles import randomized
from student_oracles import (
    Student,
    arrays_of,
    assert_same_function,
    deviation,
    grown,
    grown_graph,
    images,
    on_meta,
    outputs_of,
    random_arrays,
    random_state,
    run,
)
from test_architecture_resnet import CifarResNet, PaperResNet
from test_coupling import IMAGE, case, ints, layer, node
from torch import nn
from torch.func import functional_call
from torchvision.models.resnet import BasicBlock, Bottleneck, ResNet

import ckgrow
from ckgrow.errors import CheckpointError, SpecError
from ckgrow.loading import Wish, load
from ckgrow.methods.method import weakest
from ckgrow.methods.net2deeper import Net2Deeper
from ckgrow.planning.deepening import deepen_layer
from ckgrow.random import Draw
from ckgrow.spec import DeepenStep

EXACT = 1e-12
FILLS = ["match-std", "he", "xavier", "copy", "zeros"]


class Residual(nn.Module):
    """y = x + branch(x)."""

    def __init__(self, *branch):
        super().__init__()
        self.branch = nn.Sequential(*branch)

    def forward(self, x):
        return x + self.branch(x)


def resnet(depths, block=BasicBlock, **options):
    return on_meta(ResNet, block, [*depths, 1, 1], num_classes=7, **options)


def mlp(*widths, activation=nn.ReLU):
    layers = [nn.Linear(before, after) for before, after in pairwise(widths)]
    chain = [each for layer in layers for each in (layer, activation())]
    return on_meta(lambda: nn.Sequential(*chain[:-1]))


def quiet(student: Student, state) -> dict[str, torch.Tensor]:
    """The student's tensors with what changes the function replaced."""
    recipes = {name: each.quiet() for name, each in student.plan.draft.recipes.items()}
    return {name: torch.from_numpy(each) for name, each in arrays_of(recipes, state).items()}


# Whole blocks, in torchvision's own module


KINDS = {
    "basic": (BasicBlock, {}),
    "bottleneck": (Bottleneck, {}),
    "wide": (Bottleneck, {"width_per_group": 128}),
    "resnext": (Bottleneck, {"groups": 32, "width_per_group": 4}),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("fill", FILLS)
def test_blocks_that_cancel(kind, fill, amount):
    block, options = KINDS[kind]
    module, x = resnet((2, 1), block, **options), images(2, 3, 32, 32)
    state = random_state(module, shrink=1 if kind == "resnext" else amount(4, 1))
    steps = (
        {"deepen": "layer1", "blocks": 2, "after": 1, "method": "r2deeper", "fill": fill},
        {"deepen": "layer2", "method": "r2deeper", "fill": fill, "scale": 2.0},
    )
    student = grown(state, *steps, options={"input": [3, 32, 32]})
    assert student.plan.preserves == "exact"
    deeper = resnet((4, 2), block, **options)
    expected = outputs_of(module, state, x)
    assert deviation(expected, outputs_of(deeper, student.tensors, x)) <= EXACT
    last = student.tensors[f"layer2.1.conv{3 if block is Bottleneck else 2}.weight"]
    assert last.count_nonzero() == last.numel()
    assert_cancelling(last, 32 if kind == "resnext" else 1)
    model = state[f"layer2.0.conv{3 if block is Bottleneck else 2}.weight"]
    assert float(last.std()) == pytest.approx(2 * float(model.std()), rel=0.05)


def assert_cancelling(weight, groups):
    """[V, -V] along the inputs, in each of ``groups`` parts."""
    parts = weight.unflatten(1, (groups, 2, -1))
    assert torch.equal(parts[:, :, 0], -parts[:, :, 1])


@pytest.mark.parametrize("option", ["A", "B"])
def test_blocks_that_cancel_in_a_network_for_cifar(option):
    module, x = on_meta(CifarResNet, (8, 16, 32), (1, 2, 1), option=option), images(2, 3, 16, 16)
    state = random_state(module)
    step = {"deepen": "layer*", "blocks": 2, "method": "r2deeper"}
    student = grown(state, step, {"widen": "*", "factor": 2}, options={"input": [3, 16, 16]})
    deeper = on_meta(CifarResNet, (16, 32, 64), (3, 4, 3), option=option)
    expected = outputs_of(module, state, x)
    assert deviation(expected, outputs_of(deeper, student.tensors, x)) <= EXACT
    deeper.load_state_dict(student.tensors, strict=True, assign=True)


def test_the_paper_s_resnet_10_becomes_its_resnet_18_and_half_as_wide_again():
    """Table 4: r2deeper makes the deeper network, r2wider the wider one."""
    small, large = (on_meta(PaperResNet, (n, n), 1) for n in (2, 4))
    wide = on_meta(PaperResNet, (4, 4), 1.5)
    state, x = random_state(small), images(4, 3, 32, 32)
    expected = outputs_of(small, state, x)
    deepen = {"deepen": "layer*", "blocks": 2, "method": "r2deeper"}
    widen = {"widen": "*", "factor": 1.5, "method": "r2wider"}
    stated = {"options": {"input": [3, 32, 32]}}
    for steps, module in (((deepen,), large), ((deepen, widen), wide), ((widen, deepen), wide)):
        student = grown(state, *steps, **stated)
        assert student.plan.preserves == "exact"
        assert deviation(expected, outputs_of(module, student.tensors, x)) <= EXACT
        module.load_state_dict(student.tensors, strict=True, assign=True)


@pytest.mark.parametrize("method", ["r2deeper", "zero-init"])
def test_blocks_copy_the_block_before(method):
    module = resnet((3, 1), Bottleneck)
    state = random_state(module, shrink=2)
    step = {"deepen": "layer1", "blocks": 1, "after": 2, "method": method, "fill": "copy"}
    tensors = grown(state, step).tensors
    own = {key[9:]: each for key, each in tensors.items() if key.startswith("layer1.2.")}
    before = {key[9:]: each for key, each in state.items() if key.startswith("layer1.1.")}
    assert own.keys() == before.keys()
    other = {key for key in own if not torch.equal(own[key], before[key])}
    if method == "zero-init":
        assert other == {"bn3.weight", "bn3.bias"}
    else:
        in_pairs = {"conv2.weight", *(f"bn2.{each}" for each in ("weight", "bias"))}
        in_pairs |= {"bn2.running_mean", "bn2.running_var"}
        assert other == {"conv3.weight", "bn3.bias", "bn3.running_mean", *in_pairs}
        for key in in_pairs:
            half = len(own[key]) // 2
            assert torch.equal(own[key], before[key][:half].repeat(2, *[1] * (own[key].dim() - 1)))


def test_a_zero_convolution_before_batch_norm_is_warned_of():
    state = random_state(resnet((2, 1)), shrink=4)
    (step,) = grown(state, {"deepen": "layer1", "method": "r2deeper"}).plan.steps
    (warning,) = step.warnings
    assert "layer1.2.bn2, which multiplies gradients by 316 in train mode" in warning
    (step,) = grown(state, {"deepen": "layer1", "method": "zero-init"}).plan.steps
    assert step.warnings == ()


@pytest.mark.parametrize("method", ["r2deeper", "zero-init"])
def test_dead_blocks_are_warned_of(method):
    state = random_state(resnet((2, 1)), shrink=4)
    for name in ("layer1", "layer1.0.conv1"):
        (step,) = grown(state, {"deepen": name, "method": method, "fill": "zeros"}).plan.steps
        assert any("with fill: zeros" in each and "cannot learn" in each for each in step.warnings)


# Behind single layers


ACTIVATIONS = {
    "relu": nn.ReLU,
    "relu6": nn.ReLU6,
    "leaky_relu 0.2": lambda: nn.LeakyReLU(0.2),
    "tanh": nn.Tanh,
    "sigmoid": nn.Sigmoid,
    "gelu": nn.GELU,
    "hardswish": nn.Hardswish,
    "silu": nn.SiLU,
    "softplus": nn.Softplus,
}


@pytest.mark.parametrize("method", ["r2deeper", "zero-init"])
@pytest.mark.parametrize("name", ACTIVATIONS)
def test_a_block_in_a_chain_of_any_activation(name, method):
    activation = ACTIVATIONS[name]
    module, x = mlp(5, 7, 6, 3, activation=activation), images(4, 5)
    state = random_state(module)
    steps = (
        {"deepen": "0", "layers": 3, "method": method},
        {"deepen": "3", "method": method, "fill": "xavier"},
        {"deepen": "6", "method": method},
    )
    student = grown(state, *steps, options={"activation": name})
    assert student.plan.preserves == "exact"
    assert [step.added for step in student.plan.steps] == [("2",), ("5",), ("7",)]
    even = 8 if method == "r2deeper" else 7

    def dense(*widths):
        layers = [each for pair in pairwise(widths) for each in (nn.Linear(*pair), activation())]
        return Residual(*layers[:-1])

    last = 4 if method == "r2deeper" else 3
    modules = list(module)
    deeper = nn.Sequential(
        *modules[:2],
        dense(7, even, even, 7),
        *modules[2:4],
        dense(6, 6, 6),
        modules[4],
        Residual(nn.Linear(3, last), nn.Linear(last, 3)),
    )
    deeper = deeper.to("meta").eval()
    expected = outputs_of(module, state, x)
    assert deviation(expected, outputs_of(deeper, student.tensors, x)) <= EXACT


def test_a_block_needs_no_statement_of_the_activation():
    state = random_state(mlp(5, 7, 3))
    for method in ("r2deeper", "zero-init"):
        assert grown(state, {"deepen": "0", "method": method}).plan.preserves == "exact"
    with pytest.raises(SpecError, match="exact only if the activation is relu, which is a guess"):
        grown(state, {"deepen": "0", "method": "random-pad"})


@pytest.mark.parametrize("method", ["r2deeper", "zero-init"])
@pytest.mark.parametrize("kind", ["basic", "bottleneck", "resnext"])
def test_a_block_inside_a_residual_branch(kind, method):
    """Behind conv1 and conv2 (the group convolution of bottlenecks), and the stem."""
    block, options = KINDS[kind]
    module, x = resnet((1, 1), block, **options), images(2, 3, 32, 32)
    state = random_state(module, shrink=1 if kind == "resnext" else 4)
    names = ["conv1", "layer2.0.conv1", "layer2.0.conv2", "layer2.0.downsample.0"]
    student = grown(state, *({"deepen": name, "method": method} for name in names))
    expected = outputs_of(module, state, x)
    hooked = with_blocks(module, student.tensors, names, groups=options.get("groups", 1))
    assert deviation(expected, outputs_of(hooked, student.tensors, x)) <= EXACT
    if kind == "resnext":
        weight = student.tensors["layer2.0.conv2_grown1.branch.3.weight"]
        assert weight.shape[1] * 32 == weight.shape[0]


def with_blocks(module, tensors, names, groups):
    """torchvision's module with a block for each layer, run before whatever reads its place."""
    for name in names:
        reader = {"conv1": "maxpool", "layer2.0.conv1": "layer2.0.conv2"}.get(name, "")
        if name == "layer2.0.conv2" and hasattr(module.layer2[0], "conv3"):
            reader = "layer2.0.conv3"
        path = "layer2.0.downsample.2" if "downsample" in name else f"{name}_grown1"
        active = [nn.ReLU()] if reader else []  # none before a sum
        first = tensors[f"{path}.branch.0.weight"]
        last = tensors[f"{path}.branch.{2 + len(active)}.weight"]
        count = groups if name == "layer2.0.conv2" else 1
        block = Residual(conv(first, count), nn.BatchNorm2d(len(first)), *active, conv(last, count))
        owner, _, child = path.rpartition(".")
        module.get_submodule(owner).add_module(child, block.to("meta").eval())
        if reader:
            anchor = module.get_submodule(reader)
            anchor.register_forward_pre_hook(lambda _, inputs, run=block: (run(inputs[0]),))
        elif "downsample" not in name:
            anchor = module.get_submodule("layer2.0.bn2")
            anchor.register_forward_hook(lambda _, inputs, output, run=block: run(output))
    return module


def conv(weight, groups):
    rows, columns, *kernel = weight.shape
    padding = [size // 2 for size in kernel]
    return nn.Conv2d(columns * groups, rows, kernel, padding=padding, groups=groups, bias=False)


@pytest.mark.parametrize("method", ["r2deeper", "zero-init"])
def test_a_block_before_a_concatenation(method):
    module = on_meta(torchvision.models.googlenet, init_weights=False)
    module.training = True  # only the module itself: heads run, BatchNorm and Dropout do not
    state, x = random_state(module, shrink=8), images(2, 3, 64, 64)
    names = ["inception3a.branch1", "inception3a.branch2.1", "inception5b.branch4.1", "aux1.conv"]
    steps = [{"deepen": f"{name}.conv", "method": method} for name in names]
    student = grown(state, *steps, options={"input": [3, 64, 64]})
    expected = outputs_of(module, state, x)
    for name in names:
        size = len(student.tensors[f"{name}.conv_grown1.branch.0.weight"])
        first, last = (student.tensors[f"{name}.conv_grown1.branch.{n}.weight"] for n in (0, 3))
        norm = nn.BatchNorm2d(size, eps=0.001)
        block = Residual(conv(first, 1), norm, nn.ReLU(), conv(last, 1)).to("meta").eval()
        anchor = module.get_submodule(name)
        anchor.add_module("conv_grown1", block)
        anchor.register_forward_hook(lambda _, inputs, output, run=block: run(output))
    assert deviation(expected, outputs_of(module, student.tensors, x)) <= EXACT


@pytest.mark.parametrize("method", ["r2deeper", "zero-init"])
def test_a_block_in_a_chain_of_convolutions(method):
    module = on_meta(torchvision.models.vgg11_bn)
    state, x = random_state(module, shrink=16), images(2, 3, 64, 64)
    steps = [{"deepen": name, "method": method} for name in ("features.0", "classifier.6")]
    student = grown(state, *steps, {"widen": "*", "factor": 2}, options={"input": [3, 64, 64]})
    assert student.plan.draft.renames["features.4.weight"] == "features.5.weight"
    inner = [nn.Conv2d(8, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU()]
    block = Residual(*inner, nn.Conv2d(8, 8, 3, padding=1))
    module.features = nn.Sequential(*module.features[:3], block, *module.features[3:])
    module.classifier.append(Residual(nn.Linear(1000, 1000), nn.Linear(1000, 1000)))
    expected = outputs_of(on_meta(torchvision.models.vgg11_bn), state, x)
    assert deviation(expected, outputs_of(module.eval(), student.tensors, x)) <= EXACT


# Layers of every kind, in hand-made graphs


@pytest.mark.parametrize("method", ["r2deeper", "zero-init"])
@pytest.mark.parametrize("layers", [2, 4])
def test_layers_of_every_kind(method, layers):
    weights = {
        "a": (5, 3, 1, 7),
        "slope": (5, 1, 1),
        "g": (6, 5, 3, 1),
        "h": (6, 3, 3, 3),
        "d": (12, 1, 3, 3),
        "b": (5, 72),
        "m": (5, 4),
    }
    nodes = [
        layer("Conv", "a", "x", pads=(0, 3, 0, 3)),
        node("PRelu", "p", "a", "slope.w"),
        layer("Conv", "g", "p", strides=(2, 1), dilations=(1, 2), pads=(1, 0, 1, 0)),
        node("Sigmoid", "s", "g"),
        node("Mul", "swish", "s", "g"),
        layer("Conv", "h", "swish", group=2, pads=(1, 1, 1, 1)),
        node("Clip", "c", "h", "low", "high"),
        node("Tanh", "t", "h"),
        node("Add", "ct", "c", "t"),
        layer("Conv", "d", "ct", group=6, pads=(1, 1, 1, 1), strides=(1, 2)),
        node("Reshape", "f", "d", "flat"),
        layer("Gemm", "b", "f", transB=1),
        node("Gelu", "e", "b"),
        layer("MatMul", "m", "e"),
    ]
    bounds = {"low": (0.0, "float32"), "high": (6.0, "float32")}
    made = case(weights, nodes, {}, flat=ints(0, 72), **bounds)
    tensors = random_arrays(made.header)
    for name in ("a", "g", "h", "d", "b", "m"):
        steps = [{"deepen": name, "layers": layers, "method": method}] * 2
        plan, student = grown_graph(made.graph, tensors, *steps)
        assert [step.added for step in plan.steps] == [(f"{name}_grown1",), (f"{name}_grown2",)]
        assert_same_function(made.graph, tensors, plan, student)
        plan, student = grown_graph(
            made.graph, tensors, *steps, {"widen": "*", "factor": 3, "method": "r2wider"}
        )
        assert_same_function(made.graph, tensors, plan, student)


def test_slopes_of_pairs_are_equal():
    weights = {"a": (5, 3, 1, 1), "slope": (5, 1, 1)}
    nodes = [layer("Conv", "a", "x"), node("PRelu", "p", "a", "slope.w")]
    made = case(weights, nodes, {})
    tensors = random_arrays(made.header)
    plan, student = grown_graph(made.graph, tensors, {"deepen": "a", "method": "r2deeper"})
    (name,) = (name for name in plan.new_tensors if "branch.1" in name)
    assert student[name].shape == (6, 1, 1)
    step = {"deepen": "a", "method": "r2deeper", "fill": "copy"}
    made = case({**weights, "a": (6, 3, 1, 1), "slope": (6, 1, 1)}, nodes, {})
    tensors = random_arrays(made.header)
    plan, student = grown_graph(made.graph, tensors, step)
    first = tensors["slope.w"][:3]
    assert np.array_equal(student[name], np.concatenate([first, first]))
    assert_same_function(made.graph, tensors, plan, student)


def test_a_block_where_several_read_and_at_an_output():
    weights = {"a": (5, 3, 1, 1), "b": (4, 5, 1, 1), "c": (4, 5, 1, 1)}
    nodes = [
        layer("Conv", "a", "x"),
        node("Relu", "r", "a"),
        layer("Conv", "b", "r"),
        layer("Conv", "c", "r"),
    ]
    made = case(weights, nodes, {}, outputs=("r", "b", "c"))
    tensors = random_arrays(made.header)
    for method in ("r2deeper", "zero-init"):
        steps = [{"deepen": name, "method": method} for name in ("a", "b", "a", "b")]
        plan, student = grown_graph(made.graph, tensors, *steps)
        assert plan.graph.outputs == ("r", "b", "c")
        made_last = plan.graph.producers()
        assert [made_last[name].name for name in ("r", "b")] == ["a_grown2/add", "b_grown2/add"]
        reads = {each.name: each.inputs[0] for each in plan.graph.nodes}
        assert reads["b"] == reads["c"] == "r"
        assert_same_function(made.graph, tensors, plan, student)


def test_what_was_inserted_is_deepened_and_widened_again():
    module, x = mlp(5, 7, 6, 3, activation=nn.Tanh), images(4, 5)
    state = random_state(module)
    steps = (
        {"deepen": "0", "layers": 3, "method": "r2deeper"},
        {"deepen": "2.branch.0", "method": "zero-init"},
        {"widen": "2.branch.*", "factor": 2, "method": "netmorph"},
        {"deepen": "0", "method": "zero-init", "fill": "copy"},
        {"widen": "*", "factor": 1.5, "multiple_of": 2},
    )
    student = grown(state, *steps, options={"activation": "tanh"})
    modules = list(module)

    def dense(path, *inner):
        shapes = [student.tensors[f"{path}.{n}.weight"].shape for n in inner]
        layers = [nn.Linear(columns, rows) for rows, columns in shapes]
        return [each for layer in layers for each in (layer, nn.Tanh())][:-1]

    inside = Residual(*dense("3.branch.2.branch", 0, 2))
    chain = dense("3.branch", 0, 3, 5)
    deeper = nn.Sequential(
        *modules[:2],
        Residual(*dense("2.branch", 0, 2)),
        Residual(*chain[:2], inside, *chain[2:]),
        *modules[2:],
    )
    deeper = deeper.to("meta").eval()
    expected = outputs_of(module, state, x)
    assert deviation(expected, outputs_of(deeper, student.tensors, x)) <= EXACT


def test_identity_layers_stand_before_the_blocks_of_their_layer():
    state = random_state(resnet((1, 1)), shrink=4)
    name = "layer1.0.conv1"
    steps = [{"deepen": name, "method": method} for method in ("r2deeper", "net2deeper")]
    plan = grown(state, *steps).plan
    names = [each.name for each in plan.graph.nodes if each.name.startswith(name)]
    assert names[:2] == [name, f"{name}_grown2"]
    assert names[-1] == f"{name}_grown1/add"


def test_origins_tell_pairs_and_zeros():
    origins = grown(
        random_state(resnet((2, 1)), shrink=4),
        {"deepen": "layer1", "blocks": 1, "method": "r2deeper"},
    ).plan.draft.origins
    first, second = (origins[f"layer1.2.conv{n}"] for n in (1, 2))
    assert first.certificate == second.certificate == "zero"
    assert first.map.runs() == [("fresh", 0, 8), ("fresh", 0, 8)]
    assert second.map.runs() == [("zero", 0, 16)]
    origins = grown(random_state(mlp(5, 7, 3)), {"deepen": "0", "method": "zero-init"})
    last = origins.plan.draft.origins["2.branch.2"]
    assert (last.map.runs(), last.certificate) == ([("zero", 0, 7)], "zero")


def test_names_of_values_are_taken_too():
    """What a node makes may be called otherwise than the node."""
    weights = {"a": (5, 3, 1, 1), "b": (4, 5, 1, 1)}
    nodes = [
        layer("Conv", "a", "x"),
        node("Relu", "r", "a", outputs=["a_grown1"]),
        layer("Conv", "b", "a_grown1"),
    ]
    made = case(weights, nodes, {})
    tensors = random_arrays(made.header)
    for method in ("net2deeper", "zero-init"):
        plan, student = grown_graph(made.graph, tensors, {"deepen": "a", "method": method})
        assert plan.steps[0].added == ("a_grown2",)
        assert_same_function(made.graph, tensors, plan, student)


class Wavering(Net2Deeper):
    """Keeps less with its first layer than with later ones."""

    def insert(self, place, names, draft, draw, step):
        made = super().insert(place, names, draft, draw, step)
        return replace(made, preserves="eval" if place.layer.name == "0" else "exact")


def test_the_weakest_promise_of_all_layers_is_the_step_s():
    assert weakest(()) == "exact"
    assert weakest(("rounded", "no", "eval")) == "no"
    draft = grown(random_state(mlp(5, 7, 3)), {"widen": "0", "to": 8}).plan.draft
    step = DeepenStep(deepen=("0",), layers=2)
    assert deepen_layer(draft, "0", Wavering(), Draw(0, 0), step).preserves == "eval"


# Random padding


def test_random_layers_are_units_of_their_own():
    """No channel of theirs is the teacher's, with one piece of a maxout or several."""
    state = random_state(resnet((2, 1)), shrink=4)
    name = "layer1.0.conv1"
    steps = [{"deepen": name, "layers": 2, "method": each} for each in ("random-pad", "net2deeper")]
    origins = grown(state, *steps).plan.draft.origins
    for number in (1, 2):
        origin = origins[f"{name}_grown{number}"]
        assert (origin.of, origin.map.runs(), origin.certificate) == ("", [("fresh", 0, 16)], "")
    after = origins[f"{name}_grown4"]
    assert (after.of, after.certificate) == ("", "identity")  # of what the teacher does not have
    identity = grown(state, steps[1]).plan.draft.origins[f"{name}_grown2"]
    assert (identity.of, identity.certificate) == (name, "identity")

    nodes = [
        layer("Conv", "a", "x"),
        node("Reshape", "apart", "a", "pieces"),
        node("ReduceMax", "largest", "apart", "axes", keepdims=0),
        layer("Conv", "b", "largest"),
    ]
    constants = {"pieces": ints(-1, 4, 2, *IMAGE[1:]), "axes": ints(2)}
    made = case({"a": (8, 3, 1, 1), "b": (2, 4, 1, 1)}, nodes, {}, **constants)
    step = {"deepen": "a", "method": "random-pad"}
    plan, _ = grown_graph(made.graph, random_arrays(made.header), step)
    assert plan.draft.origins["a_grown1"].map.runs() == [("fresh", 0, 8)]


def test_random_layers_and_blocks_deviate_and_their_quiet_version_does_not():
    module, x = resnet((2, 1)), images(2, 3, 32, 32)
    state = random_state(module, shrink=4)
    expected = outputs_of(module, state, x)
    student = grown(state, {"deepen": "layer1", "method": "random-pad", "fill": "he"})
    deeper = resnet((3, 1))
    assert student.plan.preserves == "no"
    assert deviation(expected, outputs_of(deeper, student.tensors, x)) > 0.01
    assert deviation(expected, outputs_of(deeper, quiet(student, state), x)) <= EXACT
    assert student.plan.draft.origins["layer1.2.conv2"].map.has_zeros is False

    name = "layer1.0.conv1"
    student = grown(state, {"deepen": name, "layers": 2, "method": "random-pad"})
    weight = student.tensors[f"{name}_grown2.weight"]
    assert float(weight.std()) == pytest.approx(float(state[f"{name}.weight"].std()), rel=0.1)
    chain = [nn.BatchNorm2d(16)]
    renamed = {"layer1.0.bn1": "layer1.0.bn1.0"}
    for number in (1, 2):
        renamed[f"{name}_grown{number}"] = f"layer1.0.bn1.{len(chain) + 1}"
        renamed[f"layer1.0.bn1_grown{number}"] = f"layer1.0.bn1.{len(chain) + 2}"
        chain += [nn.ReLU(), nn.Conv2d(16, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16)]
    module.layer1[0].bn1 = nn.Sequential(*chain).to("meta").eval()
    for tensors, same in ((student.tensors, False), (quiet(student, state), True)):
        moved = {}
        for key, each in tensors.items():
            path, _, last = key.rpartition(".")
            moved[f"{renamed.get(path, path)}.{last}"] = each
        assert (deviation(expected, outputs_of(module, moved, x)) <= EXACT) is same


def test_an_applied_random_layer_is_expected_to_deviate(tmp_path):
    stated = {"options": {"activation": "relu"}}
    spec = {"teacher": stated, "steps": [{"deepen": "0", "method": "random-pad"}]}
    done = ckgrow.apply(random_state(mlp(5, 7, 3)), spec, tmp_path / "student.safetensors")
    assert done.verify is not None
    assert (done.verify.preserved, done.verify.expected) == (False, True)


# Learning


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("method", ["r2deeper", "zero-init"])
def test_everything_new_learns(method, training):
    """Three steps of SGD on random targets move every tensor, and pairs part."""
    module = on_meta(torchvision.models.resnet18, num_classes=5)
    state = random_state(module, shrink=8)
    steps = [{"deepen": "layer1.0.conv1", "method": method, "layers": 3}]
    student = grown(state, *steps, options={"input": [3, 32, 32]})
    name = "layer1.0.conv1_grown1"
    block = Residual(
        *(conv(torch.empty(8, 8, 3, 3), 1), nn.BatchNorm2d(8), nn.ReLU()),
        *(conv(torch.empty(8, 8, 3, 3), 1), nn.BatchNorm2d(8), nn.ReLU()),
        conv(torch.empty(8, 8, 3, 3), 1),
    )
    module.layer1[0].add_module("conv1_grown1", block.to("meta"))
    module.layer1[0].conv2.register_forward_pre_hook(lambda _, inputs: (block(inputs[0]),))
    module.train(training)
    before = {k: v.clone() for k, v in student.tensors.items()}
    tensors = {k: v.requires_grad_(v.is_floating_point()) for k, v in student.tensors.items()}
    trained = {k: v for k, v in tensors.items() if v.requires_grad and "running" not in k}
    optimizer = torch.optim.SGD(trained.values(), lr=1e-3)
    x, targets = images(8, 3, 32, 32), torch.arange(8) % 5
    for _ in range(3):
        detached = {k: v if k in trained else v.detach() for k, v in tensors.items()}
        loss = nn.functional.cross_entropy(functional_call(module, detached, (x,)), targets)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    new = [key for key in trained if key.startswith(name)]
    assert len(new) == 7
    assert all(bool((tensors[key] != before[key]).any()) for key in new)
    if method == "r2deeper":
        first, second = tensors[f"{name}.branch.3.weight"].detach().chunk(2)
        assert bool((first != second).flatten(1).any(dim=1).all())


# In the module it was trained in


def convnet(activation):
    return nn.Sequential(
        OrderedDict(
            features=nn.Sequential(
                *(nn.Conv2d(3, 6, 3, padding=1), nn.BatchNorm2d(6), activation()),
                *(nn.Conv2d(6, 5, 3, padding=1), nn.BatchNorm2d(5), activation(), nn.MaxPool2d(2)),
            ),
            flat=nn.Flatten(),
            classifier=nn.Sequential(nn.Linear(5 * 8 * 8, 8), activation(), nn.Linear(8, 4)),
        )
    )


def cifar():
    return CifarResNet((4, 6, 8), (2, 1, 1), option="B")


IN_MODULES = {
    "resnet": (
        cifar,
        ["layer1.0.conv1", "layer2.0.shortcut.0", "layer3", "layer1.0.conv1", "layer3.1.conv1"],
        {},
    ),
    "relu": (lambda: convnet(nn.ReLU), ["features.0", "features.4", "classifier.0"], {}),
    "silu": (lambda: convnet(nn.SiLU), ["features.0", "classifier.2"], {"activation": "silu"}),
}


@pytest.mark.parametrize("method", ["r2deeper", "zero-init"])
@pytest.mark.parametrize("name", IN_MODULES)
def test_load_into_puts_blocks_where_they_compute(name, method, tmp_path):
    """The graph is followed for any weights: those of branches become random ones."""
    make, layers, options = IN_MODULES[name]
    module, x = randomized(make()), images(2, 3, 16, 16).double()
    expected = module(x).detach()
    path = tmp_path / "student.safetensors"
    steps = [{"deepen": layer, "method": method} for layer in layers]
    spec = {"teacher": {"options": {"input": [3, 16, 16], **options}}, "steps": steps}
    ckgrow.apply(module.state_dict(), spec, path, check=False)
    ckgrow.load_into(module, path)
    assert deviation([expected], [module(x).detach()]) <= EXACT
    shaken = {key: each.clone() for key, each in module.state_dict().items()}
    for key, each in shaken.items():
        if "branch" in key and each.dim() > 1:
            each += torch.randn(each.shape, dtype=each.dtype) * 0.1
    module.load_state_dict(shaken)
    with load(path, Wish()) as student:
        graph = student.network.graph
    arrays = {key: each.numpy() for key, each in shaken.items()}
    (found,) = run("torch_float64", graph, arrays, x.numpy())
    assert deviation([expected], [torch.from_numpy(found)]) > 1e-3
    assert deviation([torch.from_numpy(found)], [module(x).detach()]) <= EXACT
    ckgrow.load_into(copy.deepcopy(module), path)


def test_load_into_refuses_blocks_that_the_module_s_own_code_reads(tmp_path):
    path = tmp_path / "student.safetensors"
    module = randomized(cifar())
    for name, said in (
        ("conv1", r"conv1_grown1 is read by the module's own code \(layer1.0.conv1, layer1.0/add"),
        ("layer1.0.conv2", r"own code \(layer1.0/add\).*: y = x \+ branch\(x\)"),
        ("linear", r"own code \(the output\)"),
    ):
        step = {"deepen": name, "method": "r2deeper"}
        ckgrow.apply(module.state_dict(), {"steps": [step]}, path, check=False, force=True)
        with pytest.raises(CheckpointError, match=said):
            ckgrow.load_into(module, path)


# Refusals


def test_a_branch_of_one_layer_cannot_cancel():
    state = random_state(mlp(5, 7, 3))
    with pytest.raises(SpecError, match=r"2 layers at least.*say 'layers: 2' or more"):
        grown(state, {"deepen": "0", "layers": 1, "method": "r2deeper"})
    step = {"deepen": "0", "layers": 1, "method": "zero-init"}
    assert grown(state, step).plan.new_tensors == ("2.branch.0.weight", "2.branch.0.bias")


@pytest.mark.parametrize(
    ("step", "options", "said"),
    [
        ({"method": "random-pad"}, {"activation": "tanh"}, "Tanh is not idempotent.*r2deeper or"),
        ({"method": "r2wider"}, {}, "no method 'r2wider' to deepen a layer by, only .*r2deeper"),
        ({"method": "zero-init", "scale": 0.5}, {}, "zero-init does not read 'scale'"),
        ({"method": "r2deeper", "activation": "none"}, {}, "r2deeper does not read 'activation'"),
    ],
)
def test_refusals_behind_a_layer(step, options, said):
    with pytest.raises(SpecError, match=f"^step 1: .*{said}"):
        grown(random_state(mlp(5, 7, 3)), {"deepen": "0", **step}, options=options)


@pytest.mark.parametrize("method", ["r2deeper", "zero-init"])
def test_even_kernels_cannot_stand_in_a_sum(method):
    made = case({"a": (3, 3, 1, 2)}, [layer("Conv", "a", "x")], {})
    with pytest.raises(SpecError, match=r"behind a: a kernel of \[1, 2\] .* odd kernel"):
        grown_graph(made.graph, random_arrays(made.header), {"deepen": "a", "method": method})


@pytest.mark.parametrize(("groups", "width", "said"), [(1, 15, "15 channels"), (4, 12, "4 groups")])
def test_odd_widths_make_no_pairs(groups, width, said):
    base = width // groups * 64 // 16
    module = resnet((2, 1), Bottleneck, groups=groups, width_per_group=base)
    state = random_state(module, shrink=1)
    width_of = {f"layer1.{n}.{name}": width for n in range(2) for name in ("conv1", "conv2")}
    for name in width_of:
        _, columns, *kernel = state[f"{name}.weight"].shape
        columns = width // groups if name.endswith("conv2") else columns
        state[f"{name}.weight"] = torch.zeros(width, columns, *kernel)
        norm = name.replace("conv", "bn")
        for last in ("weight", "bias", "running_mean", "running_var"):
            state[f"{norm}.{last}"] = torch.ones(width)
    for number in range(2):
        name = f"layer1.{number}.conv3.weight"
        state[name] = torch.zeros(len(state[name]), width, 1, 1)
    with pytest.raises(
        SpecError, match=rf"layer1\.2\.conv2 .*{said}.*no pairs; widen .* zero-init"
    ):
        grown(state, {"deepen": "layer1", "method": "r2deeper"})
