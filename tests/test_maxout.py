"""Maxout networks: k outputs of a Linear layer for each unit, against torch's own view and max."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from architecture_oracles import randomized
from chain_oracle import agrees, facts, header_of
from commands import ckgrow as command
from safetensors.torch import load_file, save_file
from student_oracles import deviation, grown, on_meta, outputs_of, random_state
from torch import nn

import ckgrow
from ckgrow.drafts.places import place_behind
from ckgrow.errors import SpecError
from ckgrow.registry import architectures

MLP = architectures()["mlp"]
EXACT = 1e-12


class MaxoutNet(nn.Module):
    """Linear layers ``fc1``, ``fc2``, ...; units[i] units of ``pieces`` outputs behind each."""

    def __init__(self, widths, pieces, norm=False):
        super().__init__()
        self.pieces, self.count = pieces, len(widths) - 1
        for number, (inputs, outputs) in enumerate(pairwise(widths), start=1):
            last = number == self.count
            made = outputs if last else outputs * pieces
            self.add_module(f"fc{number}", nn.Linear(inputs, made))
            if norm and not last:
                self.add_module(f"bn{number}", nn.BatchNorm1d(made))

    def forward(self, x):
        for number in range(1, self.count):
            x = self.get_submodule(f"fc{number}")(x)
            if hasattr(self, f"bn{number}"):
                x = self.get_submodule(f"bn{number}")(x)
            x = x.view(len(x), -1, self.pieces).max(-1).values
        return self.get_submodule(f"fc{self.count}")(x)


def inputs(features, count=5):
    generator = torch.Generator().manual_seed(3)
    return torch.randn(count, features, generator=generator, dtype=torch.float64)


def maxout(pieces):
    return {"activation": {"maxout": pieces}}


# The network


@pytest.mark.parametrize("norm", [False, True])
@pytest.mark.parametrize("pieces", [2, 3, 5])
def test_maxout_is_the_largest_of_neighbouring_outputs(pieces, norm):
    module = randomized(MaxoutNet([6, 7, 4, 3], pieces, norm))
    network = agrees(MLP, module, inputs(6), maxout(pieces))
    assert facts(network)["activation"] == (f"maxout {pieces}", "spec")
    assert facts(network)["order"] == ("fc1, fc2, fc3", "checkpoint")


class Maxout(nn.Module):
    def forward(self, x):
        return x.view(len(x), -1, 3).max(-1).values


def test_layers_with_units_of_their_own():
    layers = [nn.Linear(4, 15), Maxout(), nn.Linear(5, 6), nn.ReLU(), nn.Linear(6, 2)]
    stated = {"activation": {0: {"maxout": 3}, 2: "relu"}}
    network = agrees(MLP, randomized(nn.Sequential(*layers)), inputs(4), stated)
    assert facts(network)["activation"] == ("0: maxout 3, 2: relu", "spec")
    assert [node.op for node in network.graph.nodes][:3] == ["Gemm", "Reshape", "ReduceMax"]
    assert [node.name for node in network.graph.nodes] == ["0", "1/pieces", "1", "2", "3", "4"]


def test_the_order_can_be_stated():
    module = randomized(MaxoutNet([4, 4, 4, 4], 2))
    state = {
        key.replace("fc1", "b").replace("fc2", "a").replace("fc3", "c"): each
        for key, each in module.state_dict().items()
    }
    network = MLP.build(header_of(state), {**maxout(2), "order": ["b", "a", "c"]})
    assert facts(network)["order"] == ("b, a, c", "spec")


def net_of(*shapes):
    return header_of({f"fc{number}.weight": shape for number, shape in enumerate(shapes, start=1)})


NARROWING = net_of((12, 5), (9, 4), (2, 3))  # units of three


def test_shapes_alone_make_a_chain_but_no_network():
    assert MLP.explain(NARROWING).complete
    with pytest.raises(SpecError, match=r"fc2 reads 4 of the 12 .* 'teacher: .*maxout: 3\}"):
        MLP.build(NARROWING, {})
    with pytest.raises(SpecError, match="state it under"):
        MLP.build(NARROWING, {"activation": "relu"})


@pytest.mark.parametrize(
    "shapes",
    [
        [(12, 5), (9, 4), (2, 9)],  # 3 and 1, but also 9 to 9
        [(12, 5), (8, 4), (2, 4)],  # units of three, then of two
        [(12, 5), (8, 24), (2, 4)],
        [(12, 5), (8, 5), (2, 4)],
    ],
)
def test_other_narrowings_are_no_chain(shapes):
    header = net_of(*shapes)
    if shapes[0] == (12, 5) and shapes[2] == (2, 9):
        assert MLP.explain(header).complete  # the second layer may have an activation of its own
        stated = {"activation": {"fc1": {"maxout": 3}, "fc2": "tanh"}}
        assert MLP.build(header, stated).graph.nodes
    else:
        assert "in no order" in MLP.explain(header).problems[0]


@pytest.mark.parametrize("pieces", [0, 1, -2, 1.5, True, "3", None, [3]])
def test_units_that_are_none(pieces):
    with pytest.raises(SpecError, match=r"write \{maxout: k\}"):
        MLP.build(NARROWING, maxout(pieces))
    with pytest.raises(SpecError, match=r"write \{maxout: k\}"):
        MLP.build(NARROWING, {"activation": {"fc1": {"maxout": pieces}, "fc2": "relu"}})


@pytest.mark.parametrize(
    ("activation", "said"),
    [
        ({"maxout": 5}, "fc1 makes 12 channels, which are no whole number of maxout units of 5"),
        ({"maxout": 2}, "with maxout units of that size, in no order|fc2 makes 9 channels"),
        ({"fc1": {"maxout": 3}, "fc2": "relu"}, "of that size, in no order .* write a mapping"),
        ({"fc1": {"maxout": 3}}, "says nothing of|of that size, in no order"),
        ("maxout", r"state it under .*maxout: 3"),
        ({"fc1": {"maxin": 3}, "fc2": "relu"}, "maxin"),
    ],
)
def test_units_that_do_not_fit(activation, said):
    with pytest.raises(SpecError, match=said):
        MLP.build(NARROWING, {"activation": activation})


def test_a_batch_norm_behind_the_units_is_told():
    header = header_of(MaxoutNet([5, 4, 2], 3, norm=True).state_dict())
    with pytest.raises(SpecError, match=r"bn1 has 12 channels, .* the 4 maxout units of fc1"):
        MLP.build(header, {**maxout(3), "normalization": "after"})
    header = header_of({"fc1.weight": (12, 5), "fc2.weight": (2, 4), **norm("bn1", 4)})
    assert "bn1 has 4 channels and fits behind no layer" in MLP.explain(header).problems[0]


def norm(name, channels):
    parts = ("weight", "bias", "running_mean", "running_var")
    return {f"{name}.{part}": (channels,) for part in parts}


def test_maxout_in_words_is_told_how_to_write_it():
    with pytest.raises(SpecError, match=r"'activation' is 'maxout 3'; write \{maxout: k\}"):
        MLP.build(net_of((12, 5), (2, 12)), {"activation": "maxout 3"})


def test_maxout_is_for_linear_layers():
    convnet = architectures()["convnet"]
    shapes = {"conv1.weight": (8, 1, 3, 3), "fc1.weight": (6, 8), "fc2.weight": (3, 6)}
    with pytest.raises(SpecError, match="in chains of Linear layers only"):
        convnet.build(header_of(shapes), {"head": "global-average", **maxout(2)})


# Growth

METHODS = {
    "net2wider": {},
    "net2wider select": {"split": "select"},
    "net2wider rescale": {"rescale": 0.5},
    "net2wider zero-sum": {"noise": {"kind": "zero-sum", "scale": 0.3}},
    "r2wider": {"method": "r2wider"},
    "netmorph": {"method": "netmorph"},
    "netmorph zero in": {"method": "netmorph", "zero": "in"},
    "symmetric": {"method": "symmetric"},
    "diagonal": {"method": "diagonal"},
    "envelope": {"method": "envelope"},
    "envelope interleaved": {"method": "envelope", "placement": "interleave"},
}
UNITS = (6, 8, 4, 3)


@pytest.mark.parametrize(
    ("method", "normalized"),
    [
        (name, norm)
        for name in METHODS
        for norm in (False, True)
        if not (norm and "rescale" in name)
    ],
)
def test_every_method_widens_units(method, normalized):
    module = on_meta(MaxoutNet, UNITS, 3, normalized)
    state, x = random_state(module), inputs(6)
    step = {"widen": ["fc1", "fc2"], "factor": 2, **METHODS[method]}
    student = grown(state, step, options=maxout(3))
    assert student.plan.preserves == "exact"
    assert student.tensors["fc1.weight"].shape == (48, 6)
    assert student.tensors["fc2.weight"].shape == (24, 16)
    assert student.tensors["fc3.weight"].shape == (3, 8)
    expected = outputs_of(module, state, x)
    assert deviation(expected, outputs_of(module, student.tensors, x)) <= EXACT


def test_whole_units_are_copied():
    state = random_state(on_meta(MaxoutNet, UNITS, 3))
    student = grown(state, {"widen": "fc1", "by": 6}, options=maxout(3))
    before = state["fc1.weight"].unflatten(0, (8, 3))
    after = student.tensors["fc1.weight"].unflatten(0, (10, 3))
    assert torch.equal(after[:8], before)
    assert all((before == each).flatten(1).all(1).any() for each in after[8:])


@pytest.mark.parametrize(
    ("size", "units"),
    [({"to": 36}, 12), ({"by": 3}, 9), ({"factor": 1.3}, 10), ({"factor": 1.5}, 12)],
)
def test_sizes_count_the_outputs_of_the_layer(size, units):
    module = on_meta(MaxoutNet, UNITS, 3)
    state, x = random_state(module), inputs(6)
    student = grown(state, {"widen": "fc1", **size}, options=maxout(3))
    assert student.tensors["fc1.weight"].shape == (3 * units, 6)
    assert student.tensors["fc2.weight"].shape == (12, units)
    assert student.plan.steps[0].widths == {"fc1": (24, 3 * units)}
    expected = outputs_of(module, state, x)
    assert deviation(expected, outputs_of(module, student.tensors, x)) <= EXACT


@pytest.mark.parametrize(
    ("step", "said"),
    [
        ({"to": 25}, "fc1 grows 3 channels at a time, .*; the nearest that do are 24 and 27"),
        ({"by": 4}, "28 channels do not divide by 3; the nearest that do are 27 and 30"),
        ({"to": 27, "method": "r2wider"}, "24 channels in units of 3 .* that work are 30"),
        ({"to": 36, "method": "symmetric"}, "nearest that work are 48"),
        ({"to": 21}, "cannot shrink to 21"),
    ],
)
def test_sizes_between_units_are_refused(step, said):
    state = random_state(on_meta(MaxoutNet, UNITS, 3))
    with pytest.raises(SpecError, match=said):
        grown(state, {"widen": "fc1", **step}, options=maxout(3))


def test_multiples_are_whole_units():
    state = random_state(on_meta(MaxoutNet, UNITS, 3))
    step = {"widen": "fc1", "factor": 1.1, "multiple_of": 8}
    assert grown(state, step, options=maxout(3)).tensors["fc1.weight"].shape == (48, 6)


def test_a_student_knows_its_units_and_grows_again(tmp_path):
    module = on_meta(MaxoutNet, UNITS, 3)
    state, x = random_state(module), inputs(6)
    paths = [tmp_path / f"{number}.safetensors" for number in range(3)]
    save_file(state, paths[0])
    spec = {"teacher": {"options": maxout(3)}, "steps": [{"widen": "fc1", "by": 6}]}
    ckgrow.apply(paths[0], spec, output=paths[1])
    again = {"steps": [{"widen": "*", "factor": 2, "method": "r2wider"}]}
    document = ckgrow.apply(paths[1], again, output=paths[2])
    assert document.verify.preserved
    expected = outputs_of(module, state, x)
    assert deviation(expected, outputs_of(module, load_file(paths[2]), x)) <= EXACT


def test_the_option_on_the_command_line(tmp_path):
    teacher = tmp_path / "teacher.safetensors"
    save_file(random_state(on_meta(MaxoutNet, UNITS, 3)), teacher)
    stated = command("inspect", teacher, "--option", 'activation={"maxout": 3}')
    assert stated.exit_code == 0
    assert "maxout 3" in stated.stdout
    silent = command("inspect", teacher)
    assert silent.exit_code == 2
    assert "maxout: 3" in silent.stderr


def test_the_place_behind_a_layer_is_that_of_its_units():
    state = random_state(on_meta(MaxoutNet, UNITS, 3, norm=True))
    draft = grown(state, {"widen": "fc1", "by": 3}, options=maxout(3)).plan.draft
    place = place_behind(draft, "fc1", "here")
    assert (place.channels, place.pieces, place.activation_name) == (9, 3, "maxout")
    assert [node.op for node in place.activation] == ["Reshape", "ReduceMax"]
    assert place.batch_norm is not None
    assert not place.idempotent
    last = place_behind(draft, "fc3", "here")
    assert (last.channels, last.pieces, last.activation) == (3, 1, ())
