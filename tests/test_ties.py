"""Tensors that are one parameter grow together and stay one, or the run refuses."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torchvision
from commands import ckgrow, document, written
from method_matrix import WIDEN
from safetensors.numpy import load_file
from student_oracles import deviation, grown, images, on_meta, outputs_of, random_state

from ckgrow import load_into
from ckgrow.errors import SpecError
from ckgrow.header import TensorSpec
from ckgrow.loading import Wish, load
from ckgrow.maps import ChannelMap
from ckgrow.planning.ties import _Alike
from ckgrow.random import Stream
from ckgrow.recipes import Divided, Drawn, Placed, Recipe, Statistic, Stored
from ckgrow.reports.describing import describe_checkpoint

LINEARS = (0, 2, 4, 6)


def mlp(width: int = 8, activation: Any = torch.nn.ReLU) -> torch.nn.Sequential:
    """Four layers, of which the two in the middle have the same shape."""
    sizes = [(5, width), (width, width), (width, width), (width, 3)]
    layers: list[torch.nn.Module] = []
    for before, after in sizes:
        layers += [torch.nn.Linear(before, after), activation()]
    return torch.nn.Sequential(*layers[:-1])


def tied_mlp(width: int = 8) -> dict[str, torch.Tensor]:
    """The tensors of one in which the second and the third layer share their weight."""
    torch.manual_seed(0)
    module = mlp(width)
    module[4].weight = module[2].weight
    return dict(module.state_dict())


def widths(state: Any) -> list[int]:
    return [len(state[f"{number}.bias"]) for number in LINEARS]


def same(state: Any, *names: str) -> bool:
    first, *others = (np.asarray(state[name]).tobytes() for name in names)
    return all(each == first for each in others)


@pytest.mark.parametrize("layer", ["0", "2", "4"])
@pytest.mark.parametrize("method", sorted(WIDEN.keys() - {"fold"}))
def test_layers_that_share_a_weight_widen_together(method, layer):
    state = tied_mlp()
    step = {"widen": layer, "factor": 2, **WIDEN[method]}
    student = grown(state, step, architecture="mlp", options={"activation": "relu"})
    assert widths(student.tensors) == [16, 16, 16, 3]
    assert same(student.tensors, "2.weight", "4.weight")
    assert not same(student.tensors, "2.bias", "4.bias")
    assert student.tensors["2.weight"].shape == (16, 16)
    x = images(6, 5)
    before, after = (outputs_of(mlp().eval(), each, x) for each in (state, student.tensors))
    if method != "random-pad" and "both" not in method:
        assert deviation(before, after) < 1e-6


def test_without_the_tie_they_do_not():
    state = {name: each.clone() for name, each in tied_mlp().items()}
    student = grown(state, {"widen": "2", "factor": 2}, architecture="mlp")
    assert widths(student.tensors) == [8, 16, 8, 3]


def test_the_table_of_groups_says_so():
    with load(tied_mlp(), Wish("mlp")) as loaded:
        groups = describe_checkpoint(loaded).groups
    (inner,) = (each for each in groups if each.growable)
    assert inner.layers == ("0", "2", "4")
    with load({f"module.{name}": each for name, each in tied_mlp().items()}, Wish("mlp")) as loaded:
        assert loaded.ties == (("2.weight", "4.weight"),)


def test_names_that_move_keep_their_tie():
    """In a numbered container new layers push the tied ones on."""
    state = tied_mlp()
    steps = {"deepen": "0", "layers": 1}, {"widen": "4", "factor": 1.5}
    student = grown(state, *steps, architecture="mlp", options={"activation": "relu"})
    assert student.plan.draft.renames["2.weight"] == "4.weight"
    assert student.plan.draft.current_ties == (("4.weight", "6.weight"),)
    assert same(student.tensors, "4.weight", "6.weight")
    assert student.tensors["4.weight"].shape == (12, 12)
    deeper = torch.nn.Sequential(torch.nn.Linear(5, 8), torch.nn.ReLU(), *mlp())
    expected = outputs_of(mlp(), state, images(6, 5))
    assert deviation(expected, outputs_of(deeper, student.tensors, images(6, 5))) < 1e-6


@pytest.mark.parametrize(
    "step",
    [
        {"widen": "layer1.0.conv1", "factor": 2},
        {"widen": "layer1.1.conv1", "by": 3, "method": "netmorph"},
        {"widen": "layer1.*", "factor": 1.5},
        {"deepen": "layer1", "blocks": 1},
    ],
)
def test_convolutions_that_share_a_weight(step):
    module = on_meta(torchvision.models.resnet18)
    state = random_state(module, shrink=8)
    state["layer1.1.conv1.weight"] = state["layer1.0.conv1.weight"]
    student = grown(state, step)
    tensors = student.tensors
    assert same(tensors, "layer1.0.conv1.weight", "layer1.1.conv1.weight")
    assert len(tensors["layer1.0.bn1.weight"]) == len(tensors["layer1.1.bn1.weight"])
    if "widen" in step:
        assert tensors["layer1.0.conv1.weight"].shape != state["layer1.0.conv1.weight"].shape
        x = images(4, 3, 64, 64)
        assert deviation(outputs_of(module, state, x), outputs_of(module, tensors, x)) < 1e-5


@pytest.mark.parametrize(
    "step",
    [
        {"kernel": "layer1.0.conv1", "to": 5},
        {"deepen": "layer1.0.conv1", "method": "netmorph"},
    ],
)
def test_what_would_part_them_is_refused_by_name(step):
    state = random_state(on_meta(torchvision.models.resnet18), shrink=8)
    state["layer1.1.conv1.weight"] = state["layer1.0.conv1.weight"]
    with pytest.raises(SpecError) as refused:
        grown(state, step)
    message = str(refused.value)
    assert "layer1.0.conv1.weight and layer1.1.conv1.weight are one tensor" in message
    assert "grow their layers together, or untie them" in message


def test_what_grows_alike_may_be_grown_alike():
    state = random_state(on_meta(torchvision.models.resnet18), shrink=8)
    state["layer1.1.conv1.weight"] = state["layer1.0.conv1.weight"]
    student = grown(state, {"kernel": "layer1.[01].conv1", "to": 5})
    assert same(student.tensors, "layer1.0.conv1.weight", "layer1.1.conv1.weight")


def test_a_weight_used_in_two_ways_holds_its_channels():
    """The first layer's columns are the input's, so none of these can grow."""
    torch.manual_seed(0)
    module = torch.nn.Sequential(
        torch.nn.Linear(8, 8), torch.nn.ReLU(), torch.nn.Linear(8, 8), torch.nn.ReLU(),
        torch.nn.Linear(8, 3),
    )  # fmt: skip
    module[2].weight = module[0].weight
    with pytest.raises(SpecError, match="graph input"):
        grown(dict(module.state_dict()), {"widen": "0", "factor": 2}, architecture="mlp")


def test_one_of_three_names():
    state = tied_mlp()
    state["4.bias"] = state["2.bias"] = state["0.bias"]
    student = grown(state, {"widen": "2", "factor": 2}, architecture="mlp")
    assert same(student.tensors, "0.bias", "2.bias", "4.bias")
    assert len(student.tensors["0.bias"]) == 16


SPEC = "teacher: {architecture: mlp, options: {activation: relu}}\nsteps: [{widen: '2', factor: 2}]"


@pytest.fixture
def files(tmp_path: Path) -> Path:
    torch.save(tied_mlp(32), tmp_path / "t.pt")
    written(tmp_path / "s.yaml", SPEC)
    return tmp_path


def loaded(path: Path) -> Any:
    return torch.load(path, weights_only=True)


def test_through_torch_files(files):
    done = document("apply", files / "t.pt", files / "s.yaml", "-o", files / "a.pt")
    assert done["verify"]["preserved"]
    student = loaded(files / "a.pt")
    assert student["2.weight"].data_ptr() == student["4.weight"].data_ptr()
    assert (files / "a.pt").stat().st_size < 1.5 * student["2.weight"].numel() * 4
    module = mlp(64)
    module[4].weight = module[2].weight
    module.load_state_dict(student, strict=True)
    document("convert", files / "a.pt", files / "b.pt")
    again = loaded(files / "b.pt")
    assert again["2.weight"].data_ptr() == again["4.weight"].data_ptr()
    assert all(same({"a": again[name], "b": student[name]}, "a", "b") for name in student)


def test_a_module_that_ties_them_takes_the_student(files):
    document("apply", files / "t.pt", files / "s.yaml", "-o", files / "a.pt")
    module = mlp(32)
    module[4].weight = module[2].weight
    load_into(module, files / "a.pt")
    assert module[4].weight is module[2].weight
    assert module[2].weight.shape == (64, 64)


def test_through_safetensors(files):
    """Which has no ties: two names with the same bytes."""
    document("apply", files / "t.pt", files / "s.yaml", "-o", files / "a.safetensors")
    student = load_file(files / "a.safetensors")
    assert same(student, "2.weight", "4.weight")
    document("apply", files / "t.pt", files / "s.yaml", "-o", files / "a.pt")
    assert all(same({"a": each, "b": student[name]}, "a", "b") for name, each in
               loaded(files / "a.pt").items())  # fmt: skip


def test_a_tie_between_state_dicts(files):
    state = tied_mlp(32)
    container = {
        "model": state,
        "state_dict": state,
        "ema": {k: v.clone() for k, v in state.items()},
    }
    torch.save(container, files / "t.pt")
    document("apply", files / "t.pt", files / "s.yaml", "-o", files / "a.pt")
    student = loaded(files / "a.pt")
    places = {student[entry]["2.weight"].data_ptr() for entry in ("model", "state_dict")}
    assert len(places) == 1
    assert student["ema"]["2.weight"].data_ptr() not in places
    assert student["ema"]["4.weight"].data_ptr() == student["ema"]["2.weight"].data_ptr()


def test_ties_of_a_twin_alone(files):
    """They would make it grow otherwise than the weights do."""
    state = {name: each.clone() for name, each in tied_mlp(32).items()}
    torch.save({"state_dict": state, "ema": tied_mlp(32)}, files / "t.pt")
    done = ckgrow("apply", files / "t.pt", files / "s.yaml", "-o", files / "a.pt")
    assert done.exit_code == 2
    assert "would not grow like its weights" in done.stderr
    assert "--drop ema" in done.stderr
    assert not (files / "a.pt").exists()
    document("apply", files / "t.pt", files / "s.yaml", "-o", files / "a.pt", "--drop", "ema")


STORED = Stored(TensorSpec("float32", (4, 4)), "a")
OTHER = Stored(TensorSpec("float32", (4, 4)), "b")
MAP = ChannelMap(4, np.array([0, 1, 2, 3, 0]))


def divided(source: Recipe, stream: str, split: str = "select", copies: ChannelMap = MAP) -> Recipe:
    return Divided(source, 1, (copies,), split, (np.ones(5),), Stream(stream))


@pytest.mark.parametrize(
    ("left", "right", "alike"),
    [
        (STORED, OTHER, True),
        (STORED, Stored(STORED.spec, "c"), False),
        (divided(STORED, "x"), divided(OTHER, "y"), True),
        (divided(STORED, "x"), divided(OTHER, "x", "uniform"), False),
        (divided(STORED, "x"), divided(OTHER, "x", copies=ChannelMap(4, np.arange(4))), False),
        (Placed(STORED, 0, (MAP,)), Placed(OTHER, 0, (MAP,)), True),
        (Placed(STORED, 0, (MAP,)), Placed(OTHER, 1, (MAP,)), False),
        (STORED, Placed(OTHER, 0, (MAP,)), False),
        (
            Drawn(STORED.spec, Stream(1), Statistic("deviation", STORED, "a")),
            Drawn(STORED.spec, Stream(2), Statistic("deviation", OTHER, "b")),
            True,
        ),
        (
            Drawn(STORED.spec, Stream(1), Statistic("deviation", STORED, "a")),
            Drawn(STORED.spec, Stream(2), Statistic("mean", OTHER, "b")),
            False,
        ),
    ],
)
def test_which_recipes_are_alike(left, right, alike):
    assert _Alike({"b": "a"}).are(left, right) is alike
