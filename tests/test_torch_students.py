"""Students of training checkpoints: what comes out trains on in stock modules, as it came in."""

from __future__ import annotations

import os
import resource
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torchvision
from commands import ckgrow, document, listing, process, written
from safetensors.torch import load_file
from student_oracles import deviation, images, on_meta, outputs_of, random_state

from ckgrow.checkpoint import File
from ckgrow.files import RegularFile, open_checkpoint
from ckgrow.registry import formats

SPEC = "teacher: {architecture: mlp, options: {activation: relu}}\nsteps: [{widen: '0', factor: 2}]"
RESNET = "steps: [{widen: 'layer[34].*.conv1', factor: 1.5}, {deepen: layer2, blocks: 1}]"


def mlp(width: int = 6) -> torch.nn.Sequential:
    return torch.nn.Sequential(
        torch.nn.Linear(4, width), torch.nn.ReLU(), torch.nn.Linear(width, 3)
    )


def state(seed: int = 0, prefix: str = "", dtype: Any = torch.float32) -> dict[str, torch.Tensor]:
    torch.manual_seed(seed)
    return {prefix + name: each.to(dtype) for name, each in mlp().state_dict().items()}


def training() -> dict[str, Any]:
    torch.manual_seed(0)
    module = mlp()
    optimizer = torch.optim.Adam(module.parameters())
    module(torch.ones(1, 4)).sum().backward()
    optimizer.step()
    return {
        "epoch": 7,
        "state_dict": module.state_dict(),
        "optimizer": optimizer.state_dict(),
        "scheduler": {"base_lrs": [0.1], "last_epoch": 7},
        "state_dict_ema": state(1, "module.", torch.float64),
        "best": torch.tensor(0.75),
    }


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    torch.save(training(), tmp_path / "t.pt")
    torch.save(state(), tmp_path / "bare.pth")
    written(tmp_path / "s.yaml", SPEC)
    return tmp_path


def loaded(path: Path) -> Any:
    return torch.load(path, weights_only=True)


def apply(folder: Path, output: str, *options: object, teacher: str = "t.pt", code: int = 0) -> Any:
    arguments = folder / teacher, folder / "s.yaml", "-o", folder / output, *options
    return document("apply", *arguments, code=code)


def refused(folder: Path, output: str, *options: object, teacher: str = "t.pt") -> str:
    """The message, after nothing was left behind."""
    before = listing(folder)
    done = ckgrow("apply", folder / teacher, folder / "s.yaml", "-o", folder / output, *options)
    assert done.exit_code == 2
    assert listing(folder) == before
    return done.stderr


def without_prefix(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name.removeprefix("module."): each for name, each in tensors.items()}


def test_every_state_dict_of_a_training_checkpoint_grows(folder):
    done = apply(folder, "a.pt", "--drop", "optimizer")
    assert done["verify"]["preserved"]
    assert done["dropped"] == ["optimizer"]
    teacher, student = loaded(folder / "t.pt"), loaded(folder / "a.pt")
    assert list(student) == [*(key for key in teacher if key != "optimizer"), "ckgrow"]
    assert (student["epoch"], student["best"].item()) == (7, 0.75)
    assert student["scheduler"] == teacher["scheduler"]
    x = images(8, 4)
    for name in ("state_dict", "state_dict_ema"):
        assert list(student[name]) == list(teacher[name])
        before, after = without_prefix(teacher[name]), without_prefix(student[name])
        mlp(12).load_state_dict(after, strict=True)
        assert deviation(outputs_of(mlp(), before, x), outputs_of(mlp(12), after, x)) < 1e-6
    assert student["state_dict_ema"]["module.0.weight"].dtype == torch.float64


def test_the_same_maps_in_all(folder):
    """A unit that is a copy in one is a copy of the same unit in the other."""
    apply(folder, "a.pt", "--drop", "optimizer")
    student = loaded(folder / "a.pt")
    copies = []
    for name in ("state_dict", "state_dict_ema"):
        rows = without_prefix(student[name])["0.weight"]
        copies.append([[int(torch.equal(a, b)) for a in rows] for b in rows])
    assert copies[0] == copies[1]
    assert np.sum(copies[0]) == 24


def test_the_tensors_are_those_of_a_safetensors_student(folder):
    torch_file = apply(folder, "a.pt", "--drop", "optimizer")
    other = apply(folder, "a.safetensors")
    assert torch_file["hashes"] == other["hashes"]
    assert other["dropped"] == ["epoch", "optimizer", "scheduler", "state_dict_ema", "best"]
    tensors = load_file(folder / "a.safetensors")
    assert all(
        torch.equal(each, tensors[k]) for k, each in loaded(folder / "a.pt")["state_dict"].items()
    )
    bare = apply(folder, "b.pth", teacher="bare.pth")
    assert (
        bare["hashes"]["student"]
        == apply(folder, "b.safetensors", teacher="bare.pth")["hashes"]["student"]
    )


def test_a_bare_state_dict_stays_bare(folder):
    apply(folder, "a.pth", teacher="bare.pth")
    assert list(loaded(folder / "a.pth")) == list(state())
    assert sorted(os.listdir(folder)) == [
        "a.pth",
        "a.pth.ckgrow.json",
        "bare.pth",
        "s.yaml",
        "t.pt",
    ]
    shown = document("inspect", folder / "a.pth")
    assert len(shown["lineage"]) == 1
    both = folder / "bare.pth", folder / "a.pth"
    assert document("verify", *both, "--proof")["proof"] == "proven"
    assert apply(folder, "a.pth", teacher="bare.pth")["status"] == "up to date"
    (folder / "a.pth.ckgrow.json").unlink()
    assert document("inspect", folder / "a.pth")["lineage"] == []


def test_up_to_date_is_the_whole_container(folder):
    apply(folder, "a.pt", "--drop", "optimizer")
    assert apply(folder, "a.pt", "--drop", "optimizer")["status"] == "up to date"
    fewer = "--drop", "optimizer", "--drop", "state_dict_ema"
    done = ckgrow("apply", folder / "t.pt", folder / "s.yaml", "-o", folder / "a.pt", *fewer)
    assert done.exit_code == 4
    assert "exists" in done.stderr
    assert apply(folder, "a.pt", "--force", *fewer)["status"] == "written"
    assert "state_dict_ema" not in loaded(folder / "a.pt")


def test_the_same_bytes_whoever_makes_them(folder):
    apply(folder, "a.pt", "--drop", "optimizer", "--workers", 1)
    (folder / "elsewhere").mkdir()
    apply(folder, "elsewhere/another.ckpt", "--drop", "optimizer", "--workers", 4)
    assert (folder / "a.pt").read_bytes() == (folder / "elsewhere/another.ckpt").read_bytes()


def test_the_old_layout_comes_out_in_the_new(folder):
    value = training()
    torch.save(value, folder / "old.pt", _use_new_zipfile_serialization=False)
    apply(folder, "a.pt", "--drop", "optimizer", teacher="old.pt")
    apply(folder, "b.pt", "--drop", "optimizer")
    assert (folder / "a.pt").read_bytes()[:2] == b"PK"
    old, new = loaded(folder / "a.pt"), loaded(folder / "b.pt")
    assert all(torch.equal(old["state_dict"][key], each) for key, each in new["state_dict"].items())


def test_other_weights(folder):
    done = apply(folder, "a.pt", "--weights", "state_dict_ema", "--drop", "optimizer")
    assert done["verify"]["preserved"]
    assert list(loaded(folder / "a.pt")) == [
        *(key for key in training() if key != "optimizer"),
        "ckgrow",
    ]
    again = apply(folder, "a.pt", "--weights", "state_dict_ema", "--drop", "optimizer")
    assert again["status"] == "up to date"
    both = folder / "t.pt", folder / "a.pt"
    for weights in ("state_dict_ema", "state_dict"):
        assert document("verify", *both, "--weights", weights)["preserved"]


def test_verify_compares_what_is_called_alike(folder):
    apply(folder, "a.pt", "--drop", "optimizer")
    broken = loaded(folder / "a.pt")
    broken["state_dict_ema"]["module.0.bias"][0] += 1
    torch.save(broken, folder / "b.pt")
    both = folder / "t.pt", folder / "b.pt"
    assert document("verify", *both)["preserved"]
    assert document("verify", *both, "--weights", "state_dict")["preserved"]
    assert not document("verify", *both, "--weights", "state_dict_ema", code=1)["preserved"]
    apply(folder, "e.safetensors", "--weights", "state_dict_ema")
    one = folder / "t.pt", folder / "e.safetensors"
    assert document("verify", *one, "--weights", "state_dict_ema")["preserved"]
    assert not document("verify", *one, code=1)["preserved"]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ((), "optimizer cannot be grown with the weights; leave that out with --drop optimizer"),
        (("--drop", "optimiser"), "--drop optimiser: there is no such entry beside the weights"),
        (("--drop", "optimizer", "--drop", "state_dict"), "these are the weights that are read"),
        (("--weights", "ema"), "no entry ema"),
    ],
)
def test_what_cannot_be_done_is_told(options, words, folder):
    assert words in refused(folder, "a.pt", *options)


def test_a_bare_teacher_has_nothing_to_drop(folder):
    assert "no such entry" in refused(folder, "a.pt", "--drop", "optimizer", teacher="bare.pth")


def test_misspelt_drops_are_told_whatever_is_written(folder):
    assert "did you mean 'optimizer'" in refused(folder, "a.safetensors", "--drop", "optimiser")


class _Corrupting:
    """A sink that flips one bit of what it passes on."""

    def __init__(self, sink: Any) -> None:
        self.sink = sink

    def write(self, name: str, start: int, rows: np.ndarray) -> None:
        rows = rows.copy()
        rows.reshape(-1).view(np.uint8)[-2 if rows.itemsize == 8 else -1] ^= 1
        self.sink.write(name, start, rows)


def test_a_broken_twin_is_found_before_anything_is_published(folder, monkeypatch):
    form = formats()["torch"]
    create = type(form).create

    def creating(self: Any, target: Any, content: Any) -> Any:
        writer = create(self, target, content)
        twin = type(writer).twin
        monkeypatch.setattr(
            type(writer), "twin", lambda *arguments: _Corrupting(twin(*arguments)), raising=True
        )
        return writer

    monkeypatch.setattr(type(form), "create", creating)
    before = listing(folder)
    done = apply(folder, "a.pt", "--drop", "optimizer", code=1)
    assert done["status"] == "failed"
    assert done["verify"]["teacher"].startswith("state_dict_ema of ")
    assert done["verify"]["reason"].startswith("state_dict_ema: ")
    assert "--drop state_dict_ema leaves it out" in done["verify"]["reason"]
    assert listing(folder) == before


def test_a_twin_that_computes_nothing(folder):
    value = training()
    value["state_dict_ema"]["module.0.weight"].fill_(float("nan"))
    torch.save(value, folder / "t.pt")
    done = apply(folder, "a.pt", "--drop", "optimizer", code=1)
    assert "--drop state_dict_ema" in done["verify"]["reason"]
    assert "NaN" in done["verify"]["reason"]
    apply(folder, "a.pt", "--drop", "optimizer", "--drop", "state_dict_ema")
    apply(folder, "b.pt", "--drop", "optimizer", "--no-verify")
    assert loaded(folder / "b.pt")["state_dict_ema"]["module.0.weight"].isnan().all()


@pytest.mark.parametrize(
    "dtypes", [(torch.float16, torch.float32), (torch.float32, torch.bfloat16)]
)
@pytest.mark.parametrize("noise", ["none", "{kind: gaussian, scale: 0.1}"])
def test_twins_of_other_precision(dtypes, noise, folder):
    """The average of a half-precision network is kept in float32."""
    own, other = dtypes
    torch.save({"model": state(0, "", own), "ema": state(0, "", other)}, folder / "t.pt")
    written(folder / "s.yaml", SPEC.replace("factor: 2", f"factor: 2, noise: {noise}"))
    done = apply(folder, "a.pt")
    assert done["verify"]["preserved"] is (noise == "none")
    student = loaded(folder / "a.pt")
    assert student["model"]["0.weight"].dtype == own
    assert student["ema"]["0.weight"].dtype == other


def test_torchvision_trains_on(tmp_path):
    """A ResNet as a distributed run leaves it, with its average: both load into the stock class."""
    module = on_meta(torchvision.models.resnet18)
    tensors = random_state(module, shrink=8)
    wrapped = {f"module.{name}": each for name, each in tensors.items()}
    average = random_state(module, seed=5, shrink=8)
    torch.save({"epoch": 1, "model": wrapped, "model_ema": average}, tmp_path / "t.pt")
    written(tmp_path / "s.yaml", RESNET)
    done = document("apply", tmp_path / "t.pt", tmp_path / "s.yaml", "-o", tmp_path / "a.pt")
    assert done["verify"]["preserved"]
    student = loaded(tmp_path / "a.pt")
    deeper = on_meta(torchvision.models.ResNet, torchvision.models.resnet.BasicBlock, [2, 3, 2, 2])
    x = images(2, 3, 64, 64)
    for name, before in {"model": tensors, "model_ema": average}.items():
        after = without_prefix(student[name])
        assert after["layer3.0.conv1.weight"].shape[0] == 48
        assert all(key.startswith("module.") for key in student[name]) is (name == "model")
        assert deviation(outputs_of(module, before, x), outputs_of(deeper, after, x)) < 1e-6


def test_a_second_generation(folder):
    apply(folder, "a.pt", "--drop", "optimizer")
    apply(folder, "b.pt", teacher="a.pt")
    student = loaded(folder / "b.pt")
    assert student["state_dict"]["0.weight"].shape == (24, 4)
    assert student["state_dict_ema"]["module.0.weight"].shape == (24, 4)
    assert list(student).count("ckgrow") == 1
    assert len(document("inspect", folder / "b.pt")["lineage"]) == 2


def test_converting_keeps_everything(folder):
    """Nothing grows, so the optimizer's state still fits."""
    document("convert", folder / "t.pt", folder / "a.pt")
    teacher, copy = loaded(folder / "t.pt"), loaded(folder / "a.pt")
    assert list(copy) == list(teacher)
    for key, value in teacher["optimizer"]["state"][0].items():
        assert torch.equal(copy["optimizer"]["state"][0][key], value)
    document("convert", folder / "t.pt", folder / "e.pt", "--weights", "state_dict_ema")
    assert list(loaded(folder / "e.pt")) == list(teacher)
    document("convert", folder / "t.pt", folder / "f.pt", "--drop", "state_dict_ema")
    assert "state_dict_ema" not in loaded(folder / "f.pt")


def test_there_and_back(folder):
    """A record and other texts of a safetensors file outlast a bare state dict."""
    apply(folder, "a.safetensors")
    for source, target in (("a.safetensors", "b.pt"), ("b.pt", "c.safetensors")):
        document("convert", folder / source, folder / target)
    assert (folder / "a.safetensors").read_bytes() == (folder / "c.safetensors").read_bytes()
    assert document("verify", folder / "t.pt", folder / "b.pt")["preserved"]


def test_files_larger_than_allowed(folder):
    """The limit of a shell: EFBIG, from the system itself."""
    torch.save(
        {f"{k}.{e}": torch.zeros(300, 300) for k in (0, 2) for e in ("weight",)}, folder / "t.pt"
    )
    before = listing(folder)
    done = process(
        *("apply", folder / "t.pt", folder / "s.yaml", "-o", folder / "a.pt"),
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (500_000, 500_000)),
    )
    assert done.returncode == 4, done.stderr
    assert "is larger than the file system or the limit of the shell allows" in done.stderr
    assert listing(folder) == before


class Elsewhere:
    """A file that this machine has no path of; everything else is as in the one it stands for."""

    path = None

    def __init__(self, file: RegularFile) -> None:
        self._file = file

    def sibling(self, name: str) -> File | None:
        found = self._file.sibling(name)
        return None if found is None else Elsewhere(found)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)


@pytest.mark.parametrize("layout", [True, False], ids=["zip", "legacy"])
def test_files_of_elsewhere(layout, folder):
    torch.save(training(), folder / "t.pt", _use_new_zipfile_serialization=layout)
    reader = open_checkpoint(Elsewhere(RegularFile(folder / "t.pt")))
    assert reader.contents.twins == ("state_dict_ema",)
    assert reader.read("0.bias", 0, 6).tolist() == training()["state_dict"]["0.bias"].tolist()
    reader.close()
    apply(folder, "a.pth", teacher="bare.pth")
    reader = open_checkpoint(Elsewhere(RegularFile(folder / "a.pth")))
    assert "ckgrow" in reader.contents.metadata
    reader.close()


def test_adapters_say_that_torch_files_are_written():
    assert "format torch (.pt .pth .th .bin .ckpt): read and written" in ckgrow("adapters").stdout


def test_the_teacher_is_left_alone(folder):
    before = (folder / "t.pt").read_bytes()
    apply(folder, "a.pt", "--drop", "optimizer")
    shutil.copy(folder / "a.pt", folder / "kept.pt")
    apply(folder, "a.pt", "--drop", "optimizer", "--force")
    assert (folder / "t.pt").read_bytes() == before
    assert (folder / "a.pt").read_bytes() == (folder / "kept.pt").read_bytes()
