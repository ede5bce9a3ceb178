"""Network Morphism's deepening: one layer factored into two dense ones, nothing else changed."""

from __future__ import annotations

import math
import threading

import numpy as np
import pytest
import torch
from student_oracles import (
    MemoryReader,
    Student,
    arrays_of,
    assert_same_function,
    deviation,
    grown,
    grown_graph,
    images,
    outputs_of,
    random_arrays,
    random_state,
)
from test_coupling import case, layer, node
from torch import nn

import ckgrow
from ckgrow import spec
from ckgrow.errors import SpecError
from ckgrow.header import TensorSpec
from ckgrow.loading import Wish, load
from ckgrow.measuring import Measuring
from ckgrow.planning import make_plan
from ckgrow.random import Stream
from ckgrow.recipes import Mixed, Mixing, Stored, Unmixed

TANH = {"options": {"activation": "tanh"}}
BARE = {"method": "netmorph"}
LEARNING = {"method": "netmorph", "activation": "p-activation"}


def dtyped(state, dtype):
    return {
        name: each.to(dtype) if each.is_floating_point() else each for name, each in state.items()
    }


class Tanh(nn.Module):
    """A network that no identity layer fits into: tanh(tanh(x)) is not tanh(x)."""

    def __init__(self, middle: nn.Module | None = None, slope: bool = False) -> None:
        super().__init__()
        self.fc1, self.fc2, self.fc3 = nn.Linear(5, 8), nn.Linear(8, 6), nn.Linear(6, 3)
        if slope:
            self.fc2_prelu_grown1 = nn.PReLU()
        if middle is not None:
            self.fc2_grown1 = middle
        self.slope = slope

    def forward(self, x):
        x = self.fc2(self.fc1(x).tanh())
        if self.slope:
            x = self.fc2_prelu_grown1(x)
        if hasattr(self, "fc2_grown1"):
            x = self.fc2_grown1(x)
        return self.fc3(x.tanh())


@pytest.mark.parametrize("options", [BARE, LEARNING])
@pytest.mark.parametrize(("dtype", "bound"), [(torch.float32, 3e-7), (torch.float64, 1e-14)])
def test_a_layer_before_a_tanh_becomes_two(options, dtype, bound):
    state, x = dtyped(random_state(Tanh()), dtype), images(16, 5)
    student = grown(state, {"deepen": "fc2", **options}, **TANH)
    learning = "activation" in options
    found = outputs_of(Tanh(nn.Linear(6, 6), learning), student.tensors, x)
    measured = deviation(outputs_of(Tanh(), state, x), found)
    assert student.plan.preserves == "rounded"
    assert 0 < measured <= min(bound, 64 * student.plan.defect)
    if dtype is torch.float32:  # in float64 it is torch's own arithmetic that is measured
        assert student.plan.defect < 1000 * measured
    assert (student.tensors["fc2_grown1.bias"] == 0).all()
    assert torch.equal(student.tensors["fc1.weight"], state["fc1.weight"])
    if learning:
        assert student.tensors["fc2_prelu_grown1.weight"].tolist() == [1.0]


def test_both_factors_are_dense_and_none_is_the_teachers_weight():
    state = random_state(Tanh())
    student = grown(state, {"deepen": "fc2", **BARE}, **TANH)
    factor, rest = student.tensors["fc2_grown1.weight"], student.tensors["fc2.weight"]
    assert factor.shape == (6, 6)
    assert (factor != 0).all()
    assert not torch.isclose(rest, state["fc2.weight"]).any()
    product = factor.double() @ rest.double()
    assert torch.allclose(product, state["fc2.weight"].double(), atol=1e-7)
    singular = torch.linalg.svdvals(factor.double())
    assert singular.max() / singular.min() < 1.1


@pytest.mark.parametrize("options", [BARE, LEARNING])
def test_in_a_container_later_numbers_move_up(options):
    made = case(
        {"features.0.w": (8, 3, 3, 3), "features.3.w": (8, 4, 1, 1)},
        [
            layer("Conv", "features.0", "x", strides=(2, 2), pads=(1, 1, 1, 1)),
            node("Tanh", "features.1", "features.0"),
            layer("Conv", "features.3", "features.1", group=2),
        ],
        {},
    )
    tensors = random_arrays(made.header)
    plan, student = grown_graph(made.graph, tensors, {"deepen": "features.0", **options})
    learning = "activation" in options
    names = ["features.0.w", "features.1.w", "features.4.w"]
    if learning:
        names = ["features.0.w", "features.1.weight", "features.2.w", "features.5.w"]
    assert sorted(student) == names
    assert_same_function(made.graph, tensors, plan, student, bound=3e-7)


def test_grouped_convolutions_get_a_factor_of_the_same_groups():
    module = nn.Sequential(nn.Conv2d(4, 12, 3, groups=2), nn.Tanh(), nn.Conv2d(12, 3, 1))
    deeper = nn.Sequential(module[0], nn.Conv2d(12, 12, 1, groups=2), *list(module)[1:])
    made = case(
        {"0.weight": (12, 2, 3, 3), "0.bias": (12,), "2.weight": (3, 12, 1, 1), "2.bias": (3,)},
        [
            node("Conv", "0", "x", "0.weight", "0.bias", group=2),
            node("Tanh", "1", "0"),
            node("Conv", "2", "1", "2.weight", "2.bias"),
        ],
        {},
        x=(4, 6, 6),
    )
    tensors = random_arrays(made.header)
    _, student = grown_graph(made.graph, tensors, {"deepen": "0", **BARE})
    assert student["1.weight"].shape == (12, 6, 1, 1)
    assert (student["1.weight"] != 0).all()
    assert not np.array_equal(student["1.weight"][:6], student["1.weight"][6:])
    x = images(4, 4, 6, 6)
    before = outputs_of(module, {n: torch.from_numpy(a.copy()) for n, a in tensors.items()}, x)
    after = outputs_of(deeper, {n: torch.from_numpy(a) for n, a in student.items()}, x)
    assert 0 < deviation(before, after) <= 3e-7


def test_weights_with_inputs_first_and_products_without_bias():
    made = case(
        {"a.w": (3, 8), "b.w": (8, 5)},
        [
            node("Flatten", "f", "x"),
            node("Gemm", "a", "f", "a.w", alpha=0.5),
            node("Sigmoid", "s", "a"),
            node("MatMul", "b", "s", "b.w"),
        ],
        {},
        x=(3,),
    )
    tensors = random_arrays(made.header)
    plan, student = grown_graph(made.graph, tensors, {"deepen": ["a", "b"], **LEARNING})
    assert student["a_grown1.w"].shape == (8, 8)
    assert student["b_grown1.w"].shape == (5, 5)
    assert_same_function(made.graph, tensors, plan, student, bound=3e-7)


def test_several_factors_and_later_steps_on_them():
    state, x = random_state(Tanh()), images(16, 5)
    student = grown(
        state,
        {"deepen": "fc2", "layers": 3, **LEARNING},
        {"widen": "fc2", "factor": 2, "method": "r2wider"},
        {"widen": "fc1", "to": 11},
        **TANH,
    )
    before = outputs_of(Tanh(), state, x)

    def forward(x):
        t = {name: each.double() for name, each in student.tensors.items()}
        for name in ("fc1", "fc2", "fc2_grown1", "fc2_grown2", "fc2_grown3", "fc3"):
            x = x @ t[f"{name}.weight"].T + t[f"{name}.bias"]
            x = x.tanh() if name in ("fc1", "fc2_grown3") else x
        return x

    assert student.tensors["fc2.weight"].shape == (12, 11)
    assert deviation(before, (forward(x.double()),)) <= 1e-6
    assert student.plan.defect == pytest.approx(3 * grown_defect(state), rel=0.01)


def grown_defect(state):
    return grown(state, {"deepen": "fc2", **LEARNING}, **TANH).plan.defect


@pytest.mark.parametrize(("dtype", "bound"), [(torch.float16, 1e-2), (torch.bfloat16, 5e-2)])
def test_half_precision_is_approximate_and_quiet_without_the_factor(dtype, bound):
    state, x = dtyped(random_state(Tanh()), dtype), images(16, 5)
    step = {"deepen": "fc2", **BARE}
    student = grown_bytes(state, step)
    assert student.plan.preserves == "approximate"
    before = outputs_of(Tanh(), state, x)
    off = deviation(before, outputs_of(Tanh(nn.Linear(6, 6)), student.tensors, x))
    assert 1e-5 < off < bound
    quiet = {name: recipe.quiet() for name, recipe in student.plan.draft.recipes.items()}
    made = arrays_of(quiet, state)
    assert (made["fc2_grown1.weight"].astype(np.float32) == np.eye(6)).all()
    assert (made["fc2.weight"].astype(np.float32) == state["fc2.weight"].float().numpy()).all()


def test_a_factor_that_rounds_stays_where_another_step_is_made_quiet():
    state, x = random_state(Tanh()), images(16, 5)
    noisy = {"widen": "fc1", "by": 2, "noise": {"kind": "gaussian"}}
    student = grown(state, {"deepen": "fc2", **BARE}, noisy, **TANH)
    assert student.plan.preserves == "approximate"
    quiet = {name: recipe.quiet() for name, recipe in student.plan.draft.recipes.items()}
    made = arrays_of(quiet, {name: each.numpy() for name, each in state.items()})
    assert np.array_equal(made["fc2_grown1.weight"], student.tensors["fc2_grown1.weight"].numpy())
    assert (made["fc2_grown1.weight"] != 0).all()

    def forward(x):
        t = {name: torch.from_numpy(each).double() for name, each in made.items()}
        for name in ("fc1", "fc2", "fc2_grown1", "fc3"):
            x = x @ t[f"{name}.weight"].T + t[f"{name}.bias"]
            x = x.tanh() if name in ("fc1", "fc2_grown1") else x
        return x

    assert 0 < deviation(outputs_of(Tanh(), state, x), (forward(x.double()),)) <= 3e-7


def test_weight_and_bias_of_two_dtypes_are_quiet_together():
    state, x = random_state(Tanh()), images(16, 5)
    state["fc2.bias"] = state["fc2.bias"].half()
    student = grown(state, {"deepen": "fc2", **BARE}, **TANH)
    assert student.plan.preserves == "approximate"
    quiet = {name: recipe.quiet() for name, recipe in student.plan.draft.recipes.items()}
    made = arrays_of(quiet, {name: each.numpy() for name, each in state.items()})
    tensors = {name: torch.from_numpy(each) for name, each in made.items()}
    after = outputs_of(Tanh(nn.Linear(6, 6)), tensors, x)
    assert deviation(outputs_of(Tanh(), state, x), after) <= 1e-12


def grown_bytes(state, step):
    """Students in float16 or bfloat16, in float32 arrays: torch takes no bfloat16 from numpy."""
    plan = planned(state, step)
    made = arrays_of(plan.draft.recipes, state)
    return Student(plan, {k: torch.from_numpy(v.astype(np.float32)) for k, v in made.items()})


def planned(state, step):
    read = spec.from_dict({"steps": [step], "teacher": TANH})
    with load(state, Wish(read.teacher.architecture, read.teacher.options)) as loaded:
        return make_plan(loaded, read)


# The matrix itself


@pytest.mark.parametrize(("width", "columns"), [(1, 3), (2, 2), (3, 7), (64, 9), (300, 50_000)])
def test_the_factor_is_stored_exactly_and_the_defect_bounds_what_is_rounded(width, columns):
    weight = TensorSpec("float32", (width, columns))
    mixing = Mixing.of(weight, 0, 1, Stream("test"))
    assert mixing.directions * columns * 8 <= 1 << 25
    teacher = {"w": np.random.default_rng(0).standard_normal(weight.shape).astype(np.float32)}
    reading = Measuring(MemoryReader(teacher).read, threading.Event())
    factor = Mixed(TensorSpec("float32", (width, width)), mixing).rows(np.arange(width), reading)
    vectors = mixing.vectors(0)
    assert (factor == np.eye(width) - 2 * vectors @ vectors.T).all()
    assert np.linalg.cond(factor.astype(np.float64)) < 1.3
    solved = Unmixed(Stored(weight, "w"), 0, mixing).rows(np.arange(width), reading)
    product = factor.astype(np.float64) @ solved.astype(np.float64)
    off = np.linalg.norm(product - teacher["w"]) / np.linalg.norm(teacher["w"])
    assert off <= mixing.defect("float32") < 3e-7
    assert off > 0 or width == 1
    off_diagonal = factor[~np.eye(width, dtype=bool)]
    assert (off_diagonal != 0).all()
    if width > 64:
        size = 2 * math.sqrt(mixing.directions * (1 - mixing.directions / width)) / width
        assert np.sqrt((off_diagonal**2).mean()) == pytest.approx(size, rel=0.1)


@pytest.mark.parametrize(
    ("shape", "axis", "groups"),
    [((402, 5, 3, 3), 0, 3), ((300, 3000), 0, 1), ((300, 131), 1, 1), ((131,), 0, 1)],
)
def test_tiles_of_any_rows_agree_to_the_last_bit(shape, axis, groups):
    weight = TensorSpec("float64", shape)
    teacher = {"w": np.random.default_rng(0).standard_normal(shape)}
    mixing = Mixing.of(weight, axis, groups, Stream("test"))
    recipe = Unmixed(Stored(weight, "w"), axis, mixing)
    reading = Measuring(MemoryReader(teacher).read, threading.Event())
    rows = np.arange(shape[0])
    whole = recipe.rows(rows, reading)
    for size in (1, 7, 100):
        tensor = reading.tensor()
        tiles = np.split(rows, rows[size::size])
        parts = [recipe.rows(tile, tensor) for tile in tiles]
        assert np.array_equal(np.concatenate(parts), whole)
    chosen = np.array([130, 2, 2, 5])
    assert np.array_equal(recipe.rows(chosen, reading), whole[chosen])


# Refusals


def refused(weights, nodes, step, **arguments):
    made = case(weights, nodes, {}, **arguments)
    tensors = random_arrays(made.header)
    with pytest.raises(SpecError) as failure:
        grown_graph(made.graph, tensors, step)
    return str(failure.value)


def test_depthwise_convolutions_are_refused():
    nodes = [layer("Conv", "d", "x", group=3), layer("Conv", "p", "d")]
    said = refused({"d.w": (6, 1, 3, 3), "p.w": (4, 6, 1, 1)}, nodes, {"deepen": "d", **BARE})
    assert said.startswith("step 1: netmorph behind d: its 3 groups")
    assert "deepen the pointwise convolution" in said


def test_shared_weights_are_refused():
    nodes = [
        node("Conv", "a", "x", "a.w"),
        node("Tanh", "t", "a"),
        node("Conv", "b", "t", "a.w"),
    ]
    said = refused({"a.w": (3, 3, 1, 1)}, nodes, {"deepen": "a", **BARE})
    assert "a.w is read by a and b" in said


def test_whole_numbers_are_refused():
    made = case({"a.w": (3, 3, 1, 1)}, [layer("Conv", "a", "x")], {})
    tensors = {"a.w": np.ones((3, 3, 1, 1), np.int32)}
    with pytest.raises(SpecError, match=r"a\.w is int32, which cannot be divided"):
        grown_graph(made.graph, tensors, {"deepen": "a", **BARE})


def test_keys_it_does_not_read_are_refused():
    with pytest.raises(SpecError, match="netmorph does not read 'fill'"):
        grown(random_state(Tanh()), {"deepen": "fc2", **BARE, "fill": "he"}, **TANH)


def test_the_plan_says_what_becomes_of_the_teachers_weights():
    (step,) = grown(random_state(Tanh()), {"deepen": "fc2", **BARE}, **TANH).plan.steps
    kept, linear = step.warnings
    assert "not kept in the student" in kept
    assert "activation: p-activation" in linear


def test_net2deeper_names_what_fits_instead():
    with pytest.raises(
        SpecError,
        match=r"net2deeper behind fc2: Tanh is not idempotent.*netmorph with a p-activation, or",
    ):
        grown(random_state(Tanh()), {"deepen": "fc2"}, **TANH)


@pytest.mark.parametrize("options", [BARE, LEARNING])
def test_a_module_takes_the_factors_in(tmp_path, options):
    chain = nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.Linear(8, 6), nn.Tanh(), nn.Linear(6, 3))
    chain.load_state_dict(random_state(chain))
    torch.save(chain.state_dict(), tmp_path / "teacher.pt")
    x = images(9, 5).double()
    before = chain.double()(x).detach()
    wanted = {"teacher": TANH, "steps": [{"deepen": "2", **options}]}
    ckgrow.apply(tmp_path / "teacher.pt", wanted, tmp_path / "student.safetensors")
    ckgrow.load_into(chain.float(), tmp_path / "student.safetensors")
    assert any(isinstance(each, nn.PReLU) for each in chain) == ("activation" in options)
    assert deviation((before,), (chain.double()(x).detach(),)) <= 3e-7
