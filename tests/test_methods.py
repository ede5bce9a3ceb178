"""What a step means: widths, splits, noise, rescaling, insertions, and every refusal."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from shipped import TEACHERS
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
from test_architecture_resnet import CifarResNet
from test_coupling import case, ints, layer, node
from torch import nn

import ckgrow
from ckgrow.errors import SpecError


def mlp(*widths, activation=nn.ReLU):
    layers = [nn.Linear(before, after) for before, after in pairwise(widths)]
    chain = [each for layer in layers for each in (layer, activation())]
    return on_meta(lambda: nn.Sequential(*chain[:-1]))


def option_a(widths=(16, 32, 64), depths=(2, 2, 2)):
    return on_meta(CifarResNet, widths, depths, option="A")


TINY = mlp(5, 6, 7, 3)
STATED = {"activation": "relu"}


def tiny(*steps, **arguments):
    return grown(random_state(TINY), *steps, **arguments)


# Widths


@pytest.mark.parametrize(
    ("size", "width"),
    [
        ({"factor": 1.5}, 9),
        ({"factor": 1.25}, 8),  # 7.5 rounds up
        ({"factor": 1.24}, 7),
        ({"factor": 1.4166666666666667}, 9),  # 8.5 and a little
        ({"to": 11}, 11),
        ({"by": 1}, 7),
        ({"factor": 1.1, "multiple_of": 8}, 8),
        ({"by": 3, "multiple_of": 4}, 12),
    ],
)
def test_new_width(size, width):
    student = tiny({"widen": "0", **size})
    assert student.tensors["0.weight"].shape == (width, 5)
    assert student.tensors["0.bias"].shape == (width,)
    assert student.tensors["2.weight"].shape == (7, width)


def test_factor_rounds_half_up_in_every_segment():
    weights = {"a": (1, 3, 1, 1), "b": (3, 3, 1, 1), "c": (4, 3, 1, 1), "d": (2, 4, 1, 1)}
    nodes = [
        *(layer("Conv", name, "x") for name in "abc"),
        node("Concat", "k", "a", "b", axis=1),
        node("Add", "s", "k", "c"),
        layer("Conv", "d", "s"),
    ]
    made = case(weights, nodes, {})
    plan, _ = grown_graph(made.graph, random_arrays(made.header), {"widen": "c", "factor": 1.5})
    assert plan.steps[0].widths == {"a": (1, 2), "b": (3, 5)}


def test_the_same_size_is_left_alone_with_a_warning():
    student = tiny({"widen": "0", "to": 6}, {"widen": "2", "factor": 1.0})
    told = [warning for step in student.plan.steps for warning in step.warnings]
    assert told == [
        "0 has 6 channels already: nothing to do",
        "2 has 7 channels already: nothing to do",
    ]
    state = random_state(TINY)
    assert all(torch.equal(student.tensors[key], state[key]) for key in state)


def test_part_of_the_runs_of_a_group_is_widened_as_asked():
    weights = {"a": (2, 3, 1, 1), "c": (4, 3, 1, 1), "g": (4, 3, 1, 1), "b": (2, 4, 1, 1)}
    nodes = [
        layer("Conv", "a", "x"),
        layer("Conv", "c", "x"),
        node("Concat", "k", "a", "c", axis=1),
        layer("Conv", "g", "k", group=2),
        layer("Conv", "b", "g"),
    ]
    made = case(weights, nodes, {})
    tensors = random_arrays(made.header)
    plan, student = grown_graph(made.graph, tensors, {"widen": "a", "to": 5})
    assert student["a.w"].shape[0] == 5
    assert student["c.w"].shape[0] == 7  # the second run of the same length
    assert_same_function(made.graph, tensors, plan, student)


# Option A: stages are edges around one another


def test_widened_everywhere_an_option_a_student_loads_into_the_stock_class():
    assert_option_a({"widen": "*", "factor": 1.5}, widths=(24, 48, 96))


def test_option_a_in_three_steps():
    steps = [{"widen": f"layer{n}.*", "to": to} for n, to in ((1, 24), (2, 48), (3, 96))]
    assert_option_a(*steps, widths=(24, 48, 96))


def test_option_a_edges_alone():
    # the middle stays: 16 + 2 * 8 becomes 16 + 2 * 12, and stage 3 carries it along
    student = assert_option_a({"widen": "layer2.*.conv2", "to": 40}, stock=False)
    assert student["layer1.0.conv2.weight"].shape[0] == 16
    assert student["layer3.0.conv2.weight"].shape[0] == 72


@pytest.mark.parametrize("to", [41, 49])
def test_option_a_edges_are_equal(to):
    with pytest.raises(SpecError, match=rf"grows in 2 equal parts, .*{to - 1 - 16}"):
        assert_option_a({"widen": "layer2.*.conv2", "to": to}, stock=False)


def test_option_a_inner_widths_and_blocks():
    student = assert_option_a(
        {"widen": "layer*.conv1", "factor": 1.5},
        {"deepen": "layer*", "blocks": 1},
        depths=(3, 3, 3),
    )
    assert student["layer2.0.conv1.weight"].shape[0] == 48


def assert_option_a(*steps, widths=(16, 32, 64), depths=(2, 2, 2), stock=True):
    """Returns the student's tensors without the wrapper's prefix, which the file keeps."""
    module, x = option_a(), images(3, 3, 16, 16)
    state = {f"module.{name}": each for name, each in random_state(module).items()}
    student = grown(state, *steps, options={"input": [3, 16, 16]})
    assert all(name.startswith("module.") for name in student.tensors)
    bare = {name.removeprefix("module."): each for name, each in student.tensors.items()}
    if stock:
        expected = outputs_of(module, random_state(module), x)
        deeper = option_a(widths, depths)
        assert deviation(expected, outputs_of(deeper, bare, x)) <= 1e-12
        if widths != (16, 32, 64):
            deeper.load_state_dict(bare, strict=True, assign=True)
    return bare


# What is copied and divided


@pytest.mark.parametrize("copies", ["even", "random"])
def test_copies(copies):
    student = tiny({"widen": "0", "to": 15, "copies": copies})
    rows = student.tensors["0.weight"]
    teacher = random_state(TINY)["0.weight"]
    assert torch.equal(rows[:6], teacher)
    counts = [int((rows == row).all(dim=1).sum()) for row in teacher]
    assert sum(counts) == 15
    assert (max(counts) - min(counts) <= 1) == (copies == "even")


def test_splits():
    teacher = random_state(TINY)["2.weight"].double()

    def shares(split):
        """Of the teacher's own channels: each has one copy, which gets the rest."""
        student = tiny({"widen": "0", "factor": 2, "split": split})
        return student.tensors["2.weight"].double()[:, :6] / teacher

    assert torch.allclose(shares("uniform"), torch.tensor(0.5).double(), atol=1e-6)
    select = shares("select")
    assert ((select == 0) | (select == 1)).all()
    assert 0 < select.mean() < 1
    per_channel = shares("per-channel")
    assert torch.allclose(per_channel, per_channel[:1].expand_as(per_channel), atol=1e-5)
    assert per_channel[0].std() > 0.05
    unequal = shares("unequal")
    assert unequal.std(dim=0).min() > 0.02
    assert unequal.std(dim=1).min() > 0.02
    assert ((unequal >= 0) & (unequal <= 1)).all()


def test_equal_shares_without_noise_are_warned_of():
    (step,) = tiny({"widen": "0", "factor": 2, "split": "uniform"}).plan.steps
    assert "stay identical in training" in step.warnings[0]
    noise = {"kind": "zero-sum"}
    (step,) = tiny({"widen": "0", "factor": 2, "split": "uniform", "noise": noise}).plan.steps
    assert step.warnings == ()


def test_zero_sum_noise_has_the_size_that_was_asked_for():
    state = random_state(mlp(20, 40, 50, 3))
    step = {"widen": "0", "factor": 2, "split": "uniform"}
    plain = grown(state, step).tensors["2.weight"]
    noisy = grown(state, {**step, "noise": {"kind": "zero-sum", "scale": 0.3}}).tensors["2.weight"]
    added = (noisy - plain).double()
    wanted = 0.3 * float(state["2.weight"].std())
    # what would leave the range in which shares are exact is clipped
    assert 0.6 * wanted < float(added.std()) < wanted


def test_gaussian_noise_is_approximate_and_spares_the_first_copies():
    noise = {"kind": "gaussian", "scale": 0.1}
    student = tiny({"widen": "0", "to": 600, "noise": noise})
    assert student.plan.preserves == "approximate"
    teacher = random_state(TINY)["0.weight"]
    rows = student.tensors["0.weight"]
    assert torch.equal(rows[:6], teacher)
    nearest = torch.cdist(rows[6:], teacher).argmin(dim=1)
    added = rows[6:] - teacher[nearest]
    assert float(added.std()) == pytest.approx(0.1 * float(teacher.std(correction=0)), rel=0.1)
    quiet = {name: recipe.quiet() for name, recipe in student.plan.draft.recipes.items()}
    assert all("gaussian" not in recipe.describe() for recipe in quiet.values())


# Rescaling


@pytest.mark.parametrize("rescale", [0.5, 2.0, 0.25])
def test_rescaling_is_exact(rescale):
    state, x = random_state(TINY), images(4, 5)
    student = grown(state, {"widen": "*", "to": 9, "rescale": rescale}, options=STATED)
    assert student.plan.preserves == "exact"
    assert deviation(outputs_of(TINY, state, x), outputs_of(TINY, student.tensors, x)) <= 1e-12
    changed = student.tensors["0.weight"][:6] / state["0.weight"]
    assert set(changed.unique().tolist()) == {rescale, 1.0}


def test_rescaling_a_sum_of_streams_is_exact():
    weights = {"a": (3, 3, 1, 1), "c": (3, 3, 1, 1), "b": (2, 3, 1, 1)}
    nodes = [
        layer("Conv", "a", "x"),
        layer("Conv", "c", "x"),
        node("Add", "s", "a", "c"),
        node("Relu", "r", "s"),
        layer("Conv", "b", "r"),
    ]
    made = case(weights, nodes, {})
    tensors = random_arrays(made.header)
    step = {"widen": "a", "factor": 2, "rescale": 0.5}
    plan, student = grown_graph(made.graph, tensors, step)
    assert_same_function(made.graph, tensors, plan, student)


@pytest.mark.parametrize(
    ("behind", "said"),
    [
        (node("Tanh", "r", "a"), "r is Tanh"),
        (node("Add", "r", "a", "one"), "r is Add"),
        (node("Sub", "r", "one", "a"), "r is Sub"),
        (node("Clip", "r", "a", "one"), "r is Clip"),
        (node("Mul", "r", "a", "a"), "r is Mul"),
        (node("Mul", "r", "a", "k"), "r is Mul"),
        (node("Pad", "r", "a", "sides", "one"), "r is Pad"),
    ],
)
def test_rescaling_needs_what_scales_along(behind, said):
    made = case(
        {"a": (3, 3, 1, 1), "b": (2, 3, 1, 1)},
        [layer("Conv", "a", "x"), behind, layer("Conv", "b", "r")],
        {},
        one=(1.0, "float32"),
        k=([[[1.0]], [[2.0]], [[-3.0]]], "float32"),
        sides=ints(0, 0, 1, 1, 0, 0, 1, 1),
    )
    step = {"widen": "a", "factor": 2, "rescale": 0.5}
    with pytest.raises(SpecError, match=rf"rescale needs f\(a x\) = a f\(x\) .* {said}"):
        grown_graph(made.graph, random_arrays(made.header), step)


def test_rescaling_is_refused_before_batch_norm():
    with pytest.raises(SpecError, match="BatchNormalization; leave rescale out"):
        assert_option_a({"widen": "layer1.0.conv1", "factor": 2, "rescale": 0.5})


@pytest.mark.parametrize("rescale", [0.3, 3.0, 1.5])
def test_rescaling_by_what_rounds_is_refused(rescale):
    with pytest.raises(SpecError, match="use a power of two"):
        tiny({"widen": "0", "factor": 2, "rescale": rescale}, options=STATED)


def test_rescaling_is_refused_on_a_guessed_activation():
    with pytest.raises(SpecError, match="exact only if the activation is relu, which is a guess"):
        tiny({"widen": "0", "factor": 2, "rescale": 0.5})


@pytest.mark.parametrize("rescale", [2.0**-5, 2.0**-140, 32.0])
def test_rescaling_beyond_the_range_of_formats_is_refused(rescale):
    with pytest.raises(SpecError, match="use a power of two from 1/16 to 16"):
        tiny({"widen": "0", "factor": 2, "rescale": rescale}, options=STATED)


# Deepening


def test_a_deepened_mlp_is_the_same_function():
    state, x = random_state(TINY), images(4, 5)
    student = grown(state, {"deepen": "2"}, {"deepen": "0", "layers": 2}, options=STATED)
    deeper = mlp(5, 6, 6, 6, 7, 7, 3)
    assert deviation(outputs_of(TINY, state, x), outputs_of(deeper, student.tensors, x)) == 0.0
    assert torch.equal(student.tensors["2.weight"], torch.eye(6))
    assert student.tensors["4.bias"].count_nonzero() == 0


def test_new_layers_can_be_widened_and_deepened_again():
    state, x = random_state(TINY), images(4, 5)
    steps = (
        {"deepen": "0"},
        {"widen": "2", "factor": 2},
        {"deepen": "2", "layers": 1},
        {"widen": ["0", "4"], "factor": 1.5},
    )
    student = grown(state, *steps, options=STATED)
    deeper = mlp(5, 9, 12, 18, 7, 3)
    assert deviation(outputs_of(TINY, state, x), outputs_of(deeper, student.tensors, x)) <= 1e-12


def test_steps_in_either_order_are_both_the_same_function():
    module, x = option_a((8, 16, 32), (1, 1, 1)), images(2, 3, 16, 16)
    state = random_state(module)
    deepen, widen = {"deepen": "layer1", "blocks": 1}, {"widen": "layer1.*.conv1", "to": 12}
    deeper = option_a((8, 16, 32), (2, 1, 1))
    expected = outputs_of(module, state, x)
    for steps, width in (((deepen, widen), 12), ((widen, deepen), 12)):
        student = grown(state, *steps, options={"input": [3, 16, 16]})
        assert student.tensors["layer1.1.conv1.weight"].shape[0] == width
        assert deviation(expected, outputs_of(deeper, student.tensors, x)) <= 1e-12


def test_several_layers_are_deepened_at_once():
    student = tiny({"deepen": ["0", "2"]}, options=STATED)
    shapes = [tuple(student.tensors[f"{2 * n}.weight"].shape) for n in range(5)]
    assert shapes == [(6, 5), (6, 6), (7, 6), (7, 7), (3, 7)]
    assert student.plan.draft.renames["4.weight"] == "8.weight"
    assert student.plan.new_tensors == ("2.weight", "2.bias", "6.weight", "6.bias")


# Refusals


@pytest.mark.parametrize(
    ("steps", "options", "said"),
    [
        ([{"widen": "0", "to": 5}], {}, "0 has 6 channels and cannot shrink to 5"),
        ([{"widen": "0", "factor": 0.5}], {}, "cannot shrink to 3; ckgrow only grows"),
        ([{"widen": "4", "by": 1}], {}, "4 cannot be widened: graph output"),
        ([{"widen": "3", "by": 1}], {}, "3 matches no layer"),
        ([{"widen": "[13]", "by": 1}], {}, "matches no layer"),
        ([{"widen": "[4]", "by": 1}], {}, "nothing that the pattern matches can be widened"),
        ([{"widen": "0", "by": 1, "method": "net2widr"}], {}, "did you mean 'net2wider'"),
        ([{"widen": "0", "by": 1, "method": "net2deeper"}], {}, "no method 'net2deeper' to widen"),
        ([{"deepen": "0", "method": "symmetric"}], {}, "no method 'symmetric' to deepen a layer"),
        ([{"deepen": "0"}], {}, "exact only if the activation is relu, which is a guess"),
        ([{"deepen": "0"}], {"activation": "tanh"}, "Tanh is not idempotent"),
        ([{"deepen": "0"}], {"activation": "silu"}, "Sigmoid . Mul is not idempotent"),
        ([{"deepen": "layer1", "blocks": 1}], {}, "this network has no stages"),
        ([{"deepen": "layr", "layers": 1}], STATED, "layr matches no layer or stage"),
    ],
)
def test_refusals(steps, options, said):
    with pytest.raises(SpecError, match=f"^step 1: .*{said}"):
        tiny(*steps, options=options)


def test_a_step_on_what_an_earlier_one_moved_away_is_refused():
    with pytest.raises(SpecError, match=r"^step 2: 9 matches no layer"):
        tiny({"deepen": "0"}, {"widen": "9", "by": 1}, options=STATED)


def test_a_glob_skips_what_cannot_grow_and_lists_it():
    (step,) = tiny({"widen": "*", "factor": 2}).plan.steps
    assert step.matched == ("0", "2")
    assert list(step.skipped) == ["4"]
    assert "graph output" in step.skipped["4"]


def test_a_pattern_without_a_match_names_the_nearest():
    with pytest.raises(SpecError, match=r"layer1\.0\.covn1 matches no layer; .* layer1\.0\.conv1"):
        assert_option_a({"widen": "layer1.0.covn1", "factor": 2})


def test_layers_of_one_group_need_one_target():
    made = case(
        {"a": (3, 3, 1, 1), "g": (6, 1, 3, 3), "b": (2, 6, 1, 1)},
        [layer("Conv", "a", "x"), layer("Conv", "g", "a", group=3), layer("Conv", "b", "g")],
        {},
    )
    tensors = random_arrays(made.header)
    with pytest.raises(SpecError, match=r"g and a share .* want 6 and 12 .* give them one target"):
        grown_graph(made.graph, tensors, {"widen": "*", "to": 12})
    plan, _ = grown_graph(made.graph, tensors, {"widen": "*", "factor": 1.5})
    assert plan.header.shape("g.w")[0] == 2 * plan.header.shape("a.w")[0] == 10


def test_inner_stages_leave_no_room_for_smaller_outer_ones():
    with pytest.raises(SpecError, match=r"would leave 0 of the 16 channels .* only grows"):
        assert_option_a({"widen": "layer[12].*.conv2", "to": 33})


def test_convolution_groups_grow_alike():
    made = case(
        {"a": (6, 3, 1, 1), "g": (4, 3, 3, 3), "b": (2, 4, 1, 1)},
        [layer("Conv", "a", "x"), layer("Conv", "g", "a", group=2), layer("Conv", "b", "g")],
        {},
    )
    tensors = random_arrays(made.header)
    with pytest.raises(SpecError, match=r"7 channels do not divide by 2; the nearest .* 6 and 8"):
        grown_graph(made.graph, tensors, {"widen": "a", "to": 7})
    plan, _ = grown_graph(made.graph, tensors, {"widen": "a", "to": 7, "multiple_of": 1})
    assert plan.header.shape("a.w")[0] == 8


@pytest.mark.parametrize("kernel", [(2, 2), (1, 2)])
def test_even_kernels_have_no_centre(kernel):
    made = case({"a": (3, 3, *kernel)}, [layer("Conv", "a", "x")], {})
    with pytest.raises(SpecError, match="has no centre"):
        grown_graph(made.graph, random_arrays(made.header), {"deepen": "a"})


def test_rectangular_grouped_and_strided_layers_are_deepened():
    weights = {"a": (4, 3, 1, 7), "g": (4, 2, 3, 1), "d": (8, 1, 3, 3), "b": (6, 48)}
    nodes = [
        layer("Conv", "a", "x", pads=(0, 3, 0, 3)),
        node("Relu", "r", "a"),
        layer("Conv", "g", "r", group=2, strides=(2, 1), dilations=(1, 2), pads=(1, 0, 1, 0)),
        node("Clip", "c", "g", "low", "high"),
        layer("Conv", "d", "c", group=4, pads=(1, 1, 1, 1), strides=(1, 2)),
        node("Reshape", "f", "d", "flat"),
        layer("Gemm", "b", "f", transB=1),
    ]
    bounds = {"low": (0.0, "float32"), "high": (6.0, "float32")}
    made = case(weights, nodes, {}, flat=ints(0, 48), **bounds)
    tensors = random_arrays(made.header)
    for name in ("a", "g", "d", "b"):
        step = {"deepen": name, "layers": 2}
        plan, student = grown_graph(made.graph, tensors, step)
        assert plan.steps[0].added == (f"{name}_grown1", f"{name}_grown2")
        assert_same_function(made.graph, tensors, plan, student, bound=0.0)
        steps = (step, {"widen": "*", "factor": 2})
        plan, student = grown_graph(made.graph, tensors, *steps)
        assert_same_function(made.graph, tensors, plan, student)


def test_weights_with_inputs_first_are_widened_time_and_again():
    weights = {"a": (3, 4), "b": (4, 5), "c": (5, 2)}
    nodes = [layer("MatMul", "a", "x"), layer("MatMul", "b", "a"), layer("MatMul", "c", "b")]
    made = case(weights, nodes, {}, x=(3,))
    tensors = random_arrays(made.header)
    steps = [
        {"widen": "*", "by": 1, "split": split, "copies": "random"}
        for split in ("select", "uniform", "unequal", "per-channel", "select", "unequal")
    ]
    plan, student = grown_graph(made.graph, tensors, *steps)
    assert student["b.w"].shape == (10, 11)
    assert_same_function(made.graph, tensors, plan, student)


# Files


def test_the_same_bytes_whatever_the_workers(tmp_path):
    state = random_state(option_a())
    steps = [
        {"widen": "*", "factor": 1.5, "noise": {"kind": "zero-sum"}},
        {"deepen": "layer2", "blocks": 1},
    ]
    given = {"seed": 3, "teacher": {"options": {"input": [3, 16, 16]}}, "steps": steps}
    written = []
    for number, workers in enumerate((1, 2, 1, 2)):
        path = tmp_path / f"{number}.safetensors"
        done = ckgrow.apply(state, given, path, workers=workers, check=number == 0)
        assert done.status == "written"
        written.append(path.read_bytes())
    assert len(set(written)) == 1
    other = tmp_path / "other.safetensors"
    ckgrow.apply(state, {**given, "seed": 4}, other, check=False)
    assert other.read_bytes() != written[0]


def test_a_student_of_a_student(tmp_path):
    state, x = random_state(TINY), images(4, 5)
    first, second = tmp_path / "first.safetensors", tmp_path / "second.safetensors"
    stated = {"options": STATED}
    ckgrow.apply(
        state,
        {"teacher": stated, "steps": [{"widen": "0", "factor": 2}, {"deepen": "2"}]},
        first,
    )
    ckgrow.apply(first, {"steps": [{"deepen": "2"}, {"widen": "2", "by": 3}]}, second)
    from safetensors.torch import load_file

    student = load_file(second)
    deeper = mlp(5, 12, 10, 7, 7, 3)
    assert deviation(outputs_of(TINY, state, x), outputs_of(deeper, student, x)) <= 1e-12
    assert ckgrow.verify(state, second, options=STATED).preserved
    assert len(ckgrow.inspect(second).lineage) == 2


@pytest.mark.parametrize("dtype", ["float64", "float16"])
def test_other_dtypes_are_divided_exactly(dtype):
    state = {name: each.to(getattr(torch, dtype)) for name, each in random_state(TINY).items()}
    student = grown(state, {"widen": "*", "factor": 2.5, "noise": {"kind": "zero-sum"}})
    x = images(4, 5)
    assert {str(each.dtype) for each in student.tensors.values()} == {f"torch.{dtype}"}
    assert deviation(outputs_of(TINY, state, x), outputs_of(TINY, student.tensors, x)) <= 1e-12


def test_weights_that_are_not_finite_do_not_crash():
    state = random_state(TINY)
    state["2.weight"][0, 0] = float("nan")
    state["2.weight"][1, 1] = float("inf")
    student = grown(state, {"widen": "0", "factor": 2})
    assert not torch.isfinite(student.tensors["2.weight"][:2]).all()
    assert torch.isfinite(student.tensors["2.weight"][2:]).all()


@pytest.mark.parametrize(
    "step",
    [
        {"widen": "0", "to": 2**31},
        {"widen": "*", "by": 2**20},
        {"widen": "2", "by": 1, "multiple_of": 2**31},
    ],
)
def test_absurd_widths_are_refused(step):
    with pytest.raises(SpecError, match="grows a layer to 1048576 at most"):
        tiny(step)


def test_rescaling_is_refused_in_float16():
    state = {name: tensor.half() for name, tensor in random_state(TINY).items()}
    with pytest.raises(SpecError, match="round small weights in float16"):
        grown(state, {"widen": "0", "factor": 2, "rescale": 0.5}, options=STATED)


def test_blocks_inserted_twice_into_one_stage_keep_every_name():
    """The second insertion moves the first one's block; the teacher's own keys stay known."""
    steps = [
        {"deepen": "layer1", "blocks": 1},
        {"deepen": "layer1", "blocks": 1, "after": 1},
    ]
    document = ckgrow.plan(TEACHERS / "resnet.safetensors", {"steps": steps})
    new = {name.split(".conv")[0] for name in document.new_tensors if ".conv" in name}
    assert new == {"layer1.1", "layer1.3"}
    assert document.renames["layer1.1.conv1.weight"] == "layer1.2.conv1.weight"
    assert "layer1.0.conv1.weight" not in document.renames


def test_layers_inserted_twice_into_one_sequential_keep_every_name():
    steps = [{"deepen": "0"}, {"deepen": "0"}]
    spec = {"teacher": {"options": STATED}, "steps": steps}
    document = ckgrow.plan(TEACHERS / "mlp.safetensors", spec)
    assert {name.partition(".")[0] for name in document.new_tensors} == {"2", "4"}
    assert document.renames["2.weight"] == "6.weight"
    assert document.renames["4.weight"] == "8.weight"


def test_fill_means_nothing_for_a_layer_and_is_refused():
    said = r"net2deeper does not read 'fill', which is for .*zero-init; its own keys are calibrate"
    with pytest.raises(SpecError, match=said):
        tiny({"deepen": "0", "fill": "he"}, options=STATED)
