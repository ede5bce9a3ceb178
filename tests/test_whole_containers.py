"""A torch container is whole: "up to date" and "converted" speak of everything that is in it."""

from __future__ import annotations

import json
import os
import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from ckgrow.adapters.formats import _torch_container, _torch_writer
from ckgrow.adapters.formats._torch_digest import digest
from ckgrow.adapters.formats._torch_ties import joined
from commands import WIDEN, ckgrow, document, listing, python, saved, tensors, written

SAVING = "import torch; torch.save(torch.load('t.pt', weights_only=True), 't.pt')"


def state(seed: int, prefix: str = "") -> dict[str, torch.Tensor]:
    return {prefix + name: torch.from_numpy(each) for name, each in tensors(seed).items()}


def training() -> dict[str, Any]:
    return {
        "epoch": 7,
        "state_dict": state(0),
        "ema": state(1, "module."),
        "slow": state(2),
        "scheduler": {"rates": [0.1, 0.2], "best": None},
        "seen": torch.arange(5),
        "tags": {"a", "b", "c", "d"},
    }


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    torch.save(training(), "t.pt")
    written(tmp_path / "s.yaml", WIDEN)
    return tmp_path


def loaded(path: str) -> Any:
    return torch.load(path, weights_only=True)


def apply(*options: object, code: int = 0, teacher: str = "t.pt", output: str = "a.pt") -> Any:
    return document("apply", teacher, "s.yaml", "-o", output, *options, code=code)


def refused(*options: object, teacher: str = "t.pt", output: str = "a.pt") -> None:
    """Something else is there."""
    done = ckgrow("apply", teacher, "s.yaml", "-o", output, *options)
    assert done.exit_code == 4
    assert "exists; add --force" in done.stderr


def ema(value: dict[str, Any]) -> None:
    value["ema"]["module.2.bias"][1] += 1


def epoch(value: dict[str, Any]) -> None:
    value["epoch"] = 8


def nested(value: dict[str, Any]) -> None:
    value["scheduler"]["rates"][1] = 0.25


def counted(value: dict[str, Any]) -> None:
    value["seen"][2] = 9


def tags(value: dict[str, Any]) -> None:
    value["tags"].add("e")


def without(value: dict[str, Any]) -> None:
    del value["slow"]


def more(value: dict[str, Any]) -> None:
    value["note"] = "new"


def swapped(value: dict[str, Any]) -> None:
    value["ema"], value["slow"] = value["slow"], value["ema"]


def precision(value: dict[str, Any]) -> None:
    value["slow"] = {name: each.double() for name, each in value["slow"].items()}


def unwrapped(value: dict[str, Any]) -> None:
    value["ema"] = without_prefix(value["ema"])


def without_prefix(named: dict[str, Any]) -> dict[str, Any]:
    return {name.removeprefix("module."): each for name, each in named.items()}


def wrapped(value: dict[str, Any]) -> None:
    value["state_dict"] = {f"module.{name}": each for name, each in value["state_dict"].items()}


def extra(value: dict[str, Any]) -> None:
    value["state_dict"]["_extra_state"] = {"scale": 2.0}


CHANGES = [
    *(
        ema,
        epoch,
        nested,
        counted,
        tags,
        without,
        more,
        swapped,
        precision,
        unwrapped,
        wrapped,
        extra,
    ),
]
ON_DISK = [ema, epoch, nested, without, more]


@pytest.mark.parametrize("change", CHANGES)
def test_a_teacher_that_changed_beside_its_weights(folder, change: Callable[[Any], None]):
    first = apply()
    assert apply()["status"] == "up to date"
    value = training()
    change(value)
    torch.save(value, "t.pt")
    refused()
    assert apply("--force")["status"] == "written"
    again = apply()
    assert (again["status"], again["hashes"]["student"]) == (
        "up to date",
        first["hashes"]["student"],
    )
    whole = apply("--no-verify", output="b.pt")
    assert whole["status"] == "written"
    assert Path("a.pt").read_bytes() == Path("b.pt").read_bytes()


@pytest.mark.parametrize("change", ON_DISK)
def test_a_student_that_changed_beside_its_weights(folder, change: Callable[[Any], None]):
    apply()
    value = loaded("a.pt")
    change(value)
    torch.save(value, "a.pt")
    refused()


def test_the_same_container_in_other_bytes(folder):
    """As another program saves it: the old layout, other objects, another order of a set."""
    apply()
    for seed in range(3):
        assert python(SAVING, env={**os.environ, "PYTHONHASHSEED": str(seed)}).returncode == 0
        assert apply()["status"] == "up to date"
    torch.save(training(), "t.pt", _use_new_zipfile_serialization=False)
    assert apply()["status"] == "up to date"
    torch.save(loaded("a.pt"), "a.pt", _use_new_zipfile_serialization=False)
    assert apply()["status"] == "up to date"


def test_what_is_dropped_is_part_of_it(folder):
    apply("--drop", "epoch")
    assert apply("--drop", "epoch")["status"] == "up to date"
    for options in ((), ("--drop", "seen"), ("--drop", "epoch", "--drop", "ema")):
        refused(*options)
    value = training()
    value["epoch"] = 9  # which the student does not have
    torch.save(value, "t.pt")
    assert apply("--drop", "epoch")["status"] == "up to date"


def test_formats_without_containers_do_not_look_at_them(folder):
    apply(output="a.safetensors")
    value = training()
    ema(value)
    epoch(value)
    torch.save(value, "t.pt")
    assert apply(output="a.safetensors")["status"] == "up to date"


def test_a_bare_state_dict_has_entries_too(folder):
    torch.save({**state(0), "_extra_state": 1}, "t.pt")
    apply()
    assert apply()["status"] == "up to date"
    torch.save({**state(0), "_extra_state": 2}, "t.pt")
    refused()


def test_texts_of_the_teacher(folder):
    saved(folder / "t.safetensors", tensors())
    one = {"teacher": "t.safetensors", "output": "a.safetensors"}
    apply(**one)
    document("convert", "t.safetensors", "b.npz")
    side = folder / "b.npz.ckgrow.json"
    written(side, '{"schema": "ckgrow.side/1", "metadata": {"note": "new"}, "dtypes": {}}')
    refused(teacher="b.npz", output="a.safetensors")


def test_the_size_of_parts(folder):
    saved(folder / "t.safetensors", tensors())
    one = {"teacher": "t.safetensors", "output": "a.safetensors.index.json"}
    apply("--shard-size", "50", **one)
    assert apply("--shard-size", "51", **one)["status"] == "up to date"  # they are the same
    for options in (("--shard-size", "1GB"), ("--shard-size", "200"), ()):
        refused(*options, **one)
    assert apply("--shard-size", "1GB", "--force", **one)["status"] == "written"
    assert apply(**one)["status"] == "up to date"


def test_the_record_has_the_hashes_of_all(folder):
    apply()
    record = ckgrow_record("a.pt")
    assert sorted(record["twins"]) == ["ema", "slow"]
    for name, hashes in record["twins"].items():
        for file, known in (("t.pt", hashes["teacher"]), ("a.pt", hashes["student"])):
            told = document("convert", file, f"{file}-{name}.safetensors", "--weights", name)
            assert told["hash"] == known


def ckgrow_record(path: str) -> Any:
    return json.loads(loaded(path)["ckgrow"])


def test_batches_see_it(folder):
    written(folder / "m.jsonl", '{"teacher": "t.pt", "spec": "s.yaml", "output": "a.pt"}\n')
    assert batch()["done"] == 1
    value = training()
    ema(value)
    torch.save(value, "t.pt")
    told = batch(code=1)
    assert (told["skipped"], told["failed"]) == (0, 1)
    assert "--force" in told["failures"][0]["error"]
    assert batch("--force")["done"] == 1
    assert batch()["skipped"] == 1


def batch(*options: str, code: int = 0) -> Any:
    done = ckgrow("batch", "m.jsonl", "--backend", "threading", *options, "--json")
    assert done.exit_code == code, done.output
    return json.loads(done.stdout)


def test_a_twin_that_is_not_written_is_seen(folder, monkeypatch):
    class Zeroed(_torch_writer.StateDict):
        def write(self, name, start, rows):
            super().write(name, start, rows * 0 if self.header and name[0] == "m" else rows)

    monkeypatch.setattr(_torch_writer, "StateDict", Zeroed)
    require_refused_convert(folder)


def test_an_entry_that_is_not_written_is_seen(folder, monkeypatch):
    rebuilt = _torch_container.Container.rebuilt

    def forgetful(self, state_dicts, drop, record):
        made = rebuilt(self, state_dicts, drop, record)
        if any(state_dicts.values()):  # it is being written
            made["scheduler"] = {}
        return made

    monkeypatch.setattr(_torch_container.Container, "rebuilt", forgetful)
    require_refused_convert(folder)


def require_refused_convert(folder: Path) -> None:
    before = listing(folder)
    done = ckgrow("convert", "t.pt", "b.pt")
    assert (done.exit_code, done.stdout) == (3, "")
    assert "b.pt would not hold what was read" in done.stderr
    assert listing(folder) == before


def test_converted_to_itself_everything_is_there(folder):
    value = training()
    value["optimizer"] = {"state": {0: {"avg": torch.randn(3)}}, "param_groups": [{"lr": 0.1}]}
    value["sparse"] = torch.eye(3).to_sparse()
    value["nan"] = [float("nan"), -0.0, 10**100, b"\xff", None]
    value["itself"] = value["nan"]
    torch.save(value, "t.pt")
    told = document("convert", "t.pt", "b.pt")
    assert told["dropped"] == []
    found = loaded("b.pt")
    assert list(found) == list(value)
    assert found["nan"] is found["itself"]
    assert torch.equal(found["optimizer"]["state"][0]["avg"], value["optimizer"]["state"][0]["avg"])


def cyclic() -> list[Any]:
    made: list[Any] = [1]
    made.append(made)
    return made


def shared(times: int) -> Any:
    """A structure that is much larger when it is written out than it is."""
    inner: list[Any] = [1.5]
    for _ in range(times):
        inner = [inner, inner]
    return inner


ALIKE = [
    lambda: {"a": 1, "b": [True, None, "x", b"y", 2.5, 1j, (1, 2), torch.float16]},
    lambda: {frozenset({3, "a"}), "b", 4},
    lambda: torch.arange(6).reshape(2, 3).T,
    lambda: [torch.ones(()), torch.zeros(0), torch.eye(2).to_sparse(), torch.ones(2) * 1j],
    cyclic,
    lambda: shared(100),
    lambda: torch.ones(1).expand(1 << 40),
]


@pytest.mark.parametrize("make", ALIKE)
def test_what_is_alike_has_one_digest(make):
    assert digest(make()) == digest(make())


def test_what_differs_has_another():
    one = torch.arange(6)
    values = [
        *(None, 0, 1, True, 1.0, "1", b"1", -0.0, 0.0, float("nan"), float("inf")),
        *([], (), {}, set(), [1], (1,), {1: 1}, {1: 2}, {2: 1}, {1}, [[1]], [1, [1]]),
        *(["ab"], ["a", "b"], ["a", "", "b"], {"a": 1, "b": 2}, {"b": 2, "a": 1}),
        *(one, one + 1, one.int(), one.reshape(2, 3), one[::2], one.float()),
        *([one, one], [one, one.clone()], cyclic(), shared(3), shared(4)),
    ]
    assert len({digest(each) for each in values}) == len(values)


def slowly_joined(ties: tuple[tuple[str, ...], ...]) -> set[frozenset[str]]:
    found: list[set[str]] = []
    for tie in ties:
        touching = [each for each in found if each & set(tie)]
        found = [each for each in found if not each & set(tie)] + [set(tie).union(*touching)]
    return {frozenset(each) for each in found}


def test_ties_are_joined():
    source = random.Random(0)
    for _ in range(200):
        names = [str(number) for number in range(source.randint(2, 30))]
        ties = tuple(tuple(source.sample(names, 2)) for _ in range(source.randint(0, 20)))
        half = len(ties) // 2
        found = joined(ties[:half], ties[half:])
        assert {frozenset(each) for each in found} == slowly_joined(ties)
        assert sum(map(len, found)) == len({name for each in ties for name in each})


@pytest.mark.parametrize("order", ["apart", "forwards", "backwards", "star", "mixed"])
def test_many_forged_ties_take_no_time(order):
    count = 50_000
    pairs = [(f"{number}", f"{number + 1}") for number in range(count)]
    if order == "apart":
        pairs = [(f"{number}", f"{number}'") for number in range(count)]
    if order == "backwards":
        pairs.reverse()
    if order == "star":
        pairs = [(f"{number}", "middle") for number in range(count)]
    if order == "mixed":
        random.Random(0).shuffle(pairs)
    begun = time.perf_counter()
    found = joined(tuple(pairs), tuple(pairs))
    assert time.perf_counter() - begun < 5
    assert len(found) == (count if order == "apart" else 1)


def test_many_sets_of_one_large_member_take_no_time():
    large = tuple(range(10_000))
    begun = time.perf_counter()
    digest([{large} for _ in range(10_000)])
    assert time.perf_counter() - begun < 5
