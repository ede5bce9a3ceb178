"""More convolution groups: torchvision's own forward, with nothing but ``groups`` changed."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
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
from test_coupling import case, layer, node
from torchvision.models.resnet import Bottleneck, ResNet

from ckgrow.errors import SpecError

EXACT = 1e-12
DEPTHS = [1, 2, 1, 1]
GROUPED = ["layer1.0.conv2", *(f"layer{n}.conv2" for n in ("2.0", "2.1", "3.0", "4.0"))]
METHODS = {
    "net2wider": {"split": "unequal"},
    "net2wider select": {"method": "net2wider", "split": "select", "copies": "random"},
    "net2wider noise": {"method": "net2wider", "noise": {"kind": "zero-sum", "scale": 0.3}},
    "net2wider per channel": {"method": "net2wider", "split": "per-channel"},
    "r2wider": {"method": "r2wider"},
    "r2wider copies": {"method": "r2wider", "fill": "copy"},
    "netmorph": {"method": "netmorph"},
    "symmetric": {"method": "symmetric"},
    "diagonal": {"method": "diagonal"},
    "envelope": {"method": "envelope"},
}


def resnext(groups=32, depths=DEPTHS):
    """torchvision's class, of the published wiring: 32 groups of 4 channels in the first stage."""
    return on_meta(ResNet, Bottleneck, depths, groups=groups, width_per_group=4, num_classes=7)


def regrouped(module, groups):
    """The module with other numbers of groups by layer."""
    changed = copy.deepcopy(module)
    for name, number in groups.items():
        changed.get_submodule(name).groups = number
    return changed


@pytest.fixture(scope="module")
def teacher():
    module = resnext()
    state = random_state(module, shrink=2)
    x = images(2, 3, 32, 32)
    return module, state, x, outputs_of(module, state, x)


def student_of(state, *steps):
    return grown(state, *steps, options={"input": [3, 32, 32]})


@pytest.mark.parametrize(
    ("method", "placement"),
    [
        *((method, {}) for method in METHODS),
        ("net2wider", {"placement": "center"}),
        ("r2wider", {"placement": "interleave"}),
        ("diagonal", {"placement": "interleave"}),
        ("envelope", {"placement": "end"}),
    ],
)
def test_every_method_adds_groups(method, placement, teacher):
    _, state, x, expected = teacher
    step = {"widen": "layer*.conv2", "groups": 64, "method": "net2wider", **placement}
    student = student_of(state, {**step, **METHODS[method]})
    assert student.plan.preserves == "exact"
    for name in GROUPED:
        weight = student.tensors[f"{name}.weight"]
        assert weight.shape == (
            2 * len(state[f"{name}.weight"]),
            *state[f"{name}.weight"].shape[1:],
        )
    found = outputs_of(resnext(64), student.tensors, x)
    assert deviation(expected, found) <= EXACT


def test_random_groups_change_the_function(teacher):
    _, state, x, expected = teacher
    step = {"widen": "layer*.conv2", "groups": 64, "method": "random-pad"}
    student = student_of(state, step)
    assert student.plan.preserves == "no"
    assert deviation(expected, outputs_of(resnext(64), student.tensors, x)) > EXACT


def test_one_layer_at_a_time_and_again(teacher):
    module, state, x, expected = teacher
    name = "layer2.1.conv2"
    steps = [{"widen": name, "groups": number} for number in (33, 40)]
    for count, number in ((1, 33), (2, 40)):
        student = student_of(state, *steps[:count])
        size = state[f"{name}.weight"].shape[1]
        assert student.tensors[f"{name}.weight"].shape[:2] == (number * size, size)
        found = outputs_of(regrouped(module, {name: number}), student.tensors, x)
        assert deviation(expected, found) <= EXACT
    inside = student_of(state, *steps, {"widen": name, "factor": 2})
    assert inside.tensors[f"{name}.weight"].shape[:2] == (80 * size, size)
    found = outputs_of(regrouped(module, {name: 40}), inside.tensors, x)
    assert deviation(expected, found) <= EXACT


def test_the_student_loads_into_the_constructor_with_as_many_groups():
    state = random_state(resnext(depths=[1, 1, 1, 1]))
    step = {"widen": "layer*.conv2", "groups": 64, "method": "r2wider"}
    student = student_of(state, step)
    real = ResNet(Bottleneck, [1, 1, 1, 1], groups=64, width_per_group=4, num_classes=7)
    real.load_state_dict(student.tensors, strict=True)


@pytest.mark.parametrize("method", [{}, {"method": "r2wider", "fill": "copy"}])
def test_whole_groups_are_copied(method, teacher):
    """The kernel of a new group is that of one group of the teacher, its rows stay together."""
    _, state, _, _ = teacher
    name = "layer2.0.conv2"
    student = student_of(state, {"widen": name, "groups": 48, **method})
    kernels = state[f"{name}.weight"].unflatten(0, (32, -1))
    new = student.tensors[f"{name}.weight"].unflatten(0, (48, -1))
    assert torch.equal(new[:32], kernels)
    sources = [int((kernels == each).flatten(1).all(1).nonzero()) for each in new[32:]]
    assert len(set(sources)) == (8 if method else 16)  # pairs, or even copies
    before = state["layer2.0.conv1.weight"].unflatten(0, (32, -1))
    after = student.tensors["layer2.0.conv1.weight"].unflatten(0, (48, -1))
    assert torch.equal(after[32:], before[sources])


@pytest.mark.parametrize(
    ("step", "said"),
    [
        ({"widen": "conv1", "groups": 4}, "conv1 cannot be widened: it is a Conv without groups"),
        ({"widen": "layer*.conv[13]", "groups": 64}, "nothing that the pattern matches can be"),
        ({"widen": "layer1.0.conv2", "groups": 16}, "has 32 groups and cannot shrink to 16"),
        (
            {"widen": "layer2.1.conv2", "groups": 33, "method": "r2wider"},
            "adds pairs, .* has 128 channels in units of 4 and cannot become 132; "
            "the nearest that work are 136",
        ),
        (
            {"widen": "layer2.1.conv2", "groups": 35, "method": "r2wider"},
            "the nearest that work are 136 and 144",
        ),
        ({"widen": "layer2.1.conv2", "groups": 48, "method": "symmetric"}, "are 256"),
    ],
)
def test_what_cannot_have_more_groups(step, said, teacher):
    with pytest.raises(SpecError, match=said):
        student_of(teacher[1], step)


def test_as_many_groups_as_there_are_is_nothing_to_do(teacher):
    _, state, _, _ = teacher
    student = student_of(state, {"widen": "layer1.0.conv2", "groups": 32})
    assert student.plan.steps[0].warnings == (
        "layer1.0.conv1 has 64 channels already: nothing to do",
    )


def test_a_pattern_passes_over_what_has_no_groups(teacher):
    module, state, x, expected = teacher
    student = student_of(state, {"widen": "layer3.0.*", "groups": 40})
    (report,) = student.plan.steps
    assert report.matched == ("layer3.0.conv2",)
    assert set(report.skipped) >= {"layer3.0.conv1", "layer3.0.conv3"}
    assert report.widths == {"layer3.0.conv1": (256, 320)}
    found = outputs_of(regrouped(module, {"layer3.0.conv2": 40}), student.tensors, x)
    assert deviation(expected, found) <= EXACT


# Hand-made graphs: who grows along


def conv(name, x, groups=1):
    return layer("Conv", name, x, group=groups)


CHAIN = case(  # 4 groups of 2, then 2 groups of 4, a depthwise one between them
    {
        "a": (8, 3, 1, 1),
        "g": (8, 2, 3, 3),
        "d": (16, 1, 1, 1),
        "h": (6, 8, 1, 1),
        "b": (2, 6, 1, 1),
    },
    [
        conv("a", "x"),
        conv("g", "a", 4),
        conv("d", "g", 8),
        node("Relu", "r", "d"),
        conv("h", "r", 2),
        conv("b", "h"),
    ],
    {},
)


@pytest.mark.parametrize("method", ["net2wider", "r2wider", "netmorph", "symmetric", "diagonal"])
@pytest.mark.parametrize(("name", "groups"), [("g", 8), ("h", 4), ("g", 16)])
def test_grouped_convolutions_in_a_row_grow_together(name, groups, method):
    tensors = random_arrays(CHAIN.header)
    step = {"widen": name, "groups": groups, "method": method}
    plan, student = grown_graph(CHAIN.graph, tensors, step)
    assert_same_function(CHAIN.graph, tensors, plan, student)
    ratio = groups // CHAIN.graph.node(name).get("group", 1)
    for each in "gdh":
        before, after = (graph.node(each).get("group", 1) for graph in (CHAIN.graph, plan.graph))
        assert after == ratio * before
    assert student["g.w"].shape[1:] == (2, 3, 3)
    assert student["h.w"].shape == (6 * ratio, 8, 1, 1)


def test_groups_that_must_stay_together_are_told():
    with pytest.raises(SpecError, match=r"grows 2 groups at a time, .* are 4 and 6"):
        grown_graph(CHAIN.graph, random_arrays(CHAIN.header), {"widen": "g", "groups": 5})


def test_a_depthwise_convolution_follows():
    with pytest.raises(SpecError, match=r"d cannot .*: it has a group for each .* widen g, and"):
        grown_graph(CHAIN.graph, random_arrays(CHAIN.header), {"widen": "d", "groups": 32})


@pytest.mark.parametrize("name", ["a", "d"])
def test_rescaled_channels_reach_kernels_that_follow_them(name):
    """A depthwise kernel reads what is rescaled already; its bias is scaled once."""
    made = case(
        {"a": (4, 3, 1, 1), "d": (8, 1, 1, 1), "d.b": (8,), "b": (2, 8, 1, 1)},
        [
            conv("a", "x"),
            node("Conv", "d", "a", "d.w", "d.b", group=4),
            node("Relu", "r", "d"),
            conv("b", "r"),
        ],
        {},
    )
    tensors = random_arrays(made.header)
    plan, student = grown_graph(made.graph, tensors, {"widen": name, "factor": 2, "rescale": 0.5})
    assert_same_function(made.graph, tensors, plan, student)
    assert np.array_equal(student["a.w"][:4], tensors["a.w"] / 2)
    assert np.array_equal(student["d.w"][:8], tensors["d.w"])


def test_kernels_of_zero_channels_can_learn():
    """With zero: in the channels that a new group reads are zero; its kernel must not be."""
    tensors = random_arrays(CHAIN.header)
    step = {"widen": "g", "groups": 8, "method": "netmorph", "zero": "in"}
    plan, student = grown_graph(CHAIN.graph, tensors, step)
    assert_same_function(CHAIN.graph, tensors, plan, student)
    assert not student["a.w"][8:].any()
    assert student["g.w"][8:].all()
    assert student["d.w"][16:].all()


@pytest.mark.parametrize("method", ["net2wider", "r2wider", "netmorph"])
def test_groups_in_a_residual_sum(method):
    """What the sum adds to whole groups grows by as many channels as a group makes."""
    made = case(
        {"a": (6, 3, 1, 1), "g": (6, 2, 3, 3), "s": (6, 3, 1, 1), "b": (2, 6, 1, 1)},
        [
            layer("Conv", "a", "x"),
            layer("Conv", "g", "a", group=3, pads=(1, 1, 1, 1)),
            layer("Conv", "s", "x"),
            node("Add", "t", "g", "s"),
            node("Add", "u", "t", "a"),
            layer("Conv", "b", "u"),
        ],
        {},
    )
    tensors = random_arrays(made.header)
    step = {"widen": "g", "groups": 5, "method": method}
    plan, student = grown_graph(made.graph, tensors, step)
    assert_same_function(made.graph, tensors, plan, student)
    assert [len(student[f"{name}.w"]) for name in "ags"] == [10, 10, 10]
    assert plan.graph.node("g").get("group", 1) == 5


@pytest.mark.parametrize(
    ("weights", "nodes", "said"),
    [
        (
            {"e": (6, 1, 1, 1), "g": (6, 3, 1, 1), "b": (2, 6, 1, 1)},
            [conv("e", "x", 3), conv("g", "e", 2), conv("b", "g")],
            "graph input 'x'",
        ),
        (
            {"a": (4, 3, 1, 1), "g": (4, 2, 1, 1)},
            [conv("a", "x"), conv("g", "a", 2)],
            "graph output 'g'",
        ),
        (
            {"a": (3, 3, 1, 1), "c": (5, 3, 1, 1), "g": (4, 2, 1, 1), "b": (2, 4, 1, 1)},
            [
                conv("a", "x"),
                conv("c", "x"),
                node("Concat", "k", "a", "c", axis=1),
                conv("g", "k", 4),
                conv("b", "g"),
            ],
            "Conv 'g' takes channels of different kinds together",
        ),
    ],
)
def test_groups_of_channels_that_cannot_follow(weights, nodes, said):
    made = case(weights, nodes, {})
    with pytest.raises(SpecError, match=f"g cannot be widened: {said}"):
        grown_graph(made.graph, random_arrays(made.header), {"widen": "g", "groups": 8})


def test_growing_inside_groups_is_as_before():
    tensors = random_arrays(CHAIN.header)
    plan, student = grown_graph(CHAIN.graph, tensors, {"widen": "h", "factor": 2})
    assert_same_function(CHAIN.graph, tensors, plan, student)
    assert plan.graph.node("h").get("group", 1) == 2
    assert np.asarray(student["h.w"]).shape == (12, 8, 1, 1)
