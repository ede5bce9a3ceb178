"""New paths and branches: torch's own modules, with a module more, compute the same.

The oracle is torchvision's forward with the new modules hung into it by hooks, as the definition
says; small torch functions for the rest.
"""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch
import torchvision
from safetensors.torch import save_file
from student_oracles import (
    assert_same_function,
    deviation,
    grown,
    grown_graph,
    images,
    on_meta,
    outputs_of,
    random_arrays,
    random_state,
)
from torch import nn
from torchvision.models.resnet import Bottleneck, ResNet

import ckgrow
from ckgrow.errors import CheckpointError, SpecError
from ckgrow.graph import Constant, Graph, Node
from ckgrow.header import Header, TensorSpec

EXACT = 1e-12  # of the output's scale, in float64
SMALL = (3, 64, 64)


def stock(name, **options):
    return on_meta(getattr(torchvision.models, name), **options)


def small_resnext():
    return on_meta(ResNet, Bottleneck, [1, 2, 1, 1], groups=4, width_per_group=16)


def module_of(tensors, path, **convolution):
    """A torch layer for the student's tensors at ``path``, of any kind."""
    weight = tensors[f"{path}.weight"]
    bias = f"{path}.bias" in tensors
    if weight.dim() == 2:
        layer = nn.Linear(weight.shape[1], weight.shape[0], bias=bias)
    else:
        groups = convolution.get("groups", 1)
        layer = nn.Conv2d(
            weight.shape[1] * groups, weight.shape[0], weight.shape[2:], bias=bias, **convolution
        )
    return layer.to("meta")


def path_of(tensors, path, activation=nn.ReLU, **first):
    layers = module_of(tensors, f"{path}.0", **first), module_of(tensors, f"{path}.2")
    return nn.Sequential(layers[0], activation(), layers[1])


def hang_in(module, path, new):
    owner_path, _, name = path.rpartition(".")
    owner = module.get_submodule(owner_path)
    if isinstance(owner, nn.Sequential) and "forward" not in vars(owner):
        owner.forward = nn.Sequential(*owner).forward  # it would run its children one by one
    owner.add_module(name, new)


def beside_layer(module, tensors, layer, path, **first):
    """The path's output is added to the layer's."""
    new = path_of(tensors, path, **first)
    hang_in(module, path, new)
    module.get_submodule(layer).register_forward_hook(lambda _, x, y: y + new(x[0]))
    return module


def around_block(module, tensors, block, path, **first):
    """The path reads what the block reads, and is added in front of its last activation."""
    new = path_of(tensors, path, **first)
    hang_in(module, path, new)
    read = []
    inner = module.get_submodule(block)
    inner.register_forward_pre_hook(lambda _, x: read.append(x[0]))
    last = inner.bn3 if hasattr(inner, "bn3") else inner.bn2
    last.register_forward_hook(lambda _, x, y: y + new(read.pop()))
    return module


class Unit(nn.Module):
    """torchvision's BasicConv2d for tensors of any width."""

    def __init__(self, tensors, path, **convolution):
        super().__init__()
        self.conv = module_of(tensors, f"{path}.conv", **convolution)
        self.bn = nn.BatchNorm2d(self.conv.out_channels, eps=1e-3).to("meta")

    def forward(self, x):
        return nn.functional.relu(self.bn(self.conv(x)))


def at_the_end(module, tensors, block, path, inner="", **convolution):
    """The new branch's channels stand behind those of the block."""
    new = Unit(tensors, path + inner, **convolution)
    for name in reversed(inner.removeprefix(".").split(".") if inner else ()):
        new = nn.ModuleDict({name: new})
    unit = new.get_submodule(inner.removeprefix("."))
    hang_in(module, path, new.eval())
    module.get_submodule(block).register_forward_hook(lambda _, x, y: torch.cat([y, unit(x[0])], 1))
    return module.eval()


def student_of(module, state, steps, size=SMALL, **options):
    student = grown(state, *steps, options={"input": list(size), **options})
    assert student.plan.preserves == "exact"
    assert student.plan.steps[0].warnings == ()
    assert student.plan.stock_loadable.startswith("no")
    assert not student.plan.rebuilt
    new = set(student.tensors) - set(state)
    assert set(student.plan.new_tensors) == new
    return student


# Added: torchvision's own forward with a path beside a layer


LAYERS = {
    "conv1": {"stride": 2, "padding": 3},
    "layer1.0.conv2": {"padding": 1},
    "layer2.0.conv1": {"stride": 2, "padding": 1},
    "layer2.0.downsample.0": {"stride": 2},
    "fc": {},
}


@pytest.mark.parametrize("method", ["netmorph", "r2deeper"])
@pytest.mark.parametrize("layer", LAYERS)
def test_path_beside_a_layer(layer, method):
    module, x = stock("resnet18"), images(2, *SMALL)
    state = random_state(module, shrink=8)
    expected = outputs_of(module, state, x)
    student = student_of(module, state, [{"branch": layer, "method": method, "width": 6}])
    assert student.plan.steps[0].added == (f"{layer}_grown1",)
    assert len(student.tensors[f"{layer}_grown1.0.weight"]) == 6
    wider = beside_layer(module, student.tensors, layer, f"{layer}_grown1", **LAYERS[layer])
    assert deviation(expected, outputs_of(wider, student.tensors, x)) <= EXACT
    assert_can_learn(wider, student.tensors, x, f"{layer}_grown1")


@pytest.mark.parametrize("method", ["netmorph", "r2deeper"])
def test_path_beside_a_grouped_layer(method):
    module, x = small_resnext(), images(2, *SMALL)
    state = random_state(module, shrink=4)
    expected = outputs_of(module, state, x)
    layer = "layer3.0.conv2"
    student = student_of(module, state, [{"branch": layer, "method": method}])
    path = f"{layer}_grown1"
    assert student.tensors[f"{path}.0.weight"].shape == state[f"{layer}.weight"].shape
    first = {"stride": 2, "padding": 1, "groups": 4}
    wider = beside_layer(module, student.tensors, layer, path, **first)
    assert deviation(expected, outputs_of(wider, student.tensors, x)) <= EXACT


@pytest.mark.parametrize("more", [{"width": 4}, {"fill": "copy"}])
@pytest.mark.parametrize("method", ["netmorph", "r2deeper"])
def test_paths_beside_layers_with_biases_in_numbered_containers(method, more):
    module, x = stock("vgg11"), images(2, *SMALL)
    state = random_state(module, shrink=16)
    expected = outputs_of(module, state, x)
    layers = {"features.3": {"padding": 1}, "classifier.0": {}, "classifier.6": {}}
    student = student_of(module, state, [{"branch": list(layers), "method": method, **more}])
    for layer, first in layers.items():
        beside_layer(module, student.tensors, layer, f"{layer}_grown1", **first)
    assert deviation(expected, outputs_of(module, student.tensors, x)) <= EXACT


BLOCKS = [
    ("resnet18", "layer1.0", {"padding": 1}),
    ("resnet18", "layer3.0", {"stride": 2, "padding": 1}),
    ("resnet50", "layer2.0", {"stride": 2, "padding": 1}),
    ("resnext", "layer2.1", {"padding": 1}),
]


@pytest.mark.parametrize("method", ["netmorph", "r2deeper"])
@pytest.mark.parametrize(("name", "block", "first"), BLOCKS)
def test_path_around_a_block(name, block, first, method):
    module, x = small_resnext() if name == "resnext" else stock(name), images(2, *SMALL)
    state = random_state(module, shrink=4)
    expected = outputs_of(module, state, x)
    student = student_of(module, state, [{"branch": block, "method": method, "width": 10}])
    path = f"{block}.branch_grown1"
    assert student.plan.steps[0].added == (path,)
    wider = around_block(module, student.tensors, block, path, **first)
    assert deviation(expected, outputs_of(wider, student.tensors, x)) <= EXACT
    assert_can_learn(wider, student.tensors, x, path)


def assert_can_learn(module, tensors, x, path):
    """A gradient reaches the path: at least its last layer's weight."""
    leaves = {
        key: each.double().requires_grad_(key.startswith(path))
        if each.is_floating_point()
        else each
        for key, each in tensors.items()
    }
    torch.func.functional_call(module, leaves, (x.double(),)).square().sum().backward()
    assert leaves[f"{path}.2.weight"].grad.abs().max() > 0


def test_pairs_cancel_and_zeros_are_zero():
    state = random_state(stock("resnet18"), shrink=8)
    path = "layer1.0.conv1_grown1"
    pairs = grown(state, {"branch": "layer1.0.conv1", "method": "r2deeper"}).tensors
    u, v = pairs[f"{path}.0.weight"], pairs[f"{path}.2.weight"]
    assert torch.equal(u[:4], u[4:])
    assert torch.equal(v[:, :4], -v[:, 4:])
    assert float(u.std()) == pytest.approx(float(state["layer1.0.conv1.weight"].std()), rel=0.3)
    zeros = grown(state, {"branch": "layer1.0.conv1"}).tensors
    assert zeros[f"{path}.2.weight"].count_nonzero() == 0
    assert zeros[f"{path}.0.weight"].count_nonzero() == zeros[f"{path}.0.weight"].numel()
    copied = grown(state, {"branch": "layer1.0.conv1", "fill": "copy"}).tensors
    assert torch.equal(copied[f"{path}.0.weight"], state["layer1.0.conv1.weight"])


# Appended: torchvision's own forward with one more branch


CONCATENATIONS = [
    # name, new branch, its path inside, convolution
    ("inception4a.branch1", "inception4a.branch1_grown1", "", {}),
    ("inception3b.branch1.conv", "inception3b.branch1_grown1", "", {}),
    ("inception4e", "inception4e.branch1_grown1", "", {}),
    ("inception5b.branch2", "inception5b.branch2_grown1", ".0", {}),
    ("inception4d.branch3.1.conv", "inception4d.branch3_grown1", ".0", {}),
    ("inception3a.branch4", "inception3a.branch4_grown1", ".1", {}),
]


@pytest.mark.parametrize("method", ["netmorph", "r2wider"])
@pytest.mark.parametrize(("name", "path", "inner", "convolution"), CONCATENATIONS)
def test_branch_of_googlenet_with_heads(name, path, inner, convolution, method):
    module = stock("googlenet", init_weights=False)
    module.training = True  # only the module itself: heads run, BatchNorm and Dropout do not
    x = images(2, *SMALL)
    state = random_state(module, shrink=4)
    expected = outputs_of(module, state, x)
    step = {"branch": name, "at": "concat", "method": method, "width": 6}
    student = student_of(module, state, [step])
    assert student.plan.steps[0].added == (path,)
    wider = at_the_end(module, student.tensors, name.partition(".")[0], path, inner, **convolution)
    wider.training = True
    assert deviation(expected, outputs_of(wider, student.tensors, x)) <= EXACT


@pytest.mark.parametrize("method", ["netmorph", "r2wider"])
def test_branch_of_a_block_that_makes_the_map_smaller(method):
    """Mixed_6a reads 35 x 35 and makes 17 x 17: only its 3 x 3 branch does so in one step."""
    module = stock("inception_v3", init_weights=False, aux_logits=False)
    size = (3, 107, 107)
    x = images(2, *size)
    state = random_state(module, shrink=4)
    expected = outputs_of(module, state, x)
    path = "Mixed_6a.branch3x3_grown1"
    for name in ("Mixed_6a.branch3x3", "Mixed_6a"):
        step = {"branch": name, "at": "concat", "method": method, "width": 6}
        student = student_of(module, state, [step], size)
        assert student.plan.steps[0].added == (path,)
    wider = at_the_end(module, student.tensors, "Mixed_6a", path, stride=2)
    assert deviation(expected, outputs_of(wider, student.tensors, x)) <= EXACT


def test_one_branch_for_every_concatenation_that_a_pattern_leads_to():
    state = random_state(stock("googlenet", init_weights=False, aux_logits=False), shrink=4)
    step = {"branch": "inception4*", "at": "concat", "width": 4}
    student = grown(state, step, options={"input": list(SMALL)})
    assert student.plan.steps[0].added == tuple(
        f"inception4{letter}.branch1_grown1" for letter in "abcde"
    )
    twice = grown(
        state,
        {"branch": ["inception4a.branch1", "inception4a.branch2"], "at": "concat", "width": 4},
        {"branch": "inception4a.branch1", "at": "concat", "width": 4},
        options={"input": list(SMALL)},
    )
    assert [step.added for step in twice.plan.steps] == [
        ("inception4a.branch1_grown1", "inception4a.branch2_grown1"),
        ("inception4a.branch1_grown2",),
    ]


def test_what_a_new_branch_starts_from():
    state = random_state(stock("googlenet", init_weights=False, aux_logits=False), shrink=4)
    step = {"branch": "inception4a.branch1", "at": "concat", "width": 20}
    new = "inception4a.branch1_grown1"
    reader = "inception4b.branch1.conv.weight"

    def tensors(**more):
        return grown(state, step | more, options={"input": list(SMALL)}).tensors

    drawn = tensors()
    model = state["inception4a.branch1.conv.weight"]
    assert float(drawn[f"{new}.conv.weight"].std()) == pytest.approx(float(model.std()), rel=0.1)
    gamma = state["inception4a.branch1.bn.weight"].mean()
    torch.testing.assert_close(drawn[f"{new}.bn.weight"], gamma.expand(20))
    assert drawn[f"{new}.bn.running_var"].eq(1).all()
    assert drawn[reader][:, -20:].count_nonzero() == 0
    torch.testing.assert_close(drawn[reader][:, :-20], state[reader], rtol=0, atol=0)
    pairs = tensors(method="r2wider")
    assert torch.equal(pairs[f"{new}.conv.weight"][:10], pairs[f"{new}.conv.weight"][10:])
    assert torch.equal(pairs[reader][:, -20:-10], -pairs[reader][:, -10:])
    assert pairs[reader][:, -20:].count_nonzero() == pairs[reader][:, -20:].numel()
    copied = tensors(fill="copy")
    for key in ("conv.weight", "bn.weight", "bn.bias", "bn.running_mean", "bn.running_var"):
        assert torch.equal(copied[f"{new}.{key}"], state[f"inception4a.branch1.{key}"][:20])


def test_branches_of_one_step_are_read_by_numbers_of_their_own():
    """Mixed_7b holds three concatenations, all of which flow into what reads the block."""
    state = random_state(stock("inception_v3", init_weights=False, aux_logits=False), shrink=8)
    step = {"branch": "Mixed_7b.*", "at": "concat", "method": "r2wider", "width": 8}
    student = grown(state, step, options={"input": [3, 107, 107]})
    assert len(student.plan.steps[0].added) == 3
    for branch in ("branch1x1", "branch3x3_1", "branch3x3dbl_1", "branch_pool"):
        key = f"Mixed_7c.{branch}.conv.weight"
        before, after = (each[key].flatten(1).T for each in (state, student.tensors))
        new = [column for column in after if not (column == before).all(1).any()]
        directions = nn.functional.normalize(torch.stack(new))
        alike = (directions @ directions.T).abs() > 0.999
        assert len(new) == 3 * 8
        assert alike.sum(1).eq(2).all()  # a column and the other of its pair


# Hand-made graphs: every kind of layer, reader and activation


def node(op, name, *inputs, **attributes):
    return Node(op, name, inputs, (name,), attributes)


def graph_of(shape, *nodes, outputs=(), **constants):
    return Graph({"x": shape}, outputs or (nodes[-1].output,), nodes, constants).check()


def arrays(**shapes):
    named = {name.replace("__", "."): TensorSpec("float32", s) for name, s in shapes.items()}
    return random_arrays(Header(named))


CHAINS = {
    "conv1d": graph_of(
        ("N", 4, 11),
        node("Conv", "a", "x", "v", strides=(2,), dilations=(2,), pads=(2, 1)),
        node("Tanh", "t", "a"),
        node("Conv", "b", "t", "w"),
    ),
    "no activation": graph_of(
        ("N", 4, 11), node("Conv", "a", "x", "v", pads=(1, 1)), node("Conv", "b", "a", "w")
    ),
    "gate": graph_of(
        ("N", 4, 11),
        node("Conv", "a", "x", "v", pads=(1, 1)),
        node("Sigmoid", "g", "a"),
        node("Mul", "m", "a", "g"),
        node("Conv", "b", "m", "w"),
    ),
    "slopes": graph_of(
        ("N", 4, 11),
        node("Conv", "a", "x", "v", pads=(1, 1)),
        node("PRelu", "p", "a", "slope"),
        node("Conv", "b", "p", "w"),
    ),
    "depthwise": graph_of(
        ("N", 4, 11),
        node("Conv", "first", "x", "u"),
        node("Conv", "a", "first", "dw", group=4, pads=(1, 1)),
        node("Relu", "r", "a"),
        node("Conv", "b", "r", "w2"),
    ),
}
TENSORS = arrays(v=(6, 4, 3), w=(3, 6, 1), slope=(6, 1), u=(4, 4, 1), dw=(8, 1, 3), w2=(3, 8, 1))


@pytest.mark.parametrize("method", ["netmorph", "r2deeper"])
@pytest.mark.parametrize("name", CHAINS)
def test_paths_of_every_kind(name, method):
    graph = CHAINS[name]
    tensors = {key: TENSORS[key] for key in graph.parameters()}
    again = [{"widen": ["a", "a_grown1.0"], "factor": 2, "method": "r2wider"}]
    if name == "depthwise":  # it follows what it reads
        again = [{"widen": "first", "factor": 2, "method": "net2wider"}]
    for more in ([], again):
        plan, student = grown_graph(graph, tensors, {"branch": "a", "method": method}, *more)
        assert_same_function(graph, tensors, plan, student)
    ops = [each.op for each in plan.graph.nodes if each.name.startswith("a_grown1")]
    active = {"conv1d": ["Tanh"], "gate": ["Sigmoid", "Mul"], "slopes": ["PRelu"]}
    assert ops == ["Conv", *active.get(name, ["Relu"]), "Conv", "Add"]
    first, like = plan.graph.node("a_grown1.0").attributes, plan.graph.node("a").attributes
    assert {**first, "kernel_shape": ()} == {**like, "kernel_shape": ()}


@pytest.mark.parametrize("method", ["netmorph", "r2deeper"])
def test_paths_beside_matrices_of_every_layout(method):
    graph = graph_of(
        ("N", 5),
        node("Gemm", "a", "x", "va", transB=1),
        node("Relu", "r", "a"),
        node("Gemm", "b", "r", "vb", "bias"),
        node("Relu", "s", "b"),
        node("MatMul", "c", "s", "vc"),
    )
    tensors = arrays(va=(6, 5), vb=(6, 8), bias=(8,), vc=(8, 4))
    step = {"branch": ["a", "b", "c"], "method": method, "width": 4}
    plan, student = grown_graph(graph, tensors, step)
    assert student["a_grown1.0.va"].shape == (4, 5)
    assert student["b_grown1.0.vb"].shape == (6, 4)
    assert student["b_grown1.2.vb"].shape == (4, 8)
    assert plan.graph.outputs == ("c",)
    assert_same_function(graph, tensors, plan, student)


def two_branches(*readers, activation="Relu", **more):
    """x -> (a, b) -> concat -> readers"""
    return graph_of(
        ("N", 3, 8, 8),
        node("Conv", "stem", "x", "ws"),
        node("Conv", "a", "stem", "wa"),
        node(activation, "a/act", "a"),
        node("Conv", "b", "stem", "wb", pads=(1, 1, 1, 1)),
        node(activation, "b/act", "b"),
        node("Concat", "both", "a/act", "b/act", axis=1),
        *readers,
        **more,
    )


JOINED = {"ws": (4, 3, 1, 1), "wa": (4, 4, 1, 1), "wb": (4, 4, 3, 3)}


def concat_step(method="netmorph", **more):
    return {"branch": "a", "at": "concat", "method": method, "width": 6, **more}


READERS = {
    "norm": (
        [
            node("BatchNormalization", "n", "both", "n.g", "n.b", "n.m", "n.running_var"),
            node("Conv", "c", "n", "wc"),
        ],
        {"n__g": (8,), "n__b": (8,), "n__m": (8,), "n__running_var": (8,), "wc": (3, 8, 1, 1)},
    ),
    "flatten": (
        [node("Flatten", "f", "both", axis=1), node("Gemm", "c", "f", "wc", transB=1)],
        {"wc": (3, 512)},
    ),
    "depthwise": (
        [
            node("Conv", "d", "both", "wd", group=8, pads=(1, 1, 1, 1)),
            node("Conv", "c", "d", "wc"),
        ],
        {"wd": (8, 1, 3, 3), "wc": (3, 8, 1, 1)},
    ),
    "dense connections": (
        [
            node("Conv", "c", "both", "wc"),
            node("Concat", "more", "both", "c", axis=1),
            node("Conv", "d", "more", "wd"),
            node("Conv", "e", "both", "we"),
            node("Add", "sum", "d", "e"),
        ],
        {"wc": (4, 8, 1, 1), "wd": (2, 12, 1, 1), "we": (2, 8, 1, 1)},
    ),
    "the same twice": (
        [node("Concat", "twice", "both", "both", axis=1), node("Conv", "c", "twice", "wc")],
        {"wc": (3, 16, 1, 1)},
    ),
    "scaled": (
        [node("Mul", "m", "both", "scale"), node("Conv", "c", "m", "wc")],
        {"wc": (3, 8, 1, 1)},
    ),
}


@pytest.mark.parametrize("activation", ["Relu", "Sigmoid"])
@pytest.mark.parametrize("method", ["netmorph", "r2wider"])
@pytest.mark.parametrize("name", READERS)
def test_every_reader_ignores_the_new_branch(name, method, activation):
    nodes, shapes = READERS[name]
    scale = Constant.of(np.linspace(0.5, 2, 8).reshape(8, 1, 1), "float32")
    constants = {"scale": scale} if name == "scaled" else {}
    graph = two_branches(*nodes, activation=activation, **constants)
    tensors = arrays(**JOINED, **shapes)
    again = [
        {"widen": "a_grown1", "to": 10},
        {"widen": "*", "factor": 2, "method": method},
        {"kernel": "a_grown1", "to": 3},
        {"branch": "a_grown1", "at": "concat", "method": method, "width": 2},
    ]
    for more in ([], again):
        plan, student = grown_graph(graph, tensors, concat_step(method), *more)
        assert_same_function(graph, tensors, plan, student)
    assert student["wc"].shape[1] != tensors["wc"].shape[1]


def test_maps_of_new_layers():
    graph = two_branches(node("Conv", "c", "both", "wc"))
    tensors = arrays(**JOINED, wc=(3, 8, 1, 1))
    plan, _ = grown_graph(graph, tensors, concat_step("r2wider"), {"branch": "c", "width": 2})
    origins = plan.draft.origins
    appended, first, last = (origins[name] for name in ("a_grown1", "c_grown1.0", "c_grown1.2"))
    assert appended.map.runs() == [("fresh", 0, 3), ("fresh", 0, 3)]
    assert (appended.of, appended.certificate, first.of, last.certificate) == ("", "", "", "zero")
    assert first.map.runs() == [("fresh", 0, 2)]
    assert last.map.has_zeros
    assert origins["c"].map.is_identity


# Warnings


@pytest.mark.parametrize(
    "step",
    [
        {"branch": "c", "fill": "zeros"},
        {"branch": "c", "fill": "zeros", "method": "r2deeper", "width": 4},
        concat_step(fill="zeros"),
        concat_step("r2wider", fill="zeros"),
    ],
)
def test_dead_paths_are_told(step):
    graph = two_branches(node("Conv", "c", "both", "wc"))
    plan, _ = grown_graph(graph, arrays(**JOINED, wc=(3, 8, 1, 1)), step)
    assert any("cannot learn" in text for text in plan.steps[0].warnings)


# Refusals


@pytest.mark.parametrize(
    ("step", "message"),
    [
        ({"branch": "c", "method": "net2wider"}, "'net2wider' .* by netmorph or r2deeper"),
        ({"branch": "c", "method": "r2wider"}, "'at: sum': .* by netmorph or r2deeper"),
        (concat_step("r2deeper"), "'at: concat': .* by netmorph or r2wider"),
        (concat_step("symmetric"), "has no units of the teacher's"),
        (concat_step("r2wider", width=5), "r2wider adds pairs.* the nearest that work are 4 and 6"),
        ({"branch": "c", "method": "r2deeper", "width": 5}, "multiples of 2 .*nearest are 4 and 6"),
        ({"branch": "c", "at": "concat"}, "c flows into no concatenation"),
        ({"branch": "stem", "at": "concat"}, "stem stands in front of the branches of both"),
        ({"branch": "nothing"}, "nothing matches no layer or block"),
        ({"branch": "nothing", "at": "concat"}, "nothing matches no layer, branch or block"),
    ],
)
def test_refusals(step, message):
    graph = two_branches(node("Conv", "c", "both", "wc"))
    with pytest.raises(SpecError, match=message) as refusal:
        grown_graph(graph, arrays(**JOINED, wc=(3, 8, 1, 1)), step)
    assert str(refusal.value).startswith("step 1: ")


@pytest.mark.parametrize(
    ("readers", "shapes", "reason"),
    [
        ([node("Relu", "out", "both")], {}, "graph output 'out'"),
        (
            [node("Conv", "c", "both", "wc", group=2)],
            {"wc": (4, 4, 1, 1)},
            "counted and cut",
        ),
        (
            [
                node("Conv", "c", "stem", "wc"),
                node("Add", "sum", "both", "c"),
                node("Conv", "d", "sum", "wd"),
            ],
            {"wc": (8, 4, 1, 1), "wd": (2, 8, 1, 1)},
            "joins as many channels from elsewhere",
        ),
        (
            [
                node("Slice", "half", "both", "starts", "ends", "axes"),
                node("Conv", "c", "half", "wc"),
            ],
            {"wc": (3, 4, 1, 1)},
            "counted and cut",
        ),
    ],
)
def test_readers_that_cannot_take_more_channels(readers, shapes, reason):
    constants = {}
    if readers[0].op == "Slice":
        values = {"starts": [0], "ends": [4], "axes": [1]}
        constants = {name: Constant.of(each) for name, each in values.items()}
    graph = two_branches(*readers, **constants)
    with pytest.raises(SpecError, match=f"cannot take more channels .*{reason}"):
        grown_graph(graph, arrays(**JOINED, **shapes), concat_step())


def test_a_map_that_no_single_layer_makes():
    graph = graph_of(
        ("N", 3, 9, 9),
        node("Conv", "a", "x", "wa", strides=(2, 2)),
        node("Conv", "b", "a", "wb", strides=(2, 2)),
        node("MaxPool", "c", "x", kernel_shape=(1, 1), strides=(4, 4)),
        node("Concat", "both", "b", "c", axis=1),
        node("Conv", "d", "both", "wd"),
    )
    tensors = arrays(wa=(4, 3, 1, 1), wb=(4, 4, 1, 1), wd=(2, 7, 1, 1))
    with pytest.raises(SpecError, match="no layer of a makes a map of 3 x 3 of the one of 9 x 9"):
        grown_graph(graph, tensors, concat_step())


def test_a_path_that_nothing_can_be_modelled_on():
    constant = graph_of(
        ("N", 3, 8, 8),
        node("Conv", "a", "x", "k"),
        k=Constant.of(np.ones((4, 3, 1, 1)), "float32"),
    )
    with pytest.raises(SpecError, match="a has constant weights"):
        grown_graph(constant, {}, {"branch": "a"})


# From the written file: loads, verifies, grows on


FILES = [
    ("resnet18", {}, {"branch": ["layer2.0", "layer1.0.conv1"]}, "layer2.0.branch_grown1.0"),
    (
        "googlenet",
        {"init_weights": False, "aux_logits": False},
        {"branch": "inception4*", "at": "concat", "width": 6, "method": "r2wider"},
        "inception4b.branch1_grown1.conv",
    ),
]


@pytest.mark.parametrize(("name", "options", "step", "layer"), FILES)
def test_students_load_again(name, options, step, layer, tmp_path):
    state = random_state(stock(name, **options), shrink=8)
    teacher, first, second, bare = (
        tmp_path / f"{n}.safetensors" for n in ("teacher", "a", "b", "bare")
    )
    save_file(state, teacher)
    stated = {"options": {"input": list(SMALL)}}
    ckgrow.apply(teacher, {"teacher": stated, "steps": [step]}, first)
    assert ckgrow.verify(teacher, first).preserved
    ckgrow.apply(first, {"steps": [{"widen": layer, "factor": 2}, step]}, second)
    assert ckgrow.verify(first, second).preserved
    assert ckgrow.verify(teacher, second).preserved
    save_file(grown(state, step, **stated).tensors, bare)
    with pytest.raises(CheckpointError, match="_grown1"):  # no adapter knows where it stands
        ckgrow.inspect(bare)


# In a stock module


@pytest.mark.parametrize("method", ["netmorph", "r2deeper"])
def test_paths_beside_layers_run_in_a_stock_module(method, tmp_path):
    module = torchvision.models.resnet18().eval()
    state = random_state(module, shrink=8)
    x = images(2, *SMALL)
    expected = outputs_of(module, state, x)
    teacher, first, second = (tmp_path / f"{n}.safetensors" for n in ("teacher", "a", "b"))
    save_file(state, teacher)
    step = {"branch": ["conv1", "layer2.0.conv1", "fc"], "method": method, "width": 6}
    stated = {"options": {"input": list(SMALL)}}
    ckgrow.apply(teacher, {"teacher": stated, "steps": [step]}, first)
    ckgrow.apply(first, {"steps": [step, {"kernel": "conv1_grown1.0", "to": 9}]}, second)
    loaded = ckgrow.load_into(module, second).eval().double()
    with torch.no_grad():
        assert deviation(expected, (loaded(x.double()),)) <= EXACT
    assert loaded.conv1_grown1[0].kernel_size == (9, 9)
    assert loaded.layer2[0].conv1_grown2[0].stride == (2, 2)


@pytest.mark.parametrize(
    ("name", "step", "why"),
    [
        ("resnet18", {"branch": "layer1.0"}, "layer1.0.branch_grown1 is added in the module's own"),
        ("vgg11", {"branch": "features.3"}, "features.3_grown1 stands in a container that runs"),
        (
            "googlenet",
            {"branch": "inception4a", "at": "concat", "width": 4},
            "inception4a.branch1_grown1 is concatenated in the module's own",
        ),
    ],
)
def test_paths_that_the_modules_own_code_would_have_to_run(name, step, why, tmp_path):
    options = {"init_weights": False, "aux_logits": False} if name == "googlenet" else {}
    module = getattr(torchvision.models, name)(**options)
    state = random_state(module, shrink=16)
    teacher, student = tmp_path / "teacher.safetensors", tmp_path / "student.safetensors"
    save_file(state, teacher)
    stated = {"options": {"input": list(SMALL)}}
    ckgrow.apply(teacher, {"teacher": stated, "steps": [step]}, student)
    with pytest.raises(CheckpointError, match=re.escape(why)):
        ckgrow.load_into(module, student)


@pytest.mark.parametrize("at", ["sum", "concat"])
def test_absurd_widths_are_refused(at):
    state = random_state(stock("googlenet", init_weights=False, aux_logits=False), shrink=4)
    with pytest.raises(SpecError, match="ckgrow makes 1048576 at most"):
        grown(state, {"branch": "inception4a.branch1.conv", "at": at, "width": 2**30})
