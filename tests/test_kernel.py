"""Larger kernels: torch's own modules with larger kernels compute the same.

The oracle is a module whose convolutions were replaced by ones with the kernel and the padding that
the definition says, never the student's own graph.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torchvision
from safetensors.torch import load_file, save_file
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

import ckgrow
from ckgrow.errors import SpecError
from ckgrow.graph import Constant, Graph, Node
from ckgrow.header import Header, TensorSpec
from ckgrow.recipes import history

EXACT = 1e-12  # of the output's scale, in float64
SMALL = (3, 64, 64)


def stock(name, **options):
    return on_meta(getattr(torchvision.models, name), **options)


def enlarged(module, kernels):
    """The module with larger kernels, each centred on the old one."""
    for path, size in kernels.items():
        layer = module.get_submodule(path)
        further = [
            (new - old) // 2 * step
            for new, old, step in zip(size, layer.kernel_size, layer.dilation, strict=True)
        ]
        layer.kernel_size = tuple(size)
        layer.padding = tuple(map(sum, zip(layer.padding, further, strict=True)))
        shape = (*layer.weight.shape[:2], *size)
        layer.weight = nn.Parameter(torch.empty(shape, device="meta"))
    return module


def assert_exact(name, steps, kernels, size=SMALL, shrink=8, **options):
    module, x = stock(name, **options), images(2, *size)
    state = random_state(module, shrink=shrink)
    expected = outputs_of(module, state, x)
    student = grown(state, *steps, options={"input": list(size)})
    assert student.plan.preserves == "exact"
    for path, kernel in kernels.items():
        assert student.tensors[f"{path}.weight"].shape[2:] == torch.Size(kernel)
    found = outputs_of(enlarged(stock(name, **options), kernels), student.tensors, x)
    assert deviation(expected, found) <= EXACT
    return student


# The same function, in torchvision's own forward


def test_every_kernel_of_a_resnet_but_the_first():
    kernels = {
        f"layer{stage}.{block}.conv{number}": (5, 5)
        for stage in range(1, 5)
        for block in range(2)
        for number in (1, 2)
    }
    shortcuts = {f"layer{stage}.0.downsample.0": (5, 5) for stage in range(2, 5)}
    student = assert_exact("resnet18", [{"kernel": "layer*", "to": 5}], kernels | shortcuts)
    assert student.plan.rebuilt  # the adapter pads as the kernel is large
    assert student.plan.stock_loadable.startswith("no")


def test_grouped_and_strided_kernels_per_axis():
    steps = [{"kernel": "layer2.0.conv2", "to": [3, 7]}, {"kernel": "conv1", "to": [9, 7]}]
    kernels = {"layer2.0.conv2": (3, 7), "conv1": (9, 7)}
    assert_exact("resnext50_32x4d", steps, kernels, shrink=1)


def test_a_kernel_of_one_tap():
    assert_exact("resnet50", [{"kernel": "layer3.1.conv3", "to": 3}], {"layer3.1.conv3": (3, 3)})


def test_chain():
    kernels = {"features.0": (5, 5), "features.8": (5, 5)}
    student = assert_exact(
        "vgg11_bn", [{"kernel": ["features.0", "features.8"], "to": 5}], kernels, shrink=16
    )
    assert not student.plan.rebuilt  # a VGG is known by its kernels of 3 x 3


def test_inception_branches():
    kernels = {"inception3a.branch2.1.conv": (5, 5), "inception4b.branch1.conv": (3, 3)}
    steps = [
        {"kernel": "inception3a.branch2.1.conv", "to": 5},
        {"kernel": "inception4b.branch1.conv", "to": 3},
    ]
    assert_exact("googlenet", steps, kernels, shrink=1, init_weights=False, aux_logits=False)


def test_a_rectangular_kernel_and_one_without_padding():
    kernels = {"Mixed_6b.branch7x7_2.conv": (3, 7), "Conv2d_1a_3x3.conv": (5, 5)}
    steps = [
        {"kernel": "Mixed_6b.branch7x7_2.conv", "to": [3, 7]},
        {"kernel": "Conv2d_1a_3x3.conv", "to": 5},
    ]
    student = assert_exact(
        "inception_v3",
        steps,
        kernels,
        size=(3, 75, 75),
        shrink=1,
        init_weights=False,
        aux_logits=False,
    )
    assert not student.plan.rebuilt  # keys and shapes would mean a convolution without padding


# Hand-made graphs: every rank, dilation, uneven padding, shared weights


def conv(name, x, weight, **attributes):
    return Node("Conv", name, (x, weight), (name,), attributes)


def graph_of(shape, *nodes, **constants):
    last = nodes[-1].output
    return Graph({"x": shape}, (last,), nodes, constants).check()


def arrays(**shapes):
    return random_arrays(Header({name: TensorSpec("float32", s) for name, s in shapes.items()}))


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_dilation_stride_and_uneven_padding_in_every_rank(rank):
    sides = ((2, 0, 1)[:rank], (0, 3, 2)[:rank])
    attributes = {
        "strides": (2, 1, 3)[:rank],
        "dilations": (2, 3, 1)[:rank],
        "pads": (*sides[0], *sides[1]),
        "group": 2,
    }
    graph = graph_of(("N", 4, *(11, 12, 9)[:rank]), conv("c", "x", "w", **attributes))
    tensors = arrays(w=(6, 2, *(3, 1, 3)[:rank]))
    wanted = (5, 7, 3)[:rank]
    plan, student = grown_graph(graph, tensors, {"kernel": "c", "to": list(wanted)})
    assert student["w"].shape == (6, 2, *wanted)
    assert_same_function(graph, tensors, plan, student)
    # and by torch's own convolution
    node = plan.graph.node("c")
    pads = node.attributes["pads"]
    x = images(2, 4, *(11, 12, 9)[:rank]).double()
    made = []
    for weight, (before, after) in (
        (tensors["w"], sides),
        (student["w"], (pads[:rank], pads[rank:])),
    ):
        both = [side for pair in zip(before[::-1], after[::-1], strict=True) for side in pair]
        convolve = getattr(nn.functional, f"conv{rank}d")
        made.append(
            convolve(
                nn.functional.pad(x, both),
                torch.from_numpy(weight.copy()).double(),
                stride=attributes["strides"],
                dilation=attributes["dilations"],
                groups=2,
            )
        )
    assert deviation([made[0]], [made[1]]) <= EXACT


def test_depthwise_and_the_attribute_that_says_the_size():
    graph = graph_of(
        ("N", 4, 9, 9), conv("c", "x", "w", group=4, kernel_shape=(3, 3), pads=(1, 1, 1, 1))
    )
    tensors = arrays(w=(8, 1, 3, 3))
    plan, student = grown_graph(graph, tensors, {"kernel": "c", "to": [3, 5]})
    assert plan.graph.node("c").attributes["kernel_shape"] == (3, 5)
    assert plan.graph.node("c").attributes["pads"] == (1, 2, 1, 2)
    assert_same_function(graph, tensors, plan, student)


def test_weights_of_several_convolutions():
    graph = graph_of(
        ("N", 4, 9, 9),
        conv("a", "x", "w", pads=(1, 1, 1, 1)),
        conv("b", "a", "w", dilations=(2, 2), pads=(2, 2, 2, 2)),
    )
    tensors = arrays(w=(4, 4, 3, 3))
    plan, student = grown_graph(graph, tensors, {"kernel": "a", "to": 5})
    assert plan.graph.node("b").attributes["pads"] == (4, 4, 4, 4)
    assert plan.steps[0].warnings == ("b has the same weights as a and grows with it",)
    assert_same_function(graph, tensors, plan, student)
    plan, _ = grown_graph(graph, tensors, {"kernel": ["a", "b"], "to": 5})
    assert plan.steps[0].warnings == ()


def test_the_teachers_kernel_stands_in_the_middle():
    tensors = arrays(w=(4, 3, 3, 1))
    graph = graph_of(("N", 3, 9, 9), conv("c", "x", "w", pads=(1, 0, 1, 0)))
    plan, student = grown_graph(graph, tensors, {"kernel": "c", "to": [7, 3]})
    (wanted,) = (np.zeros((4, 3, 7, 3), np.float32),)
    wanted[:, :, 2:5, 1:2] = tensors["w"]
    np.testing.assert_array_equal(student["w"], wanted)
    places = plan.draft.recipes["w"].kept()
    np.testing.assert_array_equal(student["w"][np.ix_(*places)], tensors["w"])


def test_growing_on():
    """A kernel, then channels on either side of it, then the kernel again."""
    graph = graph_of(
        ("N", 3, 9, 9),
        conv("a", "x", "v", pads=(1, 1, 1, 1)),
        Node("Relu", "r", ("a",), ("r",)),
        conv("b", "r", "w", pads=(1, 1, 1, 1)),
        Node("Relu", "s", ("b",), ("s",)),
        conv("c", "s", "u"),
    )
    tensors = arrays(v=(4, 3, 3, 3), w=(6, 4, 3, 3), u=(2, 6, 1, 1))
    steps = [
        {"kernel": ["a", "b"], "to": 5},
        {"widen": "a", "to": 7, "method": "net2wider"},
        {"widen": "b", "to": 8, "method": "r2wider"},
        {"deepen": "b", "layers": 1},
        {"kernel": "b*", "to": 7},
    ]
    plan, student = grown_graph(graph, tensors, *steps)
    assert student["w"].shape == (8, 7, 7, 7)
    assert_same_function(graph, tensors, plan, student)


# What the plan says


def test_the_plan_counts_the_taps():
    graph = graph_of(("N", 3, 9, 9), conv("c", "x", "w", pads=(1, 1, 1, 1)))
    plan, _ = grown_graph(graph, arrays(w=(4, 3, 3, 3)), {"kernel": "c", "to": 5})
    said = "axis 2 3→5, new ones zero; axis 3 3→5, new ones zero"
    assert history(plan.draft.recipes["w"]) == said
    (step,) = plan.steps
    assert (step.preserves, step.matched, step.summary) == ("exact", ("c",), "kernel of c to 5")


def test_nothing_to_do():
    graph = graph_of(("N", 3, 9, 9), conv("c", "x", "w"), conv("d", "c", "v"))
    plan, student = grown_graph(
        graph, arrays(w=(4, 3, 3, 3), v=(4, 4, 1, 1)), {"kernel": "*", "to": 3}
    )
    assert plan.steps[0].warnings == ("c has a kernel of 3 x 3 already: nothing to do",)
    assert student["v"].shape == (4, 4, 3, 3)


def test_a_pattern_passes_over_what_has_no_kernel():
    student = grown(
        random_state(stock("resnet18"), shrink=8), {"kernel": "{layer4.1.conv?,fc}", "to": 5}
    )
    assert student.plan.steps[0].skipped == {
        "fc": "is a Gemm, which has no kernel; name convolutions"
    }


# Refusals


ODDITIES = graph_of(
    ("N", 3, 9, 9),
    conv("even", "x", "w2"),
    conv("odd", "even", "w3"),
    Node("Conv", "fixed", ("odd", "k"), ("fixed",)),
    conv("shared", "fixed", "tied"),
    Node("Flatten", "flat", ("shared",), ("flat",), {"axis": 1}),
    Node("MatMul", "product", ("flat", "flat.weight"), ("product",)),
    k=Constant.of(np.ones((4, 4, 1, 1)), "float32"),
)


@pytest.mark.parametrize(
    ("step", "message"),
    [
        ({"kernel": "product", "to": 5}, "product is a MatMul, which has no kernel"),
        ({"kernel": "even", "to": 5}, "even has a kernel of 2 x 2: an even size has no centre"),
        ({"kernel": "odd", "to": 4}, "of size 4 has no centre; .* the nearest are 3 and 5"),
        ({"kernel": "odd", "to": 1}, "odd has a kernel of 3 x 3 and cannot shrink to 1 x 1"),
        ({"kernel": "odd", "to": [5, 1]}, r"cannot shrink to 5 x 1; .* 'to: \[5, 3\]'"),
        ({"kernel": "odd", "to": [5, 5, 5]}, "odd has a kernel of 3 x 3, but 'to' gives 3 sizes"),
        ({"kernel": "fixed", "to": 3}, "fixed has constant weights"),
        ({"kernel": "{even,fixed}", "to": 3}, "no kernel that the pattern matches can grow .even"),
        ({"kernel": "nothing", "to": 3}, "nothing matches no layer"),
    ],
)
def test_refusals(step, message):
    tensors = arrays(
        w2=(4, 3, 2, 2), w3=(4, 4, 3, 3), tied=(4, 4, 1, 1), **{"flat.weight": (144, 2)}
    )
    with pytest.raises(SpecError, match=message) as refusal:
        grown_graph(ODDITIES, tensors, step)
    assert str(refusal.value).startswith("step 1: ")


def test_weights_that_something_else_reads():
    graph = graph_of(
        ("N", 3, 9, 9),
        conv("c", "x", "w"),
        Node("Add", "sum", ("c", "w"), ("sum",)),
    )
    with pytest.raises(SpecError, match="the same weights as sum, which is a Add"):
        grown_graph(graph, arrays(w=(1, 3, 1, 1)), {"kernel": "c", "to": 3})


# From the written file: loads, verifies, grows on; puts itself into a stock module

FILES = {
    "resnet18": ({}, {"kernel": ["layer1.0.conv2", "conv1"], "to": 9}, SMALL),
    "vgg11": ({}, {"kernel": "features.0", "to": 5}, SMALL),
    "googlenet": (
        {"init_weights": False, "aux_logits": False},
        {"kernel": "inception*.branch2.1.conv", "to": 5},
        SMALL,
    ),
    "inception_v3": (
        {"init_weights": False, "aux_logits": False},
        {"kernel": ["Conv2d_1a_3x3.conv", "Mixed_6c.branch7x7_2.conv"], "to": 7},
        (3, 75, 75),
    ),
}


@pytest.mark.parametrize("name", FILES)
def test_students_load_again(name, tmp_path):
    options, step, size = FILES[name]
    module = getattr(torchvision.models, name)(**options).eval()
    small = random_state(module, shrink=1 if name == "inception_v3" else 8)
    teacher, first, second = (tmp_path / f"{n}.safetensors" for n in ("teacher", "a", "b"))
    save_file(small, teacher)
    stated = {"options": {"input": list(size)}}
    ckgrow.apply(teacher, {"teacher": stated, "steps": [step]}, first)
    assert ckgrow.verify(teacher, first, options=stated["options"]).preserved
    (path,) = [path for path in [step["kernel"]] if isinstance(path, str)] or [step["kernel"][-1]]
    layer = path.replace("*", "3a")
    again = {"kernel": layer, "to": 11 if name == "resnet18" else 9}
    ckgrow.apply(first, {"steps": [again]}, second)
    assert ckgrow.verify(first, second).preserved
    x = images(2, *size)
    expected = outputs_of(module, small, x)
    loaded = ckgrow.load_into(module, second)
    assert loaded.get_submodule(layer).kernel_size == (again["to"],) * 2
    assert deviation(expected, outputs_of(loaded, load_file(second), x)) <= EXACT


@pytest.mark.parametrize("name", ["resnet18", "googlenet"])
def test_the_padding_follows_without_metadata(name, tmp_path):
    """Adapters that derive the padding from the kernel need no metadata."""
    options, step, size = FILES[name]
    module = stock(name, **options)
    state = random_state(module, shrink=8)
    teacher, student = tmp_path / "teacher.safetensors", tmp_path / "student.safetensors"
    save_file(state, teacher)
    save_file(grown(state, step, options={"input": list(size)}).tensors, student)
    assert ckgrow.verify(teacher, student, options={"input": list(size)}).preserved


def test_a_layout_that_is_no_longer_known_asks(tmp_path):
    _, step, size = FILES["vgg11"]
    state = random_state(stock("vgg11"), shrink=8)
    student = tmp_path / "student.safetensors"
    save_file(grown(state, step, options={"input": list(size)}).tensors, student)
    with pytest.raises(SpecError, match="state the option pool"):
        ckgrow.inspect(student, options={"input": list(size)})


def test_a_padding_that_nothing_tells_is_no_pass(tmp_path):
    """Conv2d_1a_3x3 has none: with a larger kernel, and no metadata, another function is read."""
    options, size = FILES["inception_v3"][0], (3, 96, 96)
    step = {"kernel": "Conv2d_1a_3x3.conv", "to": 5}
    state = random_state(stock("inception_v3", **options))
    teacher, student = tmp_path / "teacher.safetensors", tmp_path / "student.safetensors"
    save_file(state, teacher)
    save_file(grown(state, step, options={"input": list(size)}).tensors, student)
    assert not ckgrow.verify(teacher, student, options={"input": list(size)}).preserved
