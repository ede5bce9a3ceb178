"""Training checkpoints as torch files: what is in them, and that it is there again when written."""

from __future__ import annotations

import os
import time
import zipfile
from collections import OrderedDict
from typing import Any

import numpy as np
import pytest
import torch
from torch_files import FORMAT, copied, resaved
from written_files import created, opened

from ckgrow.errors import CheckpointError, SpecError
from ckgrow.header import Header, TensorSpec


def state_dict(scale: float = 1.0, prefix: str = "", dtype: Any = torch.float32) -> dict[str, Any]:
    made = torch.nn.Linear(3, 2).state_dict()
    return {prefix + name: (each * scale).to(dtype) for name, each in made.items()}


def training() -> dict[str, Any]:
    """A checkpoint as training scripts leave it."""
    module = torch.nn.Linear(3, 2)
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1, momentum=0.9)
    module(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    return {
        "epoch": 3,
        "arch": "linear",
        "state_dict": module.state_dict(),
        "optimizer": optimizer.state_dict(),
        "state_dict_ema": state_dict(0.5, "module."),
        "scheduler": {"last": [0.1, 0.2], "best": None, "flag": True, 3: ("a", 2.5)},
        "loss": torch.tensor(0.25),
        "random": torch.get_rng_state(),
        "double": state_dict(2.0, "_orig_mod.module.", torch.float64),
        "other": {"w": torch.ones(3)},
        "history": [{"weights": torch.ones(3)}],
        "fresh optimizer": {"state": {}, "param_groups": [{"params": [0]}]},
        7: {"counts": torch.arange(3)},
    }


def test_what_is_in_a_training_checkpoint(tmp_path):
    torch.save(training(), tmp_path / "a.pt")
    contents = opened(FORMAT, tmp_path / "a.pt").contents
    assert contents.weights == "state_dict"
    assert contents.twins == ("state_dict_ema", "double")
    assert contents.ungrown == ("optimizer", "other", "history", "fresh optimizer")
    assert contents.dropped == tuple(str(key) for key in training() if key != "state_dict")
    other = opened(FORMAT, tmp_path / "a.pt", "other").contents
    assert other.twins == ()
    assert "state_dict" in other.ungrown


@pytest.mark.parametrize("layout", [True, False], ids=["zip", "legacy"])
def test_a_container_stays_one(layout, tmp_path):
    value = training()
    torch.save(value, tmp_path / "a.pt", _use_new_zipfile_serialization=layout)
    found = resaved(tmp_path / "a.pt", tmp_path / "b.pt", {"ckgrow": "record"}, drop=("optimizer",))
    assert zipfile.is_zipfile(tmp_path / "b.pt")
    assert list(found) == [*(key for key in value if key != "optimizer"), "ckgrow"]
    assert found["ckgrow"] == "record"
    assert found["scheduler"] == value["scheduler"]
    assert (found["epoch"], found["arch"]) == (3, "linear")
    assert torch.equal(found["random"], value["random"])
    for name in ("state_dict", "state_dict_ema", "double", "other"):
        assert list(found[name]) == list(value[name])
        for key, tensor in value[name].items():
            assert found[name][key].dtype == tensor.dtype
            assert torch.equal(found[name][key], tensor)
    assert type(found["state_dict"]) is OrderedDict
    assert found["state_dict"]._metadata == value["state_dict"]._metadata
    torch.nn.Linear(3, 2).load_state_dict(found["state_dict"], strict=True)
    assert sorted(os.listdir(tmp_path)) == ["a.pt", "b.pt"]
    reader = opened(FORMAT, tmp_path / "b.pt")
    assert reader.contents.metadata == {"ckgrow": "record"}
    assert "ckgrow" not in reader.contents.dropped
    again = resaved(tmp_path / "b.pt", tmp_path / "c.pt", {"ckgrow": "newer"})
    assert list(again) == list(found)
    assert again["ckgrow"] == "newer"


def test_what_pickles_may_hold_comes_through(tmp_path):
    """Everything that torch reads without running code, it also reads from what is written."""
    value = {
        "state_dict": state_dict(),
        "bytes": b"\x00\xff",
        "set": {1, 2},
        "size": torch.Size([1, 2]),
        "dtype": torch.float16,
        "device": torch.device("cpu"),
        "complex": 1 + 2j,
        "big": 1 << 100,
        "ordered": OrderedDict(a=1),
    }
    value["itself"] = [value["ordered"]]
    value["itself"].append(value["itself"])
    torch.save(value, tmp_path / "a.pt")
    found = resaved(tmp_path / "a.pt", tmp_path / "b.pt")
    for name in value.keys() - {"state_dict", "itself"}:
        assert found[name] == value[name]
        assert type(found[name]) is type(value[name])
    assert found["itself"][1] is found["itself"]


def nested(depth: int) -> list[Any]:
    inner: list[Any] = []
    for _ in range(depth):
        inner = [inner]
    return inner


def test_what_is_nested_too_deeply(tmp_path):
    torch.save({"state_dict": state_dict(), "deep": nested(50)}, tmp_path / "a.pt")
    reader = opened(FORMAT, tmp_path / "a.pt")
    container = reader.contents.container
    container.entries["deep"].append(nested(200_000))  # as a pickle written by hand can hold
    assert tuple(container.ungrown(["state_dict"])) == ()
    container.entries["deep"][0].append(torch.ones(1))
    assert tuple(container.ungrown(["state_dict"])) == ("deep",)
    writer = created(FORMAT, tmp_path / "b.pt", reader.header, container=container)
    copied(reader, writer)
    with pytest.raises(CheckpointError, match=r"cannot be saved again \(RecursionError\).*--drop"):
        writer.finish({})
    writer.abandon()


def test_entries_of_a_state_dict_that_are_no_tensors(tmp_path):
    value = {**state_dict(), "_extra_state": {"scale": 1.5}, "history": [torch.ones(2)], "step": 7}
    for name, wrapped in {"bare": value, "in": {"model": value, "epoch": 1}}.items():
        torch.save(wrapped, tmp_path / f"{name}.pt")
        contents = opened(FORMAT, tmp_path / f"{name}.pt").contents
        prefix = "" if name == "bare" else "model."
        assert contents.ungrown == (f"{prefix}history",)
        drop = (f"{prefix}history", f"{prefix}step")
        found = resaved(tmp_path / f"{name}.pt", tmp_path / "b.pt", drop=drop)
        found = found if name == "bare" else found["model"]
        assert list(found) == ["weight", "bias", "_extra_state"]
        assert found["_extra_state"] == {"scale": 1.5}


def test_an_entry_of_our_name_that_is_no_record(tmp_path):
    torch.save({"model": state_dict(), "ckgrow": state_dict()}, tmp_path / "a.pt")
    contents = opened(FORMAT, tmp_path / "a.pt").contents
    assert contents.metadata == {}
    assert contents.ungrown == ("ckgrow",)
    assert list(resaved(tmp_path / "a.pt", tmp_path / "b.pt")) == ["model", "ckgrow"]


def test_names_of_other_kinds(tmp_path):
    """State dicts by number, as an optimizer's state is, and names that are no texts."""
    odd = {"numbers": dict(enumerate(state_dict().values()))}
    odd["surrogates"] = {name + "\ud800": each for name, each in state_dict().items()}
    torch.save({"model": state_dict(), **odd, 3: state_dict()}, tmp_path / "a.pt")
    contents = opened(FORMAT, tmp_path / "a.pt").contents
    assert contents.twins == ()
    assert contents.ungrown == (*odd, "3")


def test_a_thousand_names_for_a_thousand_tensors(tmp_path):
    """Small files stand for much where everything is named again and again."""
    weights = {f"{number}.bias": torch.ones(1) for number in range(300)}
    wide = [[number] for number in range(3000)]
    value: dict[str, Any] = {"model": weights, "wide": wide, "found": [torch.ones(1), wide]}
    value |= {f"again {number}": [wide] for number in range(3000)}
    value |= {f"twin {number}": weights for number in range(3000)}
    torch.save(value, tmp_path / "a.pt")
    started = time.monotonic()
    contents = opened(FORMAT, tmp_path / "a.pt").contents
    assert time.monotonic() - started < 20
    assert len(contents.twins) < 100
    assert "found" in contents.ungrown
    assert "again 2999" not in contents.ungrown


def test_other_weights_than_the_usual(tmp_path):
    torch.save(training(), tmp_path / "a.pt")
    reader = opened(FORMAT, tmp_path / "a.pt", "state_dict_ema")
    assert reader.contents.twins == ("state_dict", "double")
    ema = reader.read("module.weight", 0, 2)
    assert (reader.twin("double").read("_orig_mod.module.bias", 0, 2).dtype) == np.float64
    reader.close()
    found = resaved(tmp_path / "a.pt", tmp_path / "b.pt", weights="state_dict_ema")
    assert list(found) == list(training())
    assert (found["state_dict_ema"]["module.weight"].numpy() == ema).all()


def test_twins_are_plain_tensors_of_the_same_shapes(tmp_path):
    weights = state_dict()
    value = {
        "state_dict": weights,
        "more": {**state_dict(), "extra": torch.ones(1)},
        "fewer": {"weight": weights["weight"].clone()},
        "transposed": {**state_dict(), "weight": torch.ones(3, 2)},
        "sparse": {**state_dict(), "weight": torch.eye(2, 3).to_sparse()},
        "repeating": {**state_dict(), "weight": torch.ones(1).expand(2, 3)},
        "other names": {f"layer.{name}": each for name, each in state_dict().items()},
        "integers": {name: each.long() for name, each in weights.items()},
    }
    torch.save(value, tmp_path / "a.pt")
    contents = opened(FORMAT, tmp_path / "a.pt").contents
    assert contents.twins == ("integers",)
    assert contents.ungrown == tuple(value)[1:-1]


def storages(state: dict[str, torch.Tensor]) -> set[int]:
    return {each.untyped_storage().data_ptr() for each in state.values()}


def test_ties_stay(tmp_path):
    big = torch.randn(200, 200)
    half = big[:100]
    value = {"a": big, "b": torch.randn(200, 200), "c": big, "part": half, "turned": big.T}
    value |= {"empty": torch.ones(0), "nothing": torch.ones(0), "d": value["b"]}
    torch.save(value, tmp_path / "a.pt")
    assert opened(FORMAT, tmp_path / "a.pt").contents.ties == (("a", "c"), ("b", "d"))
    found = resaved(tmp_path / "a.pt", tmp_path / "b.pt")
    assert found["a"].data_ptr() == found["c"].data_ptr()
    assert found["b"].data_ptr() == found["d"].data_ptr()
    assert len(storages({k: found[k] for k in ("a", "b", "part", "turned")})) == 4
    expected = 4 * 200 * (200 + 200 + 100 + 200)
    assert expected < (tmp_path / "b.pt").stat().st_size < 1.05 * expected


def test_tied_tensors_that_differ_are_an_error(tmp_path):
    header = Header(dict.fromkeys("ab", TensorSpec("float32", (1,))))
    writer = created(FORMAT, tmp_path / "a.pt", header, ties=(("a", "b"),))
    writer.write("a", 0, np.zeros(1, np.float32))
    writer.write("b", 0, -np.zeros(1, np.float32))
    with pytest.raises(ValueError, match="'a' and 'b' are tied and differ"):
        writer.finish({})
    writer.abandon()


@pytest.mark.parametrize("same_object", [True, False])
def test_state_dicts_that_share_their_tensors(same_object, tmp_path):
    weights = {"w": torch.randn(200, 200), "nan": torch.full((2,), float("nan"))}
    other = weights if same_object else {f"module.{key}": each for key, each in weights.items()}
    apart = {key: each.clone() for key, each in weights.items()}
    torch.save({"state_dict": weights, "model": other, "ema": apart}, tmp_path / "a.pt")
    found = resaved(tmp_path / "a.pt", tmp_path / "b.pt")
    assert storages(found["state_dict"]) == storages(found["model"])
    assert not storages(found["state_dict"]) & storages(found["ema"])
    assert list(found["model"]) == list(other)


def test_averages_of_tied_weights_are_tied(tmp_path):
    """Averaging tensor by tensor parts what is one parameter, as long as both stay equal."""
    shared = torch.randn(2, generator=torch.Generator().manual_seed(0))
    weights = {"a": shared, "b": shared, "c": shared.clone()}
    average = {f"module.{name}": each * 0.5 for name, each in weights.items()}
    torch.save({"state_dict": weights, "ema": average}, tmp_path / "a.pt")
    reader = opened(FORMAT, tmp_path / "a.pt")
    assert reader.contents.twins == ("ema",)
    assert reader.twin("ema").contents.ties == (("module.a", "module.b"),)
    average["module.b"] += 1
    torch.save({"state_dict": weights, "ema": average}, tmp_path / "a.pt")
    assert opened(FORMAT, tmp_path / "a.pt").contents.ungrown == ("ema",)


def test_ties_inside_a_twin_are_its_own(tmp_path):
    shared = torch.ones(2)
    tied = {"a": shared, "b": shared}
    untied = {"a": torch.ones(2), "b": torch.ones(2)}
    torch.save({"state_dict": untied, "model": tied}, tmp_path / "a.pt")
    found = resaved(tmp_path / "a.pt", tmp_path / "b.pt")
    assert len(storages(found["state_dict"])) == 2
    assert len(storages(found["model"])) == 1


def test_a_missing_state_dict_is_told(tmp_path):
    torch.save({"state_dict": state_dict()}, tmp_path / "a.pt")
    with pytest.raises(SpecError, match="no entry ema"):
        opened(FORMAT, tmp_path / "a.pt", "ema")
