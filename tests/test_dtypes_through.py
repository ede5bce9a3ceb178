"""Dtypes through growing: each tensor keeps its own, and what cannot grow is untouched or named."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from checkpoint_libraries import FLOATS8, from_torch
from commands import ckgrow, document, listing, written
from safetensors.torch import load_file, save_file
from shipped import TEACHERS

FLOATS = ["float64", "float32", "float16", "bfloat16"]
HEADS = {
    "mlp": "seed: 1\nteacher: {options: {activation: relu}}\nsteps:\n",
    "convnet": "seed: 1\nteacher:\n  options:\n    input: [1, 8, 8]\n    activation: relu\n"
    "    pool: {conv1: max 2, conv2: max 2}\nsteps:\n",
    "resnet": "seed: 1\nteacher: {options: {input: [1, 8, 8]}}\nsteps:\n",
}
FAMILIES = {
    "net2wider": ("convnet", "widen: conv2\n    factor: 1.5"),
    "net2wider split select": (
        "resnet",
        'widen: "layer*.conv1"\n    factor: 1.5\n    split: select',
    ),
    "a stream": ("resnet", 'widen: "layer1.*.conv2"\n    factor: 1.25'),
    "r2wider": ("convnet", "widen: conv2\n    by: 8\n    method: r2wider"),
    "netmorph": ("convnet", "widen: conv2\n    factor: 1.5\n    method: netmorph"),
    "symmetric": ("convnet", "widen: conv2\n    factor: 2\n    method: symmetric"),
    "diagonal": ("mlp", 'widen: "2"\n    factor: 2\n    method: diagonal'),
    "envelope": ("convnet", "widen: conv2\n    factor: 2\n    method: envelope"),
    "net2deeper": ("convnet", "deepen: conv3\n    layers: 1"),
    "r2deeper": ("convnet", "deepen: fc1\n    layers: 2\n    method: r2deeper"),
    "zero-init": ("resnet", 'deepen: "layer2"\n    blocks: 1\n    method: zero-init'),
    "kernel": ("convnet", "kernel: conv2\n    to: 5"),
    "branch": ("convnet", "branch: conv3\n    width: 8"),
    "inputs": ("resnet", "inputs: {by: 1}"),
    "classes": ("mlp", "classes: {by: 2}"),
}


def teacher(name: str) -> dict[str, torch.Tensor]:
    return load_file(TEACHERS / f"{name}.safetensors")


def cast(tensors, dtype: str, names) -> dict[str, torch.Tensor]:
    """With the tensors ``names`` in another dtype."""
    assert set(names) <= set(tensors)
    return {
        name: each.to(getattr(torch, dtype)) if name in names else each
        for name, each in tensors.items()
    }


def is_layer(name: str) -> bool:
    """Whether a tensor belongs to a convolution or a dense layer rather than to a BatchNorm."""
    return "bn" not in name and "downsample.1" not in name


def apply(folder: Path, architecture: str, step: str, tensors, *options):
    save_file(tensors, folder / "teacher.safetensors")
    written(folder / "spec.yaml", f"{HEADS[architecture]}  - {step}\n")
    places = (folder / "teacher.safetensors", folder / "spec.yaml")
    return ckgrow("apply", *places, "-o", folder / "student.safetensors", *options)


def grown(folder: Path, architecture: str, step: str, tensors) -> dict[str, torch.Tensor]:
    """The student, which both the runtimes and the proof accept."""
    done = apply(folder, architecture, step, tensors)
    assert done.exit_code == 0, done.stderr
    files = (folder / "teacher.safetensors", folder / "student.safetensors")
    assert document("verify", *files, "--samples", 4)["preserved"]
    verdict = document("verify", *files, "--proof")
    assert (verdict["preserved"], verdict["proof"]) == (True, "proven")
    return load_file(folder / "student.safetensors")


def dtype_of(tensor: torch.Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("family", FAMILIES)
def test_every_float_grows_in_its_own_dtype(tmp_path, family, dtype):
    architecture, step = FAMILIES[family]
    floating = [name for name, each in teacher(architecture).items() if each.is_floating_point()]
    student = grown(tmp_path, architecture, step, cast(teacher(architecture), dtype, floating))
    assert {dtype_of(each) for each in student.values()} <= {dtype, "int64"}


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float64"])
@pytest.mark.parametrize("family", ["net2wider split select", "a stream", "zero-init", "inputs"])
def test_layers_and_norms_of_different_dtypes(tmp_path, family, dtype):
    """Convolutions in half precision, BatchNorm in float32, as mixed precision leaves them."""
    architecture, step = FAMILIES[family]
    tensors = teacher(architecture)
    floating = {name for name, each in tensors.items() if each.is_floating_point()}
    layers = {name for name in floating if is_layer(name)}
    student = grown(tmp_path, architecture, step, cast(tensors, dtype, layers))
    assert len(student) > 0
    for name, each in student.items():
        if each.is_floating_point():
            assert dtype_of(each) == (dtype if is_layer(name) else "float32"), name


@pytest.mark.parametrize("family", ["net2wider", "r2wider", "netmorph", "net2deeper", "kernel"])
def test_neighbours_of_different_dtypes(tmp_path, family):
    """A layer in each dtype, weight and bias apart."""
    architecture, step = FAMILIES[family]
    tensors = teacher(architecture)
    mixed = dict(zip(tensors, ["float16", "float32", "bfloat16", "float64"] * 9, strict=False))
    for name, dtype in mixed.items():
        tensors = cast(tensors, dtype, [name])
    student = grown(tmp_path, architecture, step, tensors)
    for name, dtype in mixed.items():
        assert dtype_of(student[name]) == dtype


@pytest.mark.parametrize("dtype", [f"float8_{each}" for each in FLOATS8])
def test_float8_layers_that_need_not_change_are_untouched(tmp_path, dtype):
    """They are computed with, by both runtimes, and come out as they went in."""
    tensors = teacher("mlp")
    if dtype == "float8_e8m0fnu":  # positive powers of two only
        tensors["4.weight"] = tensors["4.weight"].abs()
    tensors = cast(tensors, dtype, ["4.weight"])
    student = grown(tmp_path, "mlp", 'widen: "0"\n    factor: 1.5', tensors)
    assert student["0.weight"].shape[0] > tensors["0.weight"].shape[0]
    assert from_torch(student["4.weight"]) == from_torch(tensors["4.weight"])
    inputs = torch.randn(5, 64, dtype=torch.float64)
    made = []
    for each in (tensors, student):
        values = inputs
        for layer in ("0", "2", "4"):
            weight, bias = each[f"{layer}.weight"].double(), each[f"{layer}.bias"].double()
            values = torch.nn.functional.linear(values, weight, bias)
            values = values if layer == "4" else values.relu()
        made.append(values)
    torch.testing.assert_close(*made, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(
    "family", ["r2deeper", "net2deeper", "netmorph", "kernel", "branch", "net2wider"]
)
def test_float8_beside_any_family(tmp_path, family):
    architecture, step = FAMILIES[family]
    untouched = ["conv1.weight", "conv1.bias", "fc2.weight", "fc2.bias"]
    tensors = cast(teacher(architecture), "float8_e4m3fn", untouched)
    student = grown(tmp_path, architecture, step, tensors)
    for name in untouched:
        assert from_torch(student[name]) == from_torch(tensors[name])


REFUSED = {
    "its columns": ("net2wider", "conv3.weight", 3),
    "its rows": ("net2wider", "conv2.weight", 3),
    "its bias": ("net2wider", "conv2.bias", 3),
    "drawn rows": ("r2wider", "conv2.weight", 3),
    "copied columns": ("symmetric", "conv3.weight", 3),
    "its kernel": ("kernel", "conv2.weight", 2),
    "a layer behind": ("net2deeper", "conv3.weight", 2),
    "a layer behind, by r2deeper": ("r2deeper", "fc1.weight", 2),
    "a path beside": ("branch", "conv3.weight", 2),
    "its inputs": ("inputs", "conv1.weight", 3),
    "its classes": ("classes", "4.weight", 3),
    "the bias of its classes": ("classes", "4.bias", 3),
}


@pytest.mark.parametrize("case", REFUSED)
def test_float8_that_would_have_to_change_is_refused_by_name(tmp_path, case):
    family, name, code = REFUSED[case]
    architecture, step = FAMILIES[family]
    done = apply(tmp_path, architecture, step, cast(teacher(architecture), "float8_e5m2", [name]))
    assert done.exit_code == code, done.stderr
    assert "float8_e5m2" in done.stderr
    assert name.rpartition(".")[0] in done.stderr
    assert "convert" in done.stderr
    assert done.stderr.count("\n") == 1
    assert sorted(listing(tmp_path)) == ["spec.yaml", "teacher.safetensors"]


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int64", "bool"])
@pytest.mark.parametrize(
    ("architecture", "name"),
    [
        *(("mlp", name) for name in ("2.weight", "2.bias")),
        *(("convnet", name) for name in ("conv1.weight", "conv2.bias")),
        *(("resnet", name) for name in ("layer1.0.conv1.weight", "bn1.running_var", "fc.bias")),
    ],
)
def test_integers_in_the_place_of_weights_are_refused_by_name(tmp_path, architecture, name, dtype):
    step = "classes: {by: 1}"
    done = apply(tmp_path, architecture, step, cast(teacher(architecture), dtype, [name]))
    assert done.exit_code == 3
    assert f"{name} is {dtype}" in done.stderr
    assert sorted(listing(tmp_path)) == ["spec.yaml", "teacher.safetensors"]


def test_counters_pass_through(tmp_path):
    """Integer scalars that no node reads, in whatever integers they are."""
    tensors = teacher("resnet")
    counters = [name for name in tensors if name.endswith("num_batches_tracked")]
    tensors = cast(tensors, "int32", counters)
    student = grown(tmp_path, "resnet", FAMILIES["net2wider split select"][1], tensors)
    for name in counters:
        assert from_torch(student[name]) == from_torch(tensors[name])
