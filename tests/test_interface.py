"""New input channels are ignored and old logits stay, in torch's own forward on the new tensors."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torchvision
from student_oracles import (
    deviation,
    grown,
    grown_graph,
    images,
    on_meta,
    outputs_of,
    random_arrays,
    random_state,
)
from test_architecture_resnet import CifarResNet
from test_coupling import case, floats, ints, layer, node
from torch import nn
from torch.nn import functional as fn

from ckgrow.errors import SpecError
from ckgrow.graph import Graph
from ckgrow.maps import ChannelMap

EXACT = 1e-12
BOTH = ({"inputs": {"by": 2}}, {"classes": {"by": 5}})
IMAGES = {"options": {"input": [3, 64, 64]}}


def assert_kept(module, state, student, size, *, more=0, bound=EXACT):
    """The old outputs of ``module`` with the student's tensors are those with the teacher's.

    The module computes with tensors of any size: what it was built for says nothing.
    """
    x = images(3, size[0] + more, *size[1:])
    expected = outputs_of(module, state, x[:, : size[0]])
    made = outputs_of(module, student.tensors, x)
    old = tuple(new[:, : was.shape[1]] for was, new in zip(expected, made, strict=True))
    assert deviation(expected, old) <= bound
    return made


# The stock networks


@pytest.mark.parametrize("name", ["resnet18", "resnet50", "vgg11_bn", "alexnet"])
def test_torchvision(name):
    module = on_meta(getattr(torchvision.models, name))
    state = random_state(module, shrink=8)
    student = grown(state, *BOTH, options={"input": [3, 64, 64]})
    assert student.plan.preserves == "exact"
    (logits,) = assert_kept(module, state, student, (3, 64, 64), more=2)
    assert logits.shape == (3, 130)
    assert logits[:, 125:].std() > 0.1 * logits[:, :125].std()  # and they are no constants


class Infrared(torchvision.models.GoogLeNet):
    """torchvision's, which rescales red, green and blue, and here passes other channels on."""

    def _transform_input(self, x):
        return torch.cat([super()._transform_input(x[:, :3]), x[:, 3:]], 1)


@pytest.mark.parametrize("transform", [False, True])
def test_googlenet_with_all_its_heads(transform):
    module = on_meta(Infrared, init_weights=False, transform_input=transform)
    module.training = True  # only the module itself: heads run, BatchNorm and Dropout do not
    state = random_state(module, shrink=8)
    options = {"input": [3, 96, 96], "transform_input": transform}
    student = grown(state, *BOTH, options=options)
    made = assert_kept(module, state, student, (3, 96, 96), more=2)
    assert [each.shape[1] for each in made] == [130, 130, 130]
    assert student.plan.steps[1].matched == ("logits", "aux1", "aux2")
    assert student.plan.rebuilt is not transform  # the adapter rescales three channels only
    warnings = student.plan.steps[0].warnings
    assert transform == bool(warnings)
    assert all("new ones pass as they are" in text for text in warnings)


def convnet():
    return nn.Sequential(
        *(nn.Conv2d(2, 4, 3, padding=1), nn.ReLU(), nn.Flatten()),
        *(nn.Linear(4 * 5 * 6, 7), nn.ReLU(), nn.Linear(7, 3)),
    )


def test_convnet():
    module = on_meta(convnet)
    state = random_state(module)
    options = {"input": [2, 5, 6], "head": "flatten"}
    student = grown(state, *BOTH, options=options)
    assert_kept(module, state, student, (2, 5, 6), more=2)
    assert student.plan.rebuilt
    assert student.plan.options == {**options, "input": [4, 5, 6]}


@pytest.mark.parametrize(
    "chain",
    [
        lambda: [nn.Linear(4, 6), nn.GELU(), nn.Linear(6, 3)],
        lambda: [nn.BatchNorm1d(4), nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3, bias=False)],
    ],
)
def test_mlp(chain):
    module = on_meta(lambda: nn.Sequential(*chain()))
    activation = "gelu" if isinstance(module[1], nn.GELU) else "relu"
    state = random_state(module)
    student = grown(state, *BOTH, options={"activation": activation})
    assert_kept(module, state, student, (4,), more=2)
    assert student.plan.steps[0].widths == {"input": (4, 6)}
    assert student.plan.steps[1].widths == {"logits": (3, 8)}


def test_padded_shortcuts_stay_what_they_are():
    module = on_meta(CifarResNet, (16, 32, 64), (2, 2, 2), option="A")
    state = random_state(module)
    student = grown(state, *BOTH)
    assert_kept(module, state, student, (3, 32, 32), more=2)


# What stands in the tensors


@pytest.mark.parametrize("fill", ["match-std", "he", "xavier", "zeros", "copy"])
def test_new_classes_are_filled_as_asked(fill):
    module = on_meta(torchvision.models.resnet18, num_classes=10)
    state = random_state(module, shrink=8)
    student = grown(state, {"classes": {"to": 40}, "fill": fill}, options=IMAGES["options"])
    assert_kept(module, state, student, (3, 64, 64))
    rows, biases = student.tensors["fc.weight"], student.tensors["fc.bias"]
    assert torch.equal(rows[:10], state["fc.weight"])
    new, fan = rows[10:], rows.shape[1]
    if fill == "copy":
        same = (new[:, None] == rows[None, :10]).all(-1)
        assert same.any(1).all()
        assert torch.equal(biases[10:], biases[:10][same.int().argmax(1)])
        return
    sizes = {
        "match-std": state["fc.weight"].std(correction=0),
        "he": (2 / fan) ** 0.5,
        "xavier": (2 / (fan + 10)) ** 0.5,
        "zeros": 0.0,
    }
    assert new.std() == pytest.approx(float(sizes[fill]), rel=0.1)
    assert not biases[10:].any()


def test_new_columns_are_zero_and_old_ones_kept():
    module = on_meta(torchvision.models.resnet18)
    state = random_state(module, shrink=8)
    student = grown(state, *BOTH)
    assert torch.equal(student.tensors["conv1.weight"][:, :3], state["conv1.weight"])
    assert not student.tensors["conv1.weight"][:, 3:].any()
    changed = [name for name in state if student.tensors[name].shape != state[name].shape]
    assert changed == ["conv1.weight", "fc.weight", "fc.bias"]
    assert student.plan.draft.interface == {
        "input": ChannelMap.with_fresh(3, 2),
        "logits": ChannelMap.with_fresh(125, 5),
    }


def test_new_channels_learn():
    """A zero weight has a gradient where its input is not zero, and a new class always."""
    module = nn.Sequential(nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, 8))
    state = random_state(
        on_meta(lambda: nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3)))
    )
    module.load_state_dict(grown(state, *BOTH).tensors)
    fn.cross_entropy(module(images(32, 6)), torch.arange(32) % 8).backward()
    assert module[0].weight.grad[:, 4:].abs().min() > 0
    assert module[2].weight.grad[3:].abs().amax(1).min() > 0


def test_several_steps_are_one_map():
    module = on_meta(lambda: nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3)))
    state = random_state(module)
    steps = ({"widen": "0", "factor": 1.5}, {"classes": {"by": 1}}, {"inputs": {"to": 9}})
    student = grown(state, *BOTH, *steps)
    assert_kept(module, state, student, (4,), more=5)
    assert student.plan.draft.interface == {
        "input": ChannelMap.with_fresh(4, 5),
        "logits": ChannelMap.with_fresh(3, 6),
    }
    assert not student.plan.draft.grouping.groups["input"].growable  # closed again


def test_the_same_number_is_left_alone():
    state = random_state(on_meta(lambda: nn.Sequential(nn.Linear(4, 3))))
    student = grown(state, {"inputs": {"to": 4}}, {"classes": {"to": 3}})
    assert [step.warnings for step in student.plan.steps] == [
        ("the network has 4 input channels already: nothing to do",),
        ("the network has 3 classes already: nothing to do",),
    ]
    assert not student.plan.draft.interface


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("resnet18", "yes (torchvision's resnet18 with num_classes=1005)"),
        ("vgg11", "yes (torchvision's vgg11 with num_classes=1005)"),
        ("googlenet", "yes (torchvision's googlenet with num_classes=1005 and aux_logits=True)"),
    ],
)
def test_where_the_student_loads(name, said):
    options = {"init_weights": False} if name == "googlenet" else {}
    state = random_state(on_meta(getattr(torchvision.models, name), **options))
    assert grown(state, {"classes": {"by": 5}}).plan.stock_loadable == said
    plan = grown(state, {"inputs": {"by": 1}}).plan
    assert plan.stock_loadable.startswith("no (no constructor has these channels")
    assert plan.rebuilt


# Wirings: bare graphs, beside what torch makes of their tensors


def conv(w, x, **options):
    return fn.conv2d(x, w, **options)


POOLED = [node("GlobalAveragePool", "p", "c"), node("Flatten", "f", "p"), layer("Gemm", "z", "f")]
WIRINGS = {
    "a depthwise first convolution": (
        case(
            {"d": (6, 1, 3, 3), "c": (5, 6, 1, 1)},
            [layer("Conv", "d", "x", group=3), layer("Conv", "c", "d")],
            {},
        ),
        lambda t, x: [conv(t["c.w"], conv(t["d.w"], x, groups=x.shape[1]))],
    ),
    "an input beside other channels": (
        case(
            {"a": (4, 3, 1, 1), "c": (5, 7, 1, 1)},
            [
                layer("Conv", "a", "x"),
                node("Concat", "k", "x", "a", axis=1),
                layer("Conv", "c", "k"),
            ],
            {},
        ),
        lambda t, x: [conv(t["c.w"], torch.cat([x, conv(t["a.w"], x)], 1))],
    ),
    "an input that a residual stream begins with": (
        case(
            {"a": (3, 3, 1, 1), "c": (5, 3, 1, 1)},
            [layer("Conv", "a", "x"), node("Add", "s", "x", "a"), layer("Conv", "c", "s")],
            {},
        ),
        lambda t, x: [conv(t["c.w"], x + conv(t["a.w"], x))],
    ),
    "an image that is flattened": (
        case(
            {"c": (60, 5)},
            [node("Reshape", "r", "x", "shape"), layer("Gemm", "c", "r")],
            {},
            shape=ints(0, 60),
        ),
        lambda t, x: [x.flatten(1) @ t["c.w"]],
    ),
    "a rescaled input": (
        case(
            {"c": (5, 3, 1, 1)},
            [node("Sub", "m", "x", "mean"), node("Div", "s", "m", "std"), layer("Conv", "c", "s")],
            {},
            mean=floats([[[0.1]], [[0.2]], [[0.3]]]),
            std=floats([[[2.0]], [[3.0]], [[4.0]]]),
        ),
        lambda t, x: [
            conv(t["c.w"], torch.cat([(x[:, :3] - MEAN) / DEVIATION, x[:, 3:]], 1)),
        ],
    ),
    "a hidden value as an output": (
        case(
            {"c": (5, 3, 1, 1), "z": (5, 4)}, [layer("Conv", "c", "x"), *POOLED], {}, outputs="fz"
        ),
        lambda t, x: [
            (hidden := conv(t["c.w"], x).mean((2, 3))),
            hidden @ t["z.w"],
        ],
    ),
    "logits and what a sigmoid makes of them": (
        case(
            {"c": (5, 3, 1, 1), "z": (5, 4)},
            [layer("Conv", "c", "x"), *POOLED, node("Sigmoid", "y", "z")],
            {},
            outputs="zy",
        ),
        lambda t, x: [
            (logits := conv(t["c.w"], x).mean((2, 3)) @ t["z.w"]),
            logits.sigmoid(),
        ],
    ),
    "two layers that are summed": (
        case(
            {"c": (5, 3, 1, 1), "d": (5, 3, 1, 1)},
            [layer("Conv", "c", "x"), layer("Conv", "d", "x"), node("Add", "s", "c", "d")],
            {},
        ),
        lambda t, x: [conv(t["c.w"], x) + conv(t["d.w"], x)],
    ),
}
MEAN = torch.tensor([0.1, 0.2, 0.3])[:, None, None].double()  # constants are float32
DEVIATION = torch.tensor([2.0, 3.0, 4.0], dtype=torch.float64)[:, None, None]


@pytest.mark.parametrize("name", WIRINGS)
def test_wirings(name):
    made, forward = WIRINGS[name]
    tensors = random_arrays(made.header)
    plan, student = grown_graph(made.graph, tensors, *BOTH)
    x = images(4, 5, 4, 5).double()
    before = forward(doubles(tensors), x[:, :3])
    after = forward(doubles(student), x)
    old = [new[:, : was.shape[1]] for was, new in zip(before, after, strict=True)]
    assert deviation(before, old) <= EXACT
    assert plan.graph.inputs == {"x": ("N", 5, 4, 5)}
    shapes = [tuple(plan.draft.shapes[value][1:]) for value in plan.graph.outputs]
    assert shapes == [tuple(new.shape[1:]) for new in after]
    grew = [each for each in plan.graph.outputs if each in plan.draft.interface]
    assert list(plan.steps[1].matched) == grew


def doubles(tensors):
    return {name: torch.from_numpy(np.array(each)).double() for name, each in tensors.items()}


def test_a_rescaling_passes_new_channels_as_they_are():
    made, _ = WIRINGS["a rescaled input"]
    plan, _ = grown_graph(made.graph, random_arrays(made.header), BOTH[0])
    assert plan.graph.constants["mean"].array().ravel() == pytest.approx([0.1, 0.2, 0.3, 0, 0])
    assert plan.graph.constants["std"].array().ravel() == pytest.approx([2, 3, 4, 1, 1])
    assert "m, s rescale the old input channels" in plan.steps[0].warnings[0]


def test_a_hidden_output_is_passed_over_with_the_reason():
    made, _ = WIRINGS["a hidden value as an output"]
    plan, _ = grown_graph(made.graph, random_arrays(made.header), BOTH[1])
    assert plan.steps[0].skipped == {"f": "z reads it, so that it is no end of the network"}


# Refusals


C = layer("Conv", "c", "x")


@pytest.mark.parametrize(
    ("weights", "nodes", "constants", "step", "said"),
    [
        (
            {"c": (4, 2, 1, 1)},
            [layer("Conv", "c", "x", group=2)],
            {},
            "inputs",
            "c is a grouped convolution, and each of its groups would need new channels",
        ),
        (
            {"c": (4, 2, 1, 1)},
            [layer("Conv", "c", "x", group=2)],
            {},
            "classes",
            "c is a grouped convolution, and each of its groups would need new channels",
        ),
        (
            {"a": (5, 2, 1, 1), "b": (5, 2, 1, 1)},
            [
                node("Split", "s", "x", "sizes", outputs=("l", "r"), axis=1),
                *(layer("Conv", "a", "l"), layer("Conv", "b", "r"), node("Add", "y", "a", "b")),
            ],
            {"sizes": ints(2, 2)},
            "inputs",
            "put together or taken apart",
        ),
        (
            {"a": (5, 4, 1, 1), "b": (5, 4, 1, 1)},
            [
                layer("Conv", "a", "x"),
                layer("Conv", "b", "x"),
                node("Concat", "y", "a", "b", axis=1),
            ],
            {},
            "classes",
            "put together or taken apart",
        ),
        (
            {"c": (4, 4, 1, 1)},
            [layer("Conv", "c", "x"), node("Add", "y", "x", "c")],
            {},
            "inputs",
            "graph output 'y'",
        ),
        (
            {"c": (4, 4, 1, 1)},
            [layer("Conv", "c", "x"), node("Add", "y", "x", "c")],
            {},
            "classes",
            "no output of this network is a classification (y: c reads it",
        ),
        (
            {"c": (5, 4, 1, 1)},
            [layer("Conv", "c", "x"), node("Softmax", "y", "c", axis=1)],
            {},
            "classes",
            "Softmax 'y' runs over it, and every new class would change the probabilities",
        ),
        (
            {"c": (5, 4, 1, 1)},
            [layer("Conv", "c", "x"), node("LogSoftmax", "y", "c", axis=1)],
            {},
            "classes",
            "let the network end at the logits",
        ),
        (
            {"c": (5, 4, 1, 1)},
            [node("Softmax", "y", "x", axis=1), layer("Conv", "c", "y")],
            {},
            "inputs",
            "Softmax 'y' runs over it",
        ),
        (
            {"c": (5, 4, 1, 1)},
            [layer("Conv", "c", "x"), node("Flatten", "y", "c")],
            {},
            "classes",
            "holds each channel 20 times",
        ),
        ({}, [node("Relu", "y", "x")], {}, "classes", "y: no layer makes its channels"),
        ({}, [node("Relu", "y", "x")], {}, "inputs", "no layer reads its channels"),
    ],
)
def test_refused_wirings(weights, nodes, constants, step, said):
    made = case(weights, nodes, {}, x=(4, 4, 5), **constants)
    with pytest.raises(SpecError, match=r"^step 1: ") as refused:
        grown_graph(made.graph, random_arrays(made.header), {step: {"by": 1}})
    assert said in str(refused.value)


def test_outputs_of_different_widths_are_not_all_classes():
    made = case(
        {"c": (5, 3, 1, 1), "d": (7, 3, 1, 1)},
        [layer("Conv", "c", "x"), layer("Conv", "d", "x")],
        {},
        outputs="cd",
    )
    with pytest.raises(SpecError, match=r"not known which .*: c has 5 channels, d has 7 channels"):
        grown_graph(made.graph, random_arrays(made.header), BOTH[1])


def test_of_several_inputs_it_is_not_known_which_is_to_grow():
    sizes = ("N", 3, 4, 5)
    nodes = (layer("Conv", "c", "x"), layer("Conv", "d", "w"), node("Add", "y", "c", "d"))
    graph = Graph({"x": sizes, "w": sizes}, ("y",), nodes).check()
    tensors = {name: np.ones((5, 3, 1, 1), "f4") for name in ("c.w", "d.w")}
    with pytest.raises(SpecError, match=r"one input that has channels; those of .*: x, w"):
        grown_graph(graph, tensors, BOTH[0])


def test_a_backbone_has_no_classes():
    module = on_meta(torchvision.models.resnet18)
    state = {k: v for k, v in random_state(module, shrink=8).items() if not k.startswith("fc.")}
    with pytest.raises(
        SpecError, match=r"no output of this network is a classification \(features: "
    ):
        grown(state, BOTH[1])
    assert grown(state, BOTH[0]).plan.steps[0].widths == {"input": (3, 5)}


@pytest.mark.parametrize(
    ("step", "said"),
    [
        ({"inputs": {"to": 3}}, "has 4 input channels and cannot shrink to 3"),
        ({"classes": {"to": 2}}, "has 3 classes and cannot shrink to 2"),
        ({"classes": {"by": 2**21}}, "would have 2097155 classes; ckgrow grows to 1048576 at most"),
    ],
)
def test_refused_numbers(step, said):
    state = random_state(on_meta(lambda: nn.Sequential(nn.Linear(4, 3))))
    with pytest.raises(SpecError, match=said):
        grown(state, step)


def test_dead_classes_are_told():
    made = case({"c": (5, 3, 1, 1)}, [C, node("Relu", "y", "c")], {})
    step = {"classes": {"by": 1}, "fill": "zeros"}
    plan, _ = grown_graph(made.graph, random_arrays(made.header), step)
    assert "dead and cannot learn; use fill: match-std" in plan.steps[0].warnings[0]
