"""The verdict on hand-written networks: sound students pass, each kind of fault does not."""

import dataclasses
import itertools
import json
import subprocess
import sys

import numpy as np
import pytest

from ckgrow.architecture import Assumption
from ckgrow.building import Builder
from ckgrow.errors import CheckpointError, SpecError
from ckgrow.graph import BATCH, Graph, Node
from ckgrow.header import Header, TensorSpec
from ckgrow.verdict import running
from ckgrow.verdict.disturbance import Disturbance
from ckgrow.verdict.interface import SAME
from ckgrow.verdict.judgement import judge
from ckgrow.verdict.reordering import reordered
from ckgrow.verdict.running import Side
from ckgrow.verdict.runs import Runs
from ckgrow.verdict.samples import Samples, seeded_samples
from ckgrow.verdict.tolerance import rounding_bound

WIDTHS = (12, 24, 20, 5)
Weights = dict[str, np.ndarray]


def header_of(weights: Weights) -> Header:
    return Header({n: TensorSpec(a.dtype.name, a.shape) for n, a in weights.items()})


def side(graph: Graph, weights: Weights, label: str = "file") -> Side:
    return Side(label, graph, header_of(weights), weights.__getitem__)


def mlp_weights(seed: int, widths=WIDTHS) -> Weights:
    generator = np.random.default_rng(seed)
    weights = {}
    for index, (inner, outer) in enumerate(itertools.pairwise(widths)):
        matrix = generator.standard_normal((outer, inner)) * np.sqrt(2 / inner)
        weights[f"{index}.weight"] = matrix.astype(np.float32)
        weights[f"{index}.bias"] = (generator.standard_normal(outer) * 0.3).astype(np.float32)
    return weights


def mlp(weights: Weights, activation: str = "Relu", output: str = "logits") -> Side:
    layers = len(weights) // 2
    builder = Builder(header_of(weights), {"x": (BATCH, weights["0.weight"].shape[1])})
    value = "x"
    for index in range(layers - 1):
        value = builder.node(activation, f"{index}/act", [builder.linear(f"{index}", value)])
    last = builder.linear(f"{layers - 1}", value, output=output)
    return side(builder.graph(last), weights)


def mlp_in_numpy(weights: Weights, x: np.ndarray) -> np.ndarray:
    value = x.astype(np.float64)
    layers = len(weights) // 2
    for index in range(layers):
        value = value @ weights[f"{index}.weight"].astype(np.float64).T
        value = value + weights[f"{index}.bias"].astype(np.float64)
        value = np.maximum(value, 0) if index < layers - 1 else value
    return value


def permuted(weights: Weights, layer: int, seed: int) -> Weights:
    order = np.random.default_rng(seed).permutation(len(weights[f"{layer}.bias"]))
    return {
        **weights,
        f"{layer}.weight": weights[f"{layer}.weight"][order],
        f"{layer}.bias": weights[f"{layer}.bias"][order],
        f"{layer + 1}.weight": weights[f"{layer + 1}.weight"][:, order],
    }


def duplicated(weights: Weights, layer: int, seed: int) -> Weights:
    """Some units twice, their outgoing weights in two shares that sum to them exactly."""
    generator = np.random.default_rng(seed)
    width = len(weights[f"{layer}.bias"])
    copies = generator.choice(width, size=width // 2, replace=False)
    columns = weights[f"{layer + 1}.weight"]
    whole = columns[:, copies]
    step = np.spacing(np.abs(whole))
    share = np.trunc(generator.uniform(size=whole.shape) * (whole / step)) * step
    share = share.astype(np.float32)
    kept = columns.copy()
    kept[:, copies] = whole - share
    assert np.array_equal((kept[:, copies].astype(np.float64) + share), whole)
    rows = np.concatenate([np.arange(width), copies])
    return {
        **weights,
        f"{layer}.weight": weights[f"{layer}.weight"][rows],
        f"{layer}.bias": weights[f"{layer}.bias"][rows],
        f"{layer + 1}.weight": np.concatenate([kept, share], axis=1),
    }


def sound(seed: int, weights: Weights) -> Weights:
    student = duplicated(weights, seed % 2, seed)
    return permuted(duplicated(student, (seed + 1) % 2, seed + 1), seed % 2, seed)


def verdict(teacher: Side, student: Side, *, quick=False, samples=None, **more):
    samples = samples or seeded_samples(teacher.graph, 16, 0)
    return judge(teacher, student, samples=samples, quick=quick, **more)


both = pytest.mark.parametrize("quick", [False, True], ids=["float64", "quick"])


@both
def test_a_network_agrees_with_itself(quick):
    teacher = mlp(mlp_weights(0))
    found = verdict(teacher, teacher, quick=quick)
    (output,) = found.outputs
    assert found.preserved
    assert (output.name, output.ratio, output.max_abs, output.top1) == ("logits", 0.0, 0.0, 1.0)
    assert (output.float64_max_abs == 0.0) is not quick
    assert (found.samples, found.inputs) == (18, "16 seeded normal samples, zeros, ones")
    assert len(found.runtimes) == (1 if quick else 2)
    assert found.tolerance.startswith("quick, float32 only" if quick else "float32: 4 x")
    assert found.pairs["logits"].student.dtype == np.float32
    assert [each.student.dtype for each in found.double_pairs.values()] == [np.float64] * (
        not quick
    )


@both
def test_fifty_sound_students_pass(quick):
    for seed in range(50):
        weights = mlp_weights(seed)
        found = verdict(mlp(weights), mlp(sound(seed, weights)), quick=quick)
        assert found.preserved, (seed, found.reason)
        assert found.outputs[0].ratio <= 4


def test_most_sound_students_need_no_float64_when_quick():
    weights = [mlp_weights(seed) for seed in range(50)]
    found = [verdict(mlp(w), mlp(sound(s, w)), quick=True) for s, w in enumerate(weights)]
    assert sum(len(each.runtimes) == 1 for each in found) >= 45


@both
def test_one_channel_scaled_fifty_times(quick):
    caught = missed = 0
    for seed in range(50):
        generator = np.random.default_rng(100 + seed)
        weights = mlp_weights(seed)
        student = sound(seed, weights)
        layer = generator.integers(3)
        channel = generator.integers(len(student[f"{layer}.bias"]))
        for part in ("weight", "bias"):
            scaled = student[f"{layer}.{part}"].copy()
            scaled[channel] *= np.float32(1.1)
            student[f"{layer}.{part}"] = scaled
        teacher = mlp(weights)
        samples = seeded_samples(teacher.graph, 16, seed)
        found = verdict(teacher, mlp(student), quick=quick, samples=samples)
        x = samples.arrays["x"]
        change = np.abs(mlp_in_numpy(weights, x) - mlp_in_numpy(student, x)).max()
        if change > 10 * found.outputs[0].tolerance:
            assert not found.preserved, seed
            assert "exceeds the tolerance" in found.reason
            caught += 1
        elif change == 0:  # the unit is silent on all samples
            assert found.preserved, (seed, found.reason)
            missed += 1
    assert caught >= 45
    assert caught + missed == 50


def test_a_fault_too_small_for_float32_is_seen_in_float64():
    weights = mlp_weights(0)
    faulty = {**weights, "2.bias": weights["2.bias"].copy()}
    faulty["2.bias"][2] = np.nextafter(faulty["2.bias"][2], np.float32(9))
    found = verdict(mlp(weights), mlp(faulty))
    assert not found.preserved
    assert "in float64 the largest difference" in found.reason
    assert found.outputs[0].max_abs < found.outputs[0].tolerance
    assert found.outputs[0].float64_max_abs > found.outputs[0].float64_tolerance
    quick = verdict(mlp(weights), mlp(faulty), quick=True)
    assert quick.preserved
    assert "are not seen" in quick.tolerance


def test_recorded_defects_in_an_unknown_place_widen_both_tolerances():
    weights = mlp_weights(0)
    rounded = {**weights, "1.weight": (weights["1.weight"] * np.float32(1 + 2**-23))}
    assert not verdict(mlp(weights), mlp(rounded)).preserved
    found = verdict(mlp(weights), mlp(rounded), defects={"": 2**-23})
    assert found.preserved
    assert "plus 64 x the recorded defect of 1.2e-07" in found.tolerance
    wrong = {**weights, "1.weight": weights["1.weight"] * np.float32(1.001)}
    assert not verdict(mlp(weights), mlp(wrong), defects={"": 2**-23}).preserved


def identity_gains(weights: Weights, gain: float, count: int) -> Side:
    """Behind the first layer, BatchNorms that are off the identity by ``gain``."""
    ones = np.ones(WIDTHS[1], np.float32)
    gammas = {f"bn{n}.weight": ones * np.float32(1 + gain) for n in range(count)}
    zeros = {f"bn{n}.{what}": ones * 0 for n in range(count) for what in ("bias", "running_mean")}
    variances = {f"bn{n}.running_var": ones for n in range(count)}
    made = {**weights, **gammas, **zeros, **variances}
    builder = Builder(header_of(made), {"x": (BATCH, WIDTHS[0])})
    value = builder.linear("0", "x")
    for number in range(count):
        value = builder.batch_norm(f"bn{number}", value, epsilon=0.0)
    value = builder.linear("1", builder.node("Relu", "0/act", [value]))
    value = builder.node("Relu", "1/act", [value])
    return side(builder.graph(builder.linear("2", value, output="logits")), made)


@both
@pytest.mark.parametrize("gain", [2**-8, -(2**-8), 2**-16, -(2**-20)])
@pytest.mark.parametrize("count", [1, 12])
def test_gains_that_are_all_off_alike_are_within_what_they_recorded(quick, gain, count):
    weights = mlp_weights(0)
    defects = {f"bn{number}": abs(gain) for number in range(count)}
    student = identity_gains(weights, gain, count)
    found = verdict(mlp(weights), student, quick=quick, defects=defects)
    assert found.preserved, found.reason
    assert found.outputs[0].tolerance <= 8 * count * abs(gain) * 30 + 1e-4
    assert not verdict(mlp(weights), student, quick=quick).preserved or gain > -(2**-19)
    smaller = {name: size / 16 for name, size in defects.items()}
    assert not verdict(mlp(weights), student, defects=smaller).preserved


def factored(weights: Weights, layers: int, seed: int) -> Weights:
    """The first layer with ``layers`` dense factors behind it, all rounded to float32."""
    generator = np.random.default_rng(seed)
    width = WIDTHS[1]
    names = ["0", *(f"f{number}" for number in range(layers))]
    wanted = {part: weights[f"0.{part}"].astype(np.float64) for part in ("weight", "bias")}
    made = dict(weights)
    for name in reversed(names[1:]):
        direction = generator.standard_normal((width, 1))
        factor = np.eye(width) - 2 * direction @ direction.T / (direction.T @ direction)
        made[f"{name}.weight"] = factor.astype(np.float32)
        made[f"{name}.bias"] = np.zeros(width, np.float32)
        inverse = np.linalg.inv(made[f"{name}.weight"].astype(np.float64))
        wanted = {part: inverse @ each for part, each in wanted.items()}
    return {**made, **{f"0.{part}": each.astype(np.float32) for part, each in wanted.items()}}


def factors(weights: Weights, layers: int) -> Side:
    builder = Builder(header_of(weights), {"x": (BATCH, WIDTHS[0])})
    value = builder.linear("0", "x")
    for number in range(layers):
        value = builder.linear(f"f{number}", value)
    value = builder.linear("1", builder.node("Relu", "0/act", [value]))
    value = builder.node("Relu", "1/act", [value])
    return side(builder.graph(builder.linear("2", value, output="logits")), weights)


@pytest.mark.parametrize("seed", range(8))
def test_a_factor_that_was_rounded_is_within_what_it_recorded_and_no_more(seed):
    weights = mlp_weights(seed)
    made = factored(weights, 1, seed)
    found = verdict(mlp(weights), factors(made, 1), defects={"f0": 2**-24})
    (output,) = found.outputs
    assert found.preserved, found.reason
    assert not verdict(mlp(weights), factors(made, 1)).preserved
    assert output.float64_tolerance / 100 < output.float64_max_abs < output.float64_tolerance / 2
    off = {**made, "2.bias": made["2.bias"] + np.float32(16 * output.float64_tolerance)}
    assert not verdict(mlp(weights), factors(off, 1), defects={"f0": 2**-24}).preserved


def test_a_common_gain_of_many_channels_does_not_average_out():
    width = 8192
    made = {
        "in.weight": np.ones((width, 3), np.float32),
        "bn.weight": np.ones(width, np.float32),
        "bn.bias": np.zeros(width, np.float32),
        "bn.running_mean": np.zeros(width, np.float32),
        "bn.running_var": np.ones(width, np.float32),
        "out.weight": np.full((1, width), 1 / width, np.float32),
    }
    builder = Builder(header_of(made), {"x": (BATCH, 3)})
    value = builder.batch_norm("bn", builder.linear("in", "x"), epsilon=0.0)
    teacher = side(builder.graph(builder.linear("out", value, output="y")), made)
    student = {**made, "bn.weight": made["bn.weight"] * np.float32(1 - 2**-12)}
    found = verdict(teacher, side(teacher.graph, student), defects={"bn": 2**-12})
    assert found.preserved, found.reason


def test_a_factor_that_takes_out_what_all_inputs_have_in_common():
    """What was rounded is the layer before the factor, and it reads more than it lets through."""
    weights = mlp_weights(0)
    rows = weights["0.weight"]
    weights["0.weight"] = rows - rows.mean(axis=1, keepdims=True)
    weights["0.bias"] *= np.float32(0)
    noise = seeded_samples(mlp(weights).graph, 16, 0).arrays["x"]
    samples = Samples("far from zero", {"x": noise + np.float32(1000)})
    student = factors(factored(weights, 1, 0), 1)
    found = verdict(mlp(weights), student, samples=samples, defects={"f0": 2**-24})
    assert found.preserved, found.reason
    assert not verdict(mlp(weights), student, samples=samples, defects={"f0": 2**-30}).preserved


def test_disturbances_do_not_cancel_in_networks_of_single_channels():
    """Where two signs may cancel, several draws are made."""
    ones = {f"{n}.weight": np.ones((1, 1), np.float32) for n in range(9)}
    builder = Builder(header_of(ones), {"x": (BATCH, 1)})
    value = "x"
    for number in range(9):
        value = builder.linear(f"{number}", value)
    network = side(builder.graph(value), ones)
    for first in range(1, 9):
        disturbance = Disturbance.of({str(n): 1e-7 for n in range(first, 9)}, network)
        runs = Runs(network, network, seeded_samples(network.graph, 4, 0), SAME, lambda _: None)
        (moved,) = runs.moved("torch_float64", disturbance).values()
        scale = max(1.0, float(np.abs(runs.pairs("torch_float64")[value].teacher).max()))
        assert moved >= 1.9e-7 * scale * (first < 8)


def test_what_is_recorded_of_nothing_known_stays_linear():
    weights = mlp_weights(0)
    teacher = mlp(weights)
    found = Disturbance.of({"": 1e-6, "gone": 2e-6, "0/act": 4e-6, "1": 0.0}, teacher)
    assert not found.sizes
    assert found.unplaced == pytest.approx(7e-6)
    judged = verdict(teacher, teacher, defects={"": 1e-6, "gone": 2e-6})
    scale = np.abs(judged.double_pairs["logits"].teacher).max()
    assert judged.outputs[0].float64_tolerance == pytest.approx(64 * 3e-6 * scale, rel=1e-3)
    assert "plus 64 x the recorded defect of 3.0e-06" in judged.tolerance


def cancelling(weights: Weights, size: float) -> Weights:
    """Pairs of equal units that are read with V and -V, V far larger than the other weights."""
    generator = np.random.default_rng(5)
    rows = generator.standard_normal((30, 12)).astype(np.float32)
    columns = (size * generator.standard_normal((20, 30))).astype(np.float32)
    zeros = np.zeros(60, np.float32)
    return {
        **weights,
        "0.weight": np.concatenate([weights["0.weight"], rows, rows]),
        "0.bias": np.concatenate([weights["0.bias"], zeros]),
        "1.weight": np.concatenate([weights["1.weight"], columns, -columns], axis=1),
    }


@both
@pytest.mark.parametrize("size", [1.0, 30.0])
def test_pairs_that_cancel_are_sound_though_they_round_more(quick, size):
    weights = mlp_weights(3)
    teacher = mlp(weights)
    student = mlp(cancelling(weights, size))
    assert verdict(teacher, student, quick=quick).preserved


def test_what_quick_cannot_pass_goes_to_float64():
    weights = mlp_weights(3)
    passed = verdict(mlp(weights), mlp(cancelling(weights, 1e3)), quick=True)
    assert passed.preserved
    assert len(passed.runtimes) == 2
    assert passed.outputs[0].weaker is None
    found = verdict(mlp(weights), mlp(cancelling(weights, 1e5)), quick=True)
    assert len(found.runtimes) == 2
    assert not found.preserved
    assert "the arithmetic is too inexact for a verdict" in found.reason


@both
def test_an_output_that_does_not_vary_cannot_be_judged(quick):
    weights = mlp_weights(0)
    weights["2.weight"] = np.zeros_like(weights["2.weight"])
    found = verdict(mlp(weights), mlp(weights), quick=quick)
    assert not found.preserved
    assert "does not vary over the inputs" in found.reason
    weights["2.bias"] = np.zeros_like(weights["2.bias"])
    found = verdict(mlp(weights), mlp(weights), quick=quick)
    assert not found.preserved
    assert found.outputs[0].max_rel is None


def test_small_variation_on_a_large_offset_is_judged_in_float64():
    weights = mlp_weights(0)
    weights["2.bias"] += np.float32(1e7)
    faulty = {**weights, "2.weight": weights["2.weight"] * np.float32(1.01)}
    assert verdict(mlp(weights), mlp(sound(0, weights)), quick=True).preserved
    found = verdict(mlp(weights), mlp(faulty), quick=True)
    assert not found.preserved
    assert len(found.runtimes) == 2


@both
@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("who", ["teacher", "student"])
def test_nan_and_infinity_are_never_preserved(quick, bad, who):
    weights = mlp_weights(0)
    broken = {**weights, "2.bias": weights["2.bias"].copy()}
    broken["2.bias"][1] = bad
    pair = {"teacher": mlp(weights), "student": mlp(weights), who: mlp(broken)}
    found = verdict(pair["teacher"], pair["student"], quick=quick)
    assert not found.preserved
    assert f"the {who} computes NaN or infinity in float32 (18 of 90 values)" in found.reason
    assert not verdict(mlp(broken), mlp(broken), quick=quick).preserved


def test_different_interfaces_are_never_preserved():
    weights = mlp_weights(0)
    teacher = mlp(weights)
    renamed = verdict(teacher, mlp(weights, output="other"))
    assert not renamed.preserved
    assert [each.name for each in renamed.outputs] == ["logits", "other"]
    assert "only one of the networks has this output" in renamed.reason
    more = verdict(teacher, mlp(mlp_weights(0, (12, 24, 20, 6))))
    assert "its shape differs: [18, 5] in the teacher and [18, 6] in the student" in more.reason
    assert not more.preserved
    other_input = verdict(teacher, mlp(mlp_weights(0, (13, 24, 20, 5))))
    assert "the inputs differ: x ['N', 12] in the teacher, x ['N', 13]" in other_input.reason
    assert not other_input.preserved


def test_nothing_is_not_passed():
    teacher = mlp(mlp_weights(0))
    empty = Samples("none", {"x": np.zeros((0, 12), np.float32)})
    assert "no inputs" in verdict(teacher, teacher, samples=empty).reason
    assert not verdict(teacher, teacher, samples=empty).preserved
    single = Samples("one", {"x": np.ones((1, 12), np.float32)})
    assert "give at least two" in verdict(teacher, teacher, samples=single).reason
    assert not verdict(teacher, teacher, samples=single).preserved


def test_stated_tolerances_replace_the_measured_ones():
    weights = mlp_weights(0)
    faulty = {**weights, "2.weight": weights["2.weight"] * np.float32(1.001)}
    assert not verdict(mlp(weights), mlp(faulty)).preserved
    found = verdict(mlp(weights), mlp(faulty), rtol=0.01)
    assert found.preserved
    assert found.tolerance == "stated: atol 0, rtol 0.01 of the output's scale"
    assert not verdict(mlp(weights), mlp(faulty), atol=1e-6).preserved
    assert "so wide" in verdict(mlp(weights), mlp(faulty), atol=1e6).reason
    with pytest.raises(SpecError, match="rtol must be a number of at least 0, not nan"):
        verdict(mlp(weights), mlp(faulty), rtol=float("nan"))


@both
@pytest.mark.parametrize("by", [1.0, 1 + 1e-6, 1 + 1e-3, 1.5, 1e6])
def test_the_tolerance_that_would_have_passed_passes(quick, by):
    weights = mlp_weights(0)
    faulty = {**weights, "1.weight": weights["1.weight"] * np.float32(by)}
    pairs = [(mlp(weights), mlp(faulty)), (mlp(weights), mlp(sound(1, weights)))]
    for teacher, student in pairs:
        (output,) = verdict(teacher, student, quick=quick).outputs
        if by > 2 and not output.preserved:
            assert output.passing is None  # the output varies by less than it is off
            continue
        passing = verdict(teacher, student, quick=quick, atol=output.passing)
        assert passing.preserved, passing.reason
        needed = max(output.max_abs, output.float64_max_abs or 0.0)
        assert needed <= output.passing <= 1.01 * needed
        if needed:
            assert not verdict(teacher, student, quick=quick, atol=0.98 * needed).preserved


def test_no_tolerance_passes_what_cannot_be_judged():
    weights = mlp_weights(0)
    one = Samples("one", {"x": seeded_samples(mlp(weights).graph, 1, 0).arrays["x"][:1]})
    assert verdict(mlp(weights), mlp(weights), samples=one).outputs[0].passing is None
    broken = {**weights, "2.bias": weights["2.bias"] * np.float32(np.nan)}
    assert verdict(mlp(weights), mlp(broken)).outputs[0].passing is None


@both
def test_a_quick_verdict_says_how_much_weaker_it_is(quick):
    weights = mlp_weights(0)
    (output,) = verdict(mlp(weights), mlp(sound(0, weights)), quick=quick).outputs
    if quick:
        assert output.tolerance / output.weaker == pytest.approx(
            1e-12 * output.max_abs / output.max_rel, rel=0.2
        )
    else:
        assert output.weaker is None


def test_the_quick_bound_grows_with_depth_and_for_weights_stored_in_float64():
    for count in (1, 4, 16):
        weights = mlp_weights(0, (8,) * (count + 1))
        graph, header = mlp(weights).graph, header_of(weights)
        assert rounding_bound(graph, header) == pytest.approx(2**-21 * count**0.5)
        doubles = header_of({name: each.astype(np.float64) for name, each in weights.items()})
        assert rounding_bound(graph, doubles) == pytest.approx(2**-21 * (2 * count) ** 0.5)


@pytest.mark.parametrize("width", [8, 128, 1024])
@pytest.mark.parametrize("depth", [2, 8, 32])
def test_ordinary_rounding_stays_below_the_quick_bound(width, depth):
    weights = mlp_weights(depth, (16, *[width] * min(depth, 4096 // width), 10))
    network = mlp(weights)
    (output,) = verdict(network, network).outputs
    scale = np.abs(mlp_in_numpy(weights, seeded_samples(network.graph, 16, 0).arrays["x"])).max()
    assert output.yardstick <= rounding_bound(network.graph, network.header) * scale


def test_expected_outputs_catch_a_wrong_activation():
    weights = mlp_weights(0)
    teacher, student = mlp(weights), mlp(sound(0, weights))
    samples = seeded_samples(teacher.graph, 16, 0)
    relu = mlp_in_numpy(weights, samples.arrays["x"]).astype(np.float32)
    found = verdict(teacher, student, samples=samples, expected_outputs={"logits": relu})
    assert found.preserved
    assert found.expectations[0].met
    guesses = [Assumption("activation", "tanh", "default"), Assumption("layers", "3", "checkpoint")]
    found = verdict(
        mlp(weights, "Tanh"),
        mlp(sound(0, weights), "Tanh"),
        samples=samples,
        expected_outputs={"logits": relu},
        assumptions=guesses,
    )
    assert found.outputs[0].preserved
    assert not found.preserved
    assert "the teacher by" in found.reason
    assert found.reason.endswith("an assumption is probably wrong: activation = tanh (default)")


def test_expected_outputs_name_the_side_that_departs():
    weights = mlp_weights(0)
    teacher = mlp(weights)
    samples = seeded_samples(teacher.graph, 16, 0)
    expected = {"logits": mlp_in_numpy(weights, samples.arrays["x"])}
    faulty = mlp({**weights, "1.bias": weights["1.bias"] + np.float32(0.1)})
    found = verdict(teacher, faulty, samples=samples, expected_outputs=expected)
    assert not found.preserved
    assert found.expectations[0].reason.startswith("the student by")
    assert "assumption" not in found.expectations[0].reason
    shorter = {"logits": expected["logits"][1:]}
    with pytest.raises(CheckpointError, match=r"expected output logits has shape \[17, 5\]"):
        verdict(teacher, teacher, samples=samples, expected_outputs=shorter)
    with pytest.raises(CheckpointError, match="there are no expected outputs"):
        verdict(teacher, teacher, samples=samples, expected_outputs={})


def test_runtimes_that_disagree_give_no_verdict(monkeypatch):
    from ckgrow.ops import rule

    weights = mlp_weights(0)
    relu = type(rule("Relu")).evaluate

    def leaky(self, node, inputs):
        return tuple(each - 0.2 for each in relu(self, node, inputs))

    monkeypatch.setattr(type(rule("Relu")), "evaluate", leaky)
    found = verdict(mlp(weights), mlp(weights))
    assert not found.preserved
    assert "too inexact for a verdict" in found.reason


def convnet(seed: int) -> tuple[Graph, Weights]:
    generator = np.random.default_rng(seed)

    def normal(*shape):
        return generator.standard_normal(shape).astype(np.float32)

    weights = {
        "conv1.weight": normal(6, 2, 3, 3),
        "bn1.weight": normal(6),
        "bn1.bias": normal(6),
        "bn1.running_mean": normal(6),
        "bn1.running_var": np.abs(normal(6)) + 0.5,
        "conv2.weight": normal(6, 2, 3, 3),
        "conv2.bias": normal(6),
        "depthwise.weight": normal(6, 1, 3, 3),
        "mixing": normal(6, 4),
    }
    builder = Builder(header_of(weights), {"x": (BATCH, 2, 8, 8)})
    value = builder.batch_norm("bn1", builder.conv("conv1", "x", padding=1))
    value = builder.conv("conv2", builder.node("Relu", "relu", [value]), stride=2)
    aux = builder.node("GlobalAveragePool", "aux", [value])
    value = builder.conv("depthwise", builder.node("Add", "sum", [value, value]))
    value = builder.node("Flatten", "flat", [builder.node("GlobalAveragePool", "pool", [value])])
    return builder.graph(builder.node("MatMul", "logits", [value, "mixing"]), aux), weights


@both
def test_convolutions_groups_and_several_outputs(quick):
    graph, weights = convnet(0)
    found = verdict(side(graph, weights), side(graph, weights), quick=quick)
    assert found.preserved
    assert [each.name for each in found.outputs] == ["logits", "aux"]
    assert [each.top1 for each in found.outputs] == [1.0, None]
    faulty = {**weights, "depthwise.weight": weights["depthwise.weight"] * np.float32(1.1)}
    found = verdict(side(graph, weights), side(graph, faulty), quick=quick)
    assert [each.preserved for each in found.outputs] == [False, True]
    assert found.reason.startswith("output logits: ")


@pytest.mark.parametrize("which", ["mlp", "convnet"])
def test_reordering_changes_rounding_and_nothing_else(which):
    network = mlp(mlp_weights(0, (40, 300, 10))) if which == "mlp" else side(*convnet(0))
    samples = seeded_samples(network.graph, 16, 0)
    other = reordered(network.graph).check()
    assert other.parameters() == network.graph.parameters()
    for runtime, low, high in (("onnxruntime", 1e-9, 1e-5), ("torch_float64", 0.0, 1e-13)):
        plain = running.run(runtime, network, samples, 100)
        changed = running.run(runtime, dataclasses.replace(network, graph=other), samples, 100)
        for name, array in plain.items():
            assert low <= np.abs(array - changed[name]).max() / np.abs(array).max() <= high


def test_samples_in_parts_give_the_same_verdict(monkeypatch):
    graph, weights = convnet(0)
    faulty = {**weights, "conv2.bias": weights["conv2.bias"] + np.float32(0.01)}
    whole = verdict(side(graph, weights), side(graph, faulty))
    monkeypatch.setattr(running, "VALUE_BYTES", 8 * 6 * 8 * 8 * 5)
    parts = verdict(side(graph, weights), side(graph, faulty))
    for a, b in zip(whole.outputs, parts.outputs, strict=True):
        assert a.float64_max_abs == pytest.approx(b.float64_max_abs, rel=1e-9)
        assert a.name == b.name


def test_progress_names_side_and_runtime():
    teacher = mlp(mlp_weights(0))
    said: list[str] = []
    verdict(teacher, teacher, progress=said.append)
    assert [text.split(" in ")[0] for text in said] == ["teacher", "student"] * 2
    said.clear()
    verdict(teacher, teacher, quick=True, progress=said.append)
    assert [text.split(" in ")[0] for text in said] == ["teacher", "student"]
    said.clear()
    verdict(teacher, teacher, defects={"1": 1e-7}, progress=said.append)
    assert said[-1].startswith("student with its recorded defects in PyTorch")


def test_a_judgement_of_what_cannot_be_compared_has_no_numbers():
    teacher = mlp(mlp_weights(0))
    found = verdict(teacher, mlp(mlp_weights(0, (12, 24, 20, 6))))
    assert found.samples == 18
    (document,) = json.loads(json.dumps([*map(dataclasses.asdict, found.outputs)], allow_nan=False))
    measured = set(document) - {"name", "preserved", "reason"}
    assert {document[name] for name in measured} == {None}


def test_a_parameter_may_be_shared_and_unread_tensors_do_no_harm():
    weights = {"w": mlp_weights(0)["1.weight"][:, :20], "unread": np.zeros(3, np.int8)}
    nodes = (
        Node("MatMul", "a", ("x", "w"), ("a",)),
        Node("Tanh", "t", ("a",), ("t",)),
        Node("MatMul", "b", ("t", "w"), ("b",)),
    )
    graph = Graph({"x": (BATCH, 20)}, ("b",), nodes).check()
    assert verdict(side(graph, weights), side(graph, weights), quick=True).preserved


def test_quick_imports_no_torch():
    script = """
import sys
import numpy as np
from ckgrow.building import Builder
from ckgrow.header import Header, TensorSpec
from ckgrow.verdict.judgement import judge
from ckgrow.verdict.running import Side
from ckgrow.verdict.samples import seeded_samples
header = Header({"w.weight": TensorSpec("float32", (3, 4))})
builder = Builder(header, {"x": ("N", 4)})
graph = builder.graph(builder.linear("w", "x"))
side = Side("x", graph, header, lambda _: np.arange(12, dtype=np.float32).reshape(3, 4))
assert judge(side, side, samples=seeded_samples(graph, 4, 0), quick=True).preserved
assert "torch" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", script], check=True)
