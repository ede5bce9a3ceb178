"""The mlp adapter against torch's own forward, and what it refuses."""

import random
from collections import OrderedDict
from itertools import pairwise

import pytest
import torch
from architecture_oracles import evaluate, randomized
from chain_oracle import agrees, facts, header_of
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from ckgrow.coupling import couple
from ckgrow.errors import CheckpointError, SpecError
from ckgrow.registry import architectures

MLP = architectures()["mlp"]

TORCH_ACTIVATIONS = {
    "relu": nn.ReLU(),
    "relu6": nn.ReLU6(),
    "leaky_relu": nn.LeakyReLU(),
    "leaky_relu 0.2": nn.LeakyReLU(0.2),
    "elu": nn.ELU(),
    "elu 0.5": nn.ELU(0.5),
    "selu": nn.SELU(),
    "gelu": nn.GELU(),
    "silu": nn.SiLU(),
    "tanh": nn.Tanh(),
    "sigmoid": nn.Sigmoid(),
    "softplus": nn.Softplus(),
    "hardswish": nn.Hardswish(),
    "mish": nn.Mish(),
    "identity": nn.Identity(),
}


def sequential(widths, activation=None):
    layers = []
    for inputs, outputs in pairwise(widths):
        layers += [nn.Linear(inputs, outputs), activation or nn.ReLU()]
    return nn.Sequential(*layers[:-1])


class Named(nn.Module):
    """Linear layers under given names, functional activations, perhaps BatchNorm before them."""

    def __init__(self, widths, names, norms=(), bias=True):
        super().__init__()
        self.layer_names, self.norm_names = names, norms
        for index, name in enumerate(names):
            self._put(name, nn.Linear(widths[index], widths[index + 1], bias=bias))
        for index, name in enumerate(norms):
            self._put(name, nn.BatchNorm1d(widths[index + 1]))

    def _put(self, name, module):
        *path, last = name.split(".")
        home = self
        for part in path:
            if not hasattr(home, part):
                home.add_module(part, nn.Module())
            home = getattr(home, part)
        home.add_module(last, module)

    def forward(self, x):
        for index, name in enumerate(self.layer_names):
            x = self.get_submodule(name)(x)
            if index < len(self.norm_names):
                x = self.get_submodule(self.norm_names[index])(x)
            if index < len(self.layer_names) - 1:
                x = x.relu()
        return x


def inputs(features, count=3):
    generator = torch.Generator().manual_seed(7)
    return 2 * torch.randn(count, features, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("name", TORCH_ACTIVATIONS)
def test_every_activation(name):
    module = randomized(sequential([6, 9, 5, 3], TORCH_ACTIVATIONS[name]))
    network = agrees(MLP, module, inputs(6), {"activation": name})
    assert facts(network)["activation"][1] == "spec"


def test_modules_of_a_sequential_keep_their_paths():
    network = agrees(MLP, randomized(sequential([6, 9, 5, 3])), inputs(6))
    assert [node.name for node in network.graph.nodes] == ["0", "1", "2", "3", "4"]
    assert network.graph.outputs == ("logits",)
    assert network.graph.inputs == {"input": ("N", 6)}
    assert facts(network) == {
        "order": ("0, 2, 4", "checkpoint"),
        "activation": ("relu", "default"),
    }


def test_dropout_leaves_a_gap_that_is_no_activation():
    module = nn.Sequential(
        nn.Linear(4, 6), nn.ReLU(), nn.Dropout(), nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, 2)
    )
    network = agrees(MLP, randomized(module), inputs(4))
    assert [node.name for node in network.graph.nodes] == ["0", "1", "3", "4", "5"]


def test_neighbours_in_a_sequential_have_no_activation_between_them():
    module = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3), nn.Linear(3, 2))
    agrees(MLP, randomized(module), inputs(4))


def test_a_module_list_has_functional_activations():
    names = ["layers.0", "layers.1", "layers.2"]
    network = agrees(MLP, randomized(Named([4, 4, 4, 4], names)), inputs(4))
    assert "layers.0/relu" in [node.name for node in network.graph.nodes]
    assert facts(network)["order"][1] == "checkpoint"


@pytest.mark.parametrize(
    ("names", "widths", "source"),
    [
        (["fc1", "fc2", "fc3"], [8, 8, 8, 8], "checkpoint"),
        ([f"fc{index}" for index in range(1, 13)], [5] * 13, "checkpoint"),
        (["net.fc_in", "net.fc_mid", "net.fc_out"], [4, 6, 7, 2], "checkpoint"),
        (["input_layer", "hidden.0", "hidden.1", "output"], [4, 6, 6, 6, 2], "checkpoint"),
        (["input_layer", "hidden.0", "hidden.1", "output"], [4, 6, 3, 9, 2], "checkpoint"),
        (["encoder.0", "encoder.1", "decoder.0", "decoder.1"], [9, 6, 3, 5, 8], "checkpoint"),
        (["hidden_a", "hidden_b", "head"], [4, 4, 4, 2], "default"),
        (["fc1", "fc1_grown1", "fc1_grown2", "fc2"], [4, 6, 6, 6, 6], "checkpoint"),
        (["start", "start_grown1", "hidden", "out"], [4, 6, 6, 6, 2], "checkpoint"),
        (["fc1", "fc1_grown2", "fc1_grown1", "fc2"], [4, 6, 9, 6, 2], "checkpoint"),
        (["only"], [4, 2], "checkpoint"),
    ],
)
def test_order(names, widths, source):
    network = agrees(MLP, randomized(Named(widths, names)), inputs(widths[0]))
    assert facts(network)["order"] == (", ".join(names), source)


def test_a_closed_chain_may_start_anywhere():
    names = ["encoder.0", "encoder.1", "decoder.0", "decoder.1"]
    module = randomized(Named([8, 6, 3, 6, 8], names))
    found = MLP.build(header_of(module.state_dict()), {})
    assert facts(found)["order"][1] == "default"
    network = agrees(MLP, module, inputs(8), {"order": names})
    assert facts(network)["order"][1] == "spec"


@pytest.mark.parametrize(
    ("names", "norms", "source"),
    [
        (["fc1", "fc2", "fc3"], ["bn1", "bn2"], "checkpoint"),
        (["fc1", "fc2", "fc3"], ["bn1", "bn2", "bn3"], "checkpoint"),
        (["fcs.0", "fcs.1", "fcs.2"], ["norms.0", "norms.1"], "checkpoint"),
        (["b.0.fc", "b.1.fc", "out"], ["b.0.bn", "b.1.bn"], "checkpoint"),
        (["b.0.0", "b.1.0", "out.0"], ["b.0.1", "b.1.1"], "checkpoint"),
        (["l.0", "l.2", "l.4"], ["l.1", "l.3"], "checkpoint"),
        (["start", "middle", "out"], ["norm_a", "norm_b"], "checkpoint"),
    ],
)
def test_batch_norm_belongs_to_the_layer_before_it(names, norms, source):
    module = randomized(Named([4, 6, 5, 3], names, norms))
    network = agrees(MLP, module, inputs(4))
    found = facts(network)
    assert found["BatchNorm of each layer"][1] == source
    assert found["normalization"] == ("before the activation", "default")
    assert len(network.passthrough) == len(norms)


def test_equal_widths_and_unlike_names_leave_the_owner_of_a_batch_norm_open():
    module = Named([4, 6, 6, 3], ["start", "start_grown1", "out"], ["norm"])
    found = facts(MLP.build(header_of(module.state_dict()), {}))
    assert found["BatchNorm of each layer"] == ("start: norm", "default")


def test_indices_show_where_a_batch_norm_stands():
    before = nn.Sequential(
        nn.Linear(4, 6), nn.BatchNorm1d(6), nn.Tanh(), nn.Linear(6, 6), nn.Tanh(), nn.Linear(6, 2)
    )
    after = nn.Sequential(
        nn.BatchNorm1d(4), nn.Linear(4, 6), nn.Tanh(), nn.BatchNorm1d(6), nn.Linear(6, 2)
    )
    for module, where in ((before, "before"), (after, "after")):
        network = agrees(MLP, randomized(module), inputs(4), {"activation": "tanh"})
        assert facts(network)["normalization"] == (f"{where} the activation", "checkpoint")


def test_stated_placement_and_epsilon():
    module = randomized(Named([4, 6, 3], ["fc1", "fc2"], ["bn1"]))
    module.bn1.eps = 0.3

    def forward(x):
        return module.fc2(module.bn1(module.fc1(x).relu()))

    options = {"normalization": "after", "epsilon": 0.3}
    network = agrees(MLP, module, inputs(4), options, forward=forward)
    assert facts(network)["normalization"][1] == facts(network)["epsilon"][1] == "spec"


def test_an_activation_for_each_layer():
    module = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 2))
    agrees(MLP, randomized(module), inputs(4), {"activation": {0: "tanh", "2": "relu"}})


@given(
    widths=st.lists(st.integers(1, 7), min_size=2, max_size=6),
    naming=st.sampled_from(["{}", "fc{}", "layers.{}", "net.fc_{}", "block.{}.linear"]),
    step=st.integers(1, 3),
    norm=st.booleans(),
    bias=st.booleans(),
    shuffle=st.randoms(use_true_random=False),
)
def test_any_widths_and_names(widths, naming, step, norm, bias, shuffle):
    count = len(widths) - 1
    names = [naming.format(index * step + 8) for index in range(count)]
    norms = [f"norms.{index * step + 8}" for index in range(count - 1)] if norm else []
    module = randomized(Named(widths, names, norms, bias))
    tensors = list(module.state_dict().items())
    shuffle.shuffle(tensors)
    shuffled = OrderedDict(tensors)
    header = header_of(shuffled)
    assert MLP.explain(header).complete
    network = MLP.build(header, {})
    assert facts(network)["order"] == (", ".join(names), "checkpoint")
    x = inputs(widths[0])
    is_sequential = naming in ("{}", "layers.{}")
    if norm or not is_sequential or step > 1 or count == 1:
        found = evaluate(network.graph, shuffled, x)["logits"]
        assert torch.allclose(found, module(x), rtol=1e-10, atol=1e-12)


def test_shuffled_keys_give_the_same_graph():
    tensors = list(randomized(Named([5] * 9, [f"fc{n}" for n in range(8)])).state_dict().items())
    graph = MLP.build(header_of(dict(tensors)), {}).graph
    random.Random(3).shuffle(tensors)
    assert MLP.build(header_of(dict(tensors)), {}).graph == graph


def test_hidden_widths_can_grow_and_ends_cannot():
    module = sequential([6, 9, 5, 3])
    header = header_of(module.state_dict())
    coupled = couple(MLP.build(header, {}).graph, header)
    growable = sorted(n for atom, n in coupled.counts.items() if atom not in coupled.fixed)
    assert growable == [5, 9]


def test_stages_and_stock():
    header = header_of(sequential([6, 9, 3]).state_dict())
    assert MLP.stages(MLP.build(header, {}).graph) == ()
    assert "Linear" in MLP.stock(header)
    assert MLP.stock(header_of({"a.weight": (3, 3), "a_grown1.weight": (3, 3)})) is None


LINEAR = {"fc1.weight": (6, 4), "fc1.bias": (6,), "fc2.weight": (3, 6), "fc2.bias": (3,)}
STATISTICS = {"bn1.running_mean": (6,), "bn1.running_var": (6,)}
AFFINE = {"bn1.weight": (6,), "bn1.bias": (6,)}


@pytest.mark.parametrize(
    ("keys", "text"),
    [
        ({"fc1.weight": (6, 4), "fc2.weight": (3, 7)}, "in no order does each of the 2 layers"),
        (LINEAR | {"fc2.bias": (4,)}, "fc2.bias has shape [4], but fc2.weight makes 3 channels"),
        (LINEAR | STATISTICS, "affine=False"),
        (LINEAR | AFFINE, "track_running_stats=False"),
        (LINEAR | STATISTICS | AFFINE | {"bn1.bias": (5,)}, "bn1.bias has shape [5]"),
        (
            LINEAR | {f"bn1.{part}": (9,) for part in ("weight", "bias")}
            | {f"bn1.{part}": (9,) for part in ("running_mean", "running_var")},
            "bn1 has 9 channels and fits behind no layer",
        ),
    ],
)  # fmt: skip
def test_problems_are_sentences(keys, text):
    explanation = MLP.explain(header_of(keys))
    assert not explanation.complete
    assert text in " ".join(explanation.problems)


def test_build_refuses_what_explain_finds():
    with pytest.raises(CheckpointError, match="in no order"):
        MLP.build(header_of({"fc1.weight": (6, 4), "fc2.weight": (3, 7)}), {})
    loose = {f"bn1.{part}": (9,) for part in ("weight", "bias", "running_mean", "running_var")}
    with pytest.raises(CheckpointError, match="bn1 has 9 channels and fits behind no layer"):
        MLP.build(header_of(LINEAR | loose), {})


@pytest.mark.parametrize("names", ["blocks.{}.fc{}", "net.{}.mlp.{}", "l.{}.{}.fc"])
def test_numbered_blocks_may_hide_a_shortcut(names):
    keys = {"stem.weight": (6, 4), "head.weight": (2, 6)}
    for block in (0, 1):
        keys[f"{names.format(block, 1)}.weight"] = (9, 6)
        keys[f"{names.format(block, 2)}.weight"] = (6, 9)
    explanation = MLP.explain(header_of(keys))
    assert "it may be a residual block" in explanation.problems[0]
    with pytest.raises(CheckpointError, match="may be a residual block"):
        MLP.build(header_of(keys), {})


def test_numbered_layers_in_numbered_sequentials_are_plain():
    keys = {"net.0.0.weight": (6, 6), "net.0.2.weight": (6, 6), "net.1.0.weight": (6, 6)}
    assert MLP.explain(header_of(keys)).complete


def test_missing_parts_of_a_batch_norm_are_named():
    keys = LINEAR | {"bn1.running_mean": (6,)} | AFFINE
    assert MLP.explain(header_of(keys)).missing == ("bn1.running_var",)


@pytest.mark.parametrize(
    "key", ["scale.weight", "scale", "conv.weight", ".weight", "fc1.weight_g", "deep.weight"]
)
def test_foreign_keys_are_unexplained(key):
    shapes = {"conv.weight": (3, 3, 1, 1), ".weight": (3, 3), "deep.weight": (2, 2, 2)}
    explanation = MLP.explain(header_of(LINEAR | {key: shapes.get(key, (6,))}))
    assert explanation.unexplained == (key,)
    assert explanation.explained == set(LINEAR)


def test_whole_numbers_and_empty_layers_are_no_layers():
    tensors = {"fc1.weight": torch.zeros(3, 4, dtype=torch.int8), "fc2.weight": torch.zeros(0, 3)}
    explanation = MLP.explain(header_of(tensors))
    assert explanation.unexplained == ("fc1.weight", "fc2.weight")
    assert not explanation.explained


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"activation": "rellu"}, "did you mean 'relu'"),
        ({"activation": "relu 0.1"}, "takes no number"),
        ({"activation": "elu x"}, "write one number behind elu"),
        ({"activation": "elu 1 2"}, "write one number behind elu"),
        ({"activation": ""}, "choices: relu"),
        ({"activation": {"fc2": "relu"}}, "names fc2, which has no activation behind it"),
        ({"activation": {}}, "says nothing of fc1"),
        ({"order": "fc1"}, "must be a list"),
        ({"order": ["fc1"]}, "leaves out fc2"),
        ({"order": ["fc1", "fc2", "fc2"]}, "names a layer twice"),
        ({"order": ["fc1", "fcl"]}, "names fcl, which is no layer; the nearest is fc"),
        ({"order": ["fc2", "fc1"]}, "it reads 4 channels and 3 arrive"),
        ({"normalization": "behind"}, "choices: before, after"),
        ({"epsilon": -1}, "above 0"),
        ({"wings": 2}, "there is no option 'wings'"),
    ],
)
def test_wrong_options(options, text):
    with pytest.raises(SpecError) as failure:
        MLP.build(header_of(LINEAR), options)
    assert text in str(failure.value)


def test_hostile_headers_are_answered_at_once():
    deep = "0." * 100_000 + "weight"
    far = {"0.weight": (3, 3), "999999999.weight": (3, 3)}
    tangled = {f"{a}_{b}.weight": (a, b) for a in range(1, 25) for b in range(1, 25)}
    many = {f"x{n}.y{'ab'[n % 2]}.weight": (3, 3) for n in range(3000)}
    for keys in (
        {deep: (3, 3)},
        far,
        tangled,
        many,
        {"\x1b[2J.weight": (3, 4), "b.weight": (9, 9)},
    ):
        explanation = MLP.explain(header_of(keys))
        assert all(problem.isprintable() for problem in explanation.problems)
        if explanation.complete:
            MLP.build(header_of(keys), {})
