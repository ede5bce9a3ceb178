"""The widening methods against the matrices by which they are defined."""

from __future__ import annotations

import threading

import numpy as np
import pytest
import torch
from student_oracles import deviation, grown, images, on_meta, outputs_of, random_state
from test_methods import STATED, mlp, option_a
from torch import nn

from ckgrow.errors import SpecError
from ckgrow.header import TensorSpec
from ckgrow.maps import ChannelMap
from ckgrow.measuring import Measuring
from ckgrow.memory import MemoryReader
from ckgrow.random import Stream
from ckgrow.recipes import Disturbance, Divided, Statistic, Stored

NET = mlp(5, 6, 4, 3)
STATE = random_state(NET)
BOTH = ["0", "2"]
"""Layers that make the rows and the columns of 2.weight, which has 4 rows and 6 columns."""


def weights(**step):
    student = grown(STATE, {"widen": BOTH, "factor": 2, **step}, options=STATED)
    return {name: each.numpy() for name, each in student.tensors.items()}


def teacher(name):
    return STATE[name].numpy()


def block(rows):
    return np.block([[np.asarray(each, np.float32) for each in row] for row in rows])


def zeros(*shape):
    return np.zeros(shape, np.float32)


W = teacher("2.weight")


def test_the_worked_example_of_net2net():
    """Figure 2: h2 is copied with its weights b and d, and its outgoing weight f is halved."""
    a, b, c, d, e, f = 0.5, -1.25, 2.0, 0.75, 3.0, -1.5
    module = on_meta(
        lambda: nn.Sequential(nn.Linear(2, 2, bias=False), nn.ReLU(), nn.Linear(2, 1, bias=False))
    )
    state = {"0.weight": torch.tensor([[a, c], [b, d]]), "2.weight": torch.tensor([[e, f]])}
    step = {"widen": "0", "to": 3, "split": "uniform"}
    found = set()
    for seed in range(10):
        student = grown(state, step, seed=seed)
        copied = int(student.plan.draft.origins["0"].map.sources[2])
        found.add(copied)
        if copied == 1:
            rows = [[a, c], [b, d], [b, d]]
            np.testing.assert_array_equal(student.tensors["0.weight"], np.array(rows))
            np.testing.assert_array_equal(student.tensors["2.weight"], [[e, f / 2, f / 2]])
        x = images(6, 2)
        assert deviation(outputs_of(module, state, x), outputs_of(module, student.tensors, x)) == 0
    assert found == {0, 1}


def test_symmetric_without_noise_is_blocks_of_half_the_weight():
    made = weights(method="symmetric", noise="none")
    np.testing.assert_array_equal(made["2.weight"], block([[W / 2, W / 2]] * 2))
    np.testing.assert_array_equal(made["0.weight"], block([[teacher("0.weight")]] * 2))
    np.testing.assert_array_equal(made["2.bias"], np.tile(teacher("2.bias"), 2))


def test_diagonal_without_noise_is_the_weight_on_the_diagonal():
    made = weights(method="diagonal", noise="none")
    nothing = zeros(*W.shape)
    np.testing.assert_array_equal(made["2.weight"], block([[W, nothing], [nothing, W]]))
    last = teacher("4.weight")  # it reads copies without making any
    np.testing.assert_array_equal(made["4.weight"], block([[last / 2, last / 2]]))


def test_diagonal_of_three_copies_that_read_two():
    step = {"method": "diagonal", "noise": "none"}
    student = grown(STATE, {"widen": "0", "factor": 2, **step}, {"widen": "2", "factor": 3, **step})
    # in two steps nothing grows along both axes, so that the first falls back to halves
    made = student.tensors["2.weight"].numpy()
    np.testing.assert_array_equal(made, block([[W / 2, W / 2]] * 3))
    together = {"widen": ["0", "2"], "factor": 3, **step}
    made = grown(STATE, together).tensors["2.weight"].numpy()
    nothing = zeros(*W.shape)
    expected = block([[W, nothing, nothing], [nothing, W, nothing], [nothing, nothing, W]])
    np.testing.assert_array_equal(made, expected)


def test_diagonal_copy_r_reads_copy_r_modulo_k():
    stream = on_meta(
        lambda: nn.Sequential(
            nn.Linear(3, 2), nn.ReLU(), nn.Linear(2, 4), nn.ReLU(), nn.Linear(4, 2)
        )
    )
    state = random_state(stream)
    steps = [
        {"widen": "0", "to": 4, "method": "diagonal", "noise": "none"},
        {"widen": ["0", "2"], "to": 8, "method": "diagonal", "noise": "none"},
    ]
    student = grown(state, *steps)
    half = state["2.weight"].numpy() / 2  # "4 2", by the first step
    nothing = zeros(4, 4)
    read = block([[half, half]])
    np.testing.assert_array_equal(
        student.tensors["2.weight"].numpy(), block([[read, nothing], [nothing, read]])
    )


def test_diagonal_falls_back_to_one_copy_each_at_random():
    made = weights(method="diagonal", noise="none", fallback="random")["4.weight"]
    last = teacher("4.weight")
    halves = made.reshape(3, 2, 4)
    np.testing.assert_array_equal(halves.sum(axis=1), last)
    assert ((halves == 0) | (halves == last[:, None])).all()
    assert 0 < (halves[:, 0] == 0).mean() < 1


@pytest.mark.parametrize("method", ["symmetric", "diagonal"])
def test_default_noise_sums_to_zero_and_has_a_third_of_the_deviation(method):
    wide = mlp(4, 60, 50, 3)
    state = random_state(wide)
    teachers = state["2.weight"].numpy().astype(np.float64)
    clean, noisy = (
        grown(state, {"widen": BOTH, "factor": 2, "method": method, **noise}).tensors["2.weight"]
        for noise in ({"noise": "none"}, {})
    )
    noise = noisy.double().numpy() - clean.double().numpy()
    # exactly zero: what a weight's copies get is the weight, to the last bit
    sums = noisy.double().numpy().reshape(100, 2, 60).sum(axis=1)
    np.testing.assert_array_equal(sums, np.tile(teachers, (2, 1)))
    # less than was asked for, since what would leave the range of exact shares is clipped
    assert 0.6 * 0.3 < noise.std() / teachers.std() < 0.3


@pytest.mark.parametrize(("method", "share"), [("symmetric", 1 / 2), ("diagonal", 1 / np.sqrt(2))])
def test_the_plan_prints_the_signal_to_noise_ratio(method, share):
    step = {"widen": BOTH, "factor": 2, "method": method, "noise": {"snr_db": 20}}
    said = grown(STATE, step).plan.draft.recipes["2.weight"].describe()
    assert "signal to noise 20.0 dB or more" in said
    assert f"{share / 10:.3g} deviations" in said


def test_r2wider_pairs_cancel():
    made = weights(method="r2wider")
    first, second = made["0.weight"][6:9], made["0.weight"][9:]
    np.testing.assert_array_equal(made["0.weight"][:6], teacher("0.weight"))
    np.testing.assert_array_equal(first, second)
    assert len(np.unique(first)) == first.size
    np.testing.assert_array_equal(made["0.bias"][6:], 0)
    np.testing.assert_array_equal(made["2.weight"][:4, :6], W)
    np.testing.assert_array_equal(made["2.weight"][:, 6:9], -made["2.weight"][:, 9:])
    # rows of a pair weigh the teacher's units equally, pairs of columns as they like
    np.testing.assert_array_equal(made["2.weight"][4:6, :6], made["2.weight"][6:, :6])
    assert made["2.weight"][:, 6:9].std() == pytest.approx(W.std(), rel=0.3)


def test_r2wider_scale_is_of_what_reads_the_pairs():
    large, small = (weights(method="r2wider", scale=scale) for scale in (1.0, 0.25))
    np.testing.assert_allclose(small["4.weight"][:, 4:], large["4.weight"][:, 4:] / 4, rtol=1e-6)
    np.testing.assert_array_equal(small["0.weight"], large["0.weight"])


def test_r2wider_copies_start_as_existing_rows():
    student = grown(STATE, {"widen": "0", "by": 4, "method": "r2wider", "fill": "copy"})
    made = student.tensors["0.weight"].numpy()
    rows = {tuple(row) for row in teacher("0.weight").tolist()}
    assert all(tuple(row) in rows for row in made[6:].tolist())
    biases = dict(zip(map(tuple, made.tolist()), student.tensors["0.bias"].tolist(), strict=True))
    for row, bias in zip(made[6:].tolist(), student.tensors["0.bias"][6:].tolist(), strict=True):
        assert biases[tuple(row)] == bias


@pytest.mark.parametrize("kind", ["zero-sum", "gaussian"])
def test_noise_on_pairs(kind):
    quiet = weights(method="r2wider")
    noisy = weights(method="r2wider", noise={"kind": kind, "scale": 0.1})
    if kind == "zero-sum":
        np.testing.assert_array_equal(noisy["2.weight"][:, 6:9], -noisy["2.weight"][:, 9:])
        assert (noisy["4.weight"][:, 4:] != quiet["4.weight"][:, 4:]).all()
    else:
        np.testing.assert_array_equal(noisy["0.weight"][:9], quiet["0.weight"][:9])
        assert (noisy["0.weight"][9:] != quiet["0.weight"][9:]).all()


def test_netmorph_zero_out():
    made = weights(method="netmorph")
    np.testing.assert_array_equal(made["2.weight"][:4], block([[W, zeros(4, 6)]]))
    np.testing.assert_array_equal(made["4.weight"], block([[teacher("4.weight"), zeros(3, 4)]]))
    assert (made["0.weight"][6:] != 0).all()
    assert (made["2.weight"][4:, :6] != 0).all()


def test_netmorph_zero_in_is_random_outside_and_told_dead():
    student = grown(
        STATE, {"widen": BOTH, "factor": 2, "method": "netmorph", "zero": "in"}, options=STATED
    )
    made = student.tensors["2.weight"].numpy()
    np.testing.assert_array_equal(student.tensors["0.weight"][6:], 0)
    np.testing.assert_array_equal(made[4:, :6], 0)
    assert (made[:4, 6:] != 0).all()
    assert any("dead" in warning for warning in student.plan.steps[0].warnings)


def test_netmorph_zero_in_needs_functions_that_keep_zero():
    net = mlp(5, 6, 4, 3, activation=nn.Sigmoid)
    with pytest.raises(SpecError, match="is Sigmoid, which makes something else of zero"):
        grown(
            random_state(net),
            {"widen": "0", "by": 2, "method": "netmorph", "zero": "in"},
            options={"activation": "sigmoid"},
        )


def warned(step, *, activation=nn.ReLU, name="relu", norm=False):
    layers = [nn.Linear(5, 6), *([nn.BatchNorm1d(6)] if norm else []), activation()]
    module = on_meta(lambda: nn.Sequential(*layers, nn.Linear(6, 3)))
    student = grown(
        random_state(module), {"widen": "0", "factor": 2, **step}, options={"activation": name}
    )
    return " ".join(student.plan.steps[0].warnings)


ZEROS = {"method": "r2wider", "fill": "zeros"}
INWARDS = {"method": "netmorph", "zero": "in"}
LOCKED = {"method": "symmetric", "noise": "none"}


@pytest.mark.parametrize(
    ("step", "network", "said"),
    [
        (ZEROS, {}, "dead"),
        (ZEROS, {"norm": True}, "dead"),
        (ZEROS, {"activation": nn.Tanh, "name": "tanh"}, ""),
        (ZEROS, {"activation": nn.Tanh, "name": "tanh", "norm": True}, "they explode"),
        (INWARDS, {"activation": nn.LeakyReLU, "name": "leaky_relu", "norm": True}, "explode"),
        (INWARDS, {"activation": nn.SiLU, "name": "silu"}, ""),
        ({"method": "random-pad", "fill": "zeros"}, {}, "dead"),
        ({"method": "r2wider"}, {}, "no BatchNorm steadies the pairs"),
        ({"method": "r2wider"}, {"norm": True}, ""),
        ({"method": "r2wider", "scale": 0.3}, {}, ""),
        ({"method": "r2wider", "scale": 5.0}, {"norm": True}, "make them explode"),
        ({"method": "r2wider", "noise": {"snr_db": -20}}, {"norm": True}, "make them explode"),
        (LOCKED, {}, "locked together"),
        ({"method": "symmetric", "noise": {"snr_db": 150}}, {}, "locked together"),
        ({"split": "uniform", "noise": {"scale": 1e-9}}, {}, "stay identical"),
        ({"method": "diagonal", "noise": "none", "fallback": "random"}, {}, ""),
    ],
)
def test_what_could_not_learn_is_told(step, network, said):
    told = warned(step, **network)
    assert (said in told) if said else not told


def test_a_gated_zero_stays_zero():
    module = on_meta(lambda: nn.Sequential(nn.Linear(5, 6), nn.SiLU(), nn.Linear(6, 3)))
    state = random_state(module)
    student = grown(state, {"widen": "0", "by": 2, **INWARDS}, options={"activation": "silu"})
    x = images(6, 5)
    assert deviation(outputs_of(module, state, x), outputs_of(module, student.tensors, x)) < 1e-14


def test_envelope_has_the_teacher_in_the_middle():
    made = weights(method="envelope")
    np.testing.assert_array_equal(made["2.weight"][2:6, 3:9], W)
    np.testing.assert_array_equal(made["2.weight"][:, :3], 0)
    np.testing.assert_array_equal(made["2.weight"][:, 9:], 0)
    surrounding = np.concatenate([made["2.weight"][:2, 3:9], made["2.weight"][6:, 3:9]])
    assert (surrounding != 0).all()
    np.testing.assert_array_equal(made["0.weight"][3:9], teacher("0.weight"))
    np.testing.assert_array_equal(made["0.bias"], [0, 0, 0, *teacher("0.bias"), 0, 0, 0])


def test_the_plain_envelope_is_zero_all_around_and_told_dead():
    student = grown(STATE, {"widen": BOTH, "factor": 2, "method": "envelope", "noise": "none"})
    expected = zeros(8, 12)
    expected[2:6, 3:9] = W
    np.testing.assert_array_equal(student.tensors["2.weight"].numpy(), expected)
    assert any("dead" in warning for warning in student.plan.steps[0].warnings)


def test_the_noisy_envelope_is_approximate():
    made = weights(method="envelope", noise={"both": True})
    assert (made["2.weight"] != 0).all()
    np.testing.assert_array_equal(made["2.weight"][2:6, 3:9], W)


def test_noise_may_have_the_mean_of_the_layer():
    state = random_state(mlp(5, 200, 3))
    state["0.weight"] += 3.0
    step = {"widen": "0", "by": 200, "method": "envelope"}
    plain, shifted = (
        grown(state, {**step, "noise": noise}).tensors["0.weight"][:100]
        for noise in ({"scale": 1.0}, {"scale": 1.0, "match": "mean-and-std"})
    )
    assert abs(float(plain.mean())) < 0.2
    assert float(shifted.mean()) == pytest.approx(float(state["0.weight"].mean()), abs=0.2)
    assert float(shifted.std()) == pytest.approx(float(state["0.weight"].std()), rel=0.15)


def test_random_padding_keeps_the_teacher_and_not_its_function():
    student = grown(STATE, {"widen": BOTH, "factor": 2, "method": "random-pad"})
    np.testing.assert_array_equal(student.tensors["2.weight"][:4, :6].numpy(), W)
    assert (student.tensors["4.weight"][:, 4:] != 0).all()
    assert student.plan.preserves == "no"


@pytest.mark.parametrize("method", ["net2wider", "r2wider", "netmorph", "symmetric", "envelope"])
@pytest.mark.parametrize("placement", ["end", "center", "interleave"])
def test_placement(method, placement):
    student = grown(STATE, {"widen": "0", "to": 12, "method": method, "placement": placement})
    sources = student.plan.draft.origins["0"].map.sources
    own = [int(np.flatnonzero(sources == channel)[0]) for channel in range(6)]
    if placement == "interleave":
        assert own == [0, 2, 4, 6, 8, 10]
    elif method in ("r2wider", "netmorph", "envelope"):
        assert own == list(range(6) if placement == "end" else range(3, 9))
    assert sorted(own) == own or method in ("net2wider", "symmetric")
    x = images(6, 5)
    before, after = outputs_of(NET, STATE, x), outputs_of(NET, student.tensors, x)
    assert deviation(before, after) < 1e-14


@pytest.mark.parametrize(
    ("step", "said"),
    [
        ({"to": 9, "method": "r2wider"}, "adds pairs.* the nearest that work are 8 and 10"),
        ({"to": 10, "method": "symmetric"}, "as a whole.* the nearest that work are 12"),
        ({"to": 15, "method": "diagonal"}, "the nearest that work are 12 and 18"),
        ({"by": 2, "method": "r2wider", "split": "uniform"}, "r2wider does not read 'split'"),
        ({"by": 2, "method": "netmorph", "noise": "none"}, "netmorph does not read 'noise'"),
        ({"by": 2, "fill": "he"}, "net2wider does not read 'fill'"),
        (
            {"by": 2, "method": "envelope", "noise": {"kind": "zero-sum"}},
            "envelope knows no zero-sum noise, only gaussian",
        ),
        ({"to": 12, "method": "symmetric", "noise": {"kind": "gaussian"}}, "only zero-sum"),
        ({"by": 2, "noise": {"both": True}}, "noise.both is for envelope"),
        ({"by": 2, "noise": {"match": "mean-and-std"}}, "noise.match is for gaussian noise"),
    ],
)
def test_refusals(step, said):
    with pytest.raises(SpecError, match=said):
        grown(STATE, {"widen": "0", **step})


@pytest.mark.parametrize("method", ["r2wider", "netmorph", "envelope", "random-pad"])
@pytest.mark.parametrize("factor", [1.5, 2])
def test_every_weight_of_the_teacher_is_kept_and_can_be_cut_out(method, factor):
    module = option_a()
    state = random_state(module, shrink=2)
    student = grown(state, {"widen": "*", "factor": factor, "method": method})
    for name, recipe in student.plan.draft.recipes.items():
        places = recipe.kept()
        assert places is not None, name
        cut = student.tensors[name].numpy()[np.ix_(*places)] if places else None
        if cut is not None:
            np.testing.assert_array_equal(cut, state[name].numpy())


def test_divided_weights_are_not_kept():
    recipes = grown(STATE, {"widen": "0", "factor": 2}).plan.draft.recipes
    assert recipes["0.weight"].kept() is not None
    assert recipes["2.weight"].kept() is None


@pytest.mark.parametrize("split", ["unequal", "uniform", "select"])
@pytest.mark.parametrize("noisy", [False, True])
def test_inputs_first_are_divided_alike_by_any_tiles_and_blocks(split, noisy, monkeypatch):
    grown_map = ChannelMap.of(3, [0, 1, 2, 0, 2, 0])
    spec = TensorSpec("float32", (3, 5, 2))
    weight = np.random.default_rng(0).standard_normal(spec.shape).astype(np.float32)
    stored = Stored(spec, "w")
    noise = Disturbance(Stream("noise"), Statistic("deviation", stored, "w"), 0.1)
    recipe = Divided(stored, 0, (grown_map,), split, (), Stream("shares"), noise if noisy else None)
    reading = Measuring(MemoryReader({"w": weight}).read, threading.Event())
    whole = recipe.rows(np.arange(6), reading)
    sums = [whole[grown_map.sources == source].astype(np.float64).sum(0) for source in range(3)]
    assert np.array_equal(np.stack(sums), weight.astype(np.float64))
    monkeypatch.setattr("ckgrow.recipes.divided.CHUNK", 7)
    tiles = [recipe.rows(np.array(index), reading) for index in ([0, 1], [2], [5, 3, 4])]
    assert np.array_equal(np.concatenate(tiles), whole[[0, 1, 2, 5, 3, 4]])


def test_what_holds_for_several_groups_is_said_once():
    student = grown(STATE, {"widen": "*", "by": 2, "method": "r2wider"}, options=STATED)
    (warning,) = student.plan.steps[0].warnings
    assert warning.startswith("0, 2: no BatchNorm steadies the pairs")
