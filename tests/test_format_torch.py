"""Reading torch files: every layout people hold, and the ones made to hurt."""

from __future__ import annotations

import collections
import contextlib
import io
import os
import pickle
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from written_files import opened

from ckgrow.errors import CheckpointError, SpecError
from ckgrow.files import RegularFile
from ckgrow.registry import formats

FORMAT = formats()["torch"]
LAYOUTS = {"zip": True, "legacy": False}


def save(value: Any, path: Path, layout: str = "zip") -> Path:
    torch.save(value, path, _use_new_zipfile_serialization=LAYOUTS[layout])
    return path


def refusal(path: Path, weights: str | None = None, error: type = CheckpointError) -> str:
    with pytest.raises(error) as caught:
        opened(FORMAT, path, weights)
    message = str(caught.value)
    assert str(path) in message
    assert message.isprintable()
    assert "weights_only" not in message  # torch's own advice must not reach anyone
    return message


BASE = torch.arange(24, dtype=torch.float32).reshape(6, 4)
TENSORS = {
    "float32": torch.randn(7, 3, generator=torch.Generator().manual_seed(0)),
    "float64": torch.tensor([float("nan"), -0.0, 5e-324], dtype=torch.float64),
    "float16": torch.arange(6).to(torch.float16),
    "bfloat16": torch.linspace(-3, 3, 10).reshape(5, 2).to(torch.bfloat16),
    "float8_e4m3fn": torch.linspace(-400, 400, 8).to(torch.float8_e4m3fn),
    "num_batches_tracked": torch.tensor(1234),
    "uint8": torch.arange(4, dtype=torch.uint8),
    "bool": torch.tensor([True, False, True]),
    "empty": torch.zeros(0, 5),
    "transposed": BASE.T,
    "strided": BASE[::2, 1:],
    "tied": BASE,
    "channels last": torch.arange(48.0).reshape(2, 3, 2, 4).to(memory_format=torch.channels_last),
    "parameter": torch.nn.Parameter(torch.ones(2, 2)),
    "negated view": torch.tensor([1 + 2j, 3 - 4j]).conj().imag,
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_values_bit_for_bit(layout, tmp_path):
    tensors = dict(TENSORS)
    if layout == "legacy":  # is older than these, and torch itself cannot read them back
        del tensors["float8_e4m3fn"]
    reader = opened(FORMAT, save(tensors, tmp_path / "a.pt", layout), None)
    assert list(reader.header) == list(tensors)
    for name, tensor in tensors.items():
        spec = reader.header[name]
        assert spec.dtype == str(tensor.dtype).removeprefix("torch.")
        assert spec.shape == tuple(tensor.shape)
        plain = tensor.detach().resolve_neg().contiguous().reshape(spec.shape or (1,))
        count = len(plain)
        for start, stop in [(0, count), (count // 2, count), (0, 0)]:
            rows = reader.read(name, start, stop)
            expected = plain[start:stop].reshape(-1).view(torch.uint8).numpy().tobytes()
            assert rows.shape == tuple(plain[start:stop].shape)
            assert rows.dtype.name == spec.dtype
            assert rows.tobytes() == expected
    with pytest.raises(ValueError, match="rows"):
        reader.read("float32", 0, 8)
    reader.close()


def test_what_is_read_is_the_readers_own(tmp_path):
    reader = opened(FORMAT, save({"w": BASE, "tied": BASE}, tmp_path / "a.pt"), None)
    reader.read("w", 0, 6)[:] = -1
    assert (reader.read("tied", 0, 6) == BASE.numpy()).all()
    reader.close()


@pytest.mark.parametrize("layout", LAYOUTS)
def test_state_dict_of_a_module(layout, tmp_path):
    module = torch.nn.Sequential(torch.nn.Conv2d(1, 2, 3), torch.nn.BatchNorm2d(2))
    reader = opened(FORMAT, save(module.state_dict(), tmp_path / "a.pth", layout), None)
    assert list(reader.header) == list(module.state_dict())
    assert reader.contents.weights is None
    assert reader.contents.dropped == ()
    reader.close()


def one(value: float) -> dict[str, torch.Tensor]:
    return {"w": torch.full((2,), value)}


@pytest.mark.parametrize(
    ("container", "weights", "name", "value", "dropped"),
    [
        (one(1), None, None, 1, ()),
        ({"state_dict": one(1), "epoch": 3}, None, "state_dict", 1, ("epoch",)),
        (
            {"model": one(3), "model_state_dict": one(2), "state_dict": one(1)},
            None,
            "state_dict",
            1,
            ("model", "model_state_dict"),
        ),
        ({"model": one(3), "model_state_dict": one(2)}, None, "model_state_dict", 2, ("model",)),
        (
            {"optimizer": {"state": {}}, "model": one(3)},
            None,
            "model",
            3,
            ("optimizer",),
        ),
        ({"model": "resnet18", "state_dict": one(1)}, None, "state_dict", 1, ("model",)),
        ({"model": torch.zeros(2), "w": torch.ones(2)}, None, None, 1, ()),
        (
            {"state_dict": one(1), "state_dict_ema": one(4)},
            "state_dict_ema",
            "state_dict_ema",
            4,
            ("state_dict",),
        ),
        (
            {"state_dict": {**one(1), "step": 7}, 5: "five"},
            None,
            "state_dict",
            1,
            ("5", "state_dict.step"),
        ),
        ({**one(1), "step": 7}, None, None, 1, ("step",)),
    ],
)
def test_the_teacher_in_a_container(container, weights, name, value, dropped, tmp_path):
    reader = opened(FORMAT, save(container, tmp_path / "a.ckpt"), weights)
    assert reader.contents.weights == name
    assert reader.contents.dropped == dropped
    assert reader.read("w", 0, 2).tolist() == [value, value]
    reader.close()


@pytest.mark.parametrize(
    ("value", "weights", "error", "words"),
    [
        ([torch.ones(2)], None, CheckpointError, "holds a list, not a state dict"),
        (torch.ones(2), None, CheckpointError, "holds a Tensor, not a state dict"),
        ({}, None, CheckpointError, "no tensors; save model.state_dict()"),
        ({"enc\x1b[2J": one(1)}, None, CheckpointError, r"choose weights that are there: 'enc\x1b"),
        ({"model": {"lr": 1}, "ema": one(1)}, None, CheckpointError, "entry model of"),
        ({"ema": one(1), "epoch": 1}, "emma", SpecError, "no entry emma; choose weights that"),
        ({"ema": one(1), "epoch": 1}, "epoch", SpecError, "is a int, not a state dict"),
        (one(1), "model", SpecError, "no entry model"),
        ({3: torch.ones(2)}, None, CheckpointError, "a tensor is called 3, a int"),
        ({"\ud800": torch.ones(2)}, None, CheckpointError, "no valid Unicode"),
    ],
)
def test_containers_without_a_teacher(value, weights, error, words, tmp_path):
    assert words in refusal(save(value, tmp_path / "a.pt"), weights, error)


@pytest.mark.filterwarnings("ignore:.*:UserWarning")  # making these tensors warns, loading must not
@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: torch.eye(3).to_sparse(), "is sparse"),
        (lambda: torch.eye(3).to_sparse_csr(), "is sparse"),
        (lambda: torch.ones(2, dtype=torch.complex64), "complex64, which is complex"),
        (lambda: torch.ones(2, device="meta"), "has no data"),
        (lambda: torch.ones(1).expand(5), "repeats the 4 bytes"),
        (lambda: torch.nested.nested_tensor([torch.ones(2), torch.ones(3)]), "is nested"),
        (lambda: torch.quantize_per_tensor(torch.ones(3), 0.1, 0, torch.qint8), "is quantized"),
    ],
    ids=["sparse", "csr", "complex", "meta", "expanded", "nested", "quantized"],
)
def test_tensors_that_are_not_plain_are_refused_by_name(make, words, tmp_path):
    message = refusal(save({"fine": torch.ones(2), "conv.weight": make()}, tmp_path / "a.pt"))
    assert "tensor conv.weight" in message
    assert words in message


class Tagged(torch.Tensor):
    pass


def test_extensions_of_tensors_are_refused(tmp_path):
    path = save({"w": torch.ones(2).as_subclass(Tagged)}, tmp_path / "a.pt")
    assert "Tagged" in refusal(path)
    with torch.serialization.safe_globals([Tagged]):  # torch lets libraries vouch for theirs
        assert "tensor w is a Tagged, more than a tensor" in refusal(path)


class Linear(torch.nn.Linear):
    pass


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("wrap", [lambda module: module, lambda module: {"model": module}])
def test_whole_modules(wrap, layout, tmp_path):
    message = refusal(save(wrap(Linear(2, 3)), tmp_path / "a.pt", layout))
    assert f"{__name__}.Linear" in message
    assert "save its tensors with torch.save(model.state_dict(), ...)" in message


class Storage:
    """Stands for a storage of ``size`` floats in a pickle made by hand."""

    def __init__(self, size: int) -> None:
        self.size = size


class Rebuilt:
    """Is pickled as a call of ``function``."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> Any:
        return self.call


class Pickler(pickle.Pickler):
    def persistent_id(self, value: Any) -> Any:
        if isinstance(value, Storage):
            return ("storage", torch.FloatStorage, "0", "cpu", value.size)
        return None


def forge(path: Path, value: Any, data: bytes = b"\0" * 16, **compression: Any) -> Path:
    """A zip archive as torch.save writes it, around any pickle."""
    pickled = io.BytesIO()
    Pickler(pickled, 2).dump(value)
    with zipfile.ZipFile(path, "w", **compression) as archive:
        archive.writestr("archive/data.pkl", pickled.getvalue())
        archive.writestr("archive/byteorder", "little")
        archive.writestr("archive/data/0", data)
        archive.writestr("archive/version", "3\n")
    return path


def forged_tensor(size: int, offset: int, shape: tuple[int, ...], stride: tuple[int, ...]) -> Any:
    arguments = (Storage(size), offset, shape, stride, False, collections.OrderedDict())
    return Rebuilt(torch._utils._rebuild_tensor_v2, *arguments)


def test_a_forged_file_that_is_sound_loads(tmp_path):
    data = np.arange(4, dtype=np.float32)
    path = forge(tmp_path / "a.pt", {"w": forged_tensor(4, 0, (4,), (1,))}, data.tobytes())
    assert opened(FORMAT, path, None).read("w", 0, 4).tolist() == [0, 1, 2, 3]


def test_a_terabyte_in_a_kilobyte(tmp_path):
    path = forge(tmp_path / "a.pt", {"w": forged_tensor(4, 0, (2**40,), (0,))})
    assert path.stat().st_size < 1400
    assert "repeats the 16 bytes" in refusal(path)


@pytest.mark.parametrize(
    "tensor",
    [
        forged_tensor(2**40, 0, (2**40,), (1,)),
        forged_tensor(4, 0, (4000,), (1,)),
        forged_tensor(4, 1_000_000, (4,), (1,)),
        forged_tensor(4, 3, (4,), (-1,)),
        forged_tensor(4, -4, (4,), (1,)),
        forged_tensor(1, 0, (1,), (1,)),
    ],
    ids=["storage", "shape", "offset", "negative stride", "negative offset", "small storage"],
)
def test_tensors_beyond_their_data(tensor, tmp_path):
    assert "damaged" in refusal(forge(tmp_path / "a.pt", {"w": tensor}))


def test_legacy_storages_beyond_the_file(tmp_path):
    """In the old layout a storage without data may grow: the sum is held against the file."""
    value = {"w": forged_tensor(4, 0, (1_000_000,), (1,))}
    path = tmp_path / "a.pt"
    save({"w": torch.ones(4)}, path, "legacy")
    sound = path.read_bytes()
    with io.BytesIO(sound) as stream:
        for _ in range(3):  # magic number, protocol, system
            pickle.load(stream)
        head = sound[: stream.tell()]
    body = io.BytesIO()

    class Legacy(pickle.Pickler):
        def persistent_id(self, value: Any) -> Any:
            if isinstance(value, Storage):
                return ("storage", torch.FloatStorage, "0", "cpu", value.size, None)
            return None

    Legacy(body, 2).dump(value)
    storages_with_data: list[str] = []
    path.write_bytes(head + body.getvalue() + pickle.dumps(storages_with_data, 2))
    assert "damaged or forged" in refusal(path)


def test_a_compressed_bomb(tmp_path):
    path = tmp_path / "a.pt"
    value = {"w": forged_tensor(25_000_000, 0, (25_000_000,), (1,))}
    forge(path, value, b"\0" * 100_000_000, compression=zipfile.ZIP_DEFLATED)
    assert path.stat().st_size < 200_000
    assert "expands from" in refusal(path)


def test_mild_compression_is_no_bomb(tmp_path):
    path = tmp_path / "a.pt"
    value = {"w": forged_tensor(4, 0, (4,), (1,))}
    forge(path, value, compression=zipfile.ZIP_DEFLATED)
    assert opened(FORMAT, path, None).read("w", 0, 4).tolist() == [0, 0, 0, 0]


@pytest.mark.parametrize("function", [os.system, eval], ids=["os.system", "eval"])
def test_pickled_code_does_not_run(function, tmp_path):
    ran = tmp_path / "ran"
    code = f"touch {ran}" if function is os.system else f"open({str(ran)!r}, 'w')"
    message = refusal(forge(tmp_path / "a.pt", {"w": Rebuilt(function, code)}))
    assert "runs code" in message
    assert not ran.exists()


class Shadowed:
    """Is pickled as an OrderedDict with an attribute in the place of a method."""

    def __init__(self, attribute: str) -> None:
        self.attribute = attribute

    def __reduce__(self) -> Any:
        entries = iter(one(1).items())
        return collections.OrderedDict, (), {self.attribute: 5}, None, entries


@pytest.mark.parametrize("attribute", ["items", "get", "keys", "values"])
@pytest.mark.parametrize("place", ["outside", "inside", "beside"])
def test_dictionaries_whose_methods_are_something_else(attribute, place, tmp_path):
    """``weights_only`` lets a pickle set attributes of an OrderedDict, its methods among them."""
    value: Any = {"model": Shadowed(attribute)} if place == "inside" else Shadowed(attribute)
    if place == "beside":
        value = {"model": one(1), "model_ema": Shadowed(attribute), "other": [Shadowed(attribute)]}
    path = save(value, tmp_path / "a.pt")
    with contextlib.suppress(CheckpointError):
        opened(FORMAT, path).close()
        if attribute == "items":
            pytest.fail("its entries were read")


def test_the_environment_cannot_switch_it_off(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    ran = tmp_path / "ran"
    refusal(forge(tmp_path / "a.pt", {"w": Rebuilt(os.system, f"touch {ran}")}))
    assert not ran.exists()


@pytest.mark.parametrize("layout", LAYOUTS)
def test_cut_short(layout, tmp_path):
    path = save(one(1), tmp_path / "a.pt", layout)
    content = path.read_bytes()
    for length in [1, 5, 20, len(content) // 2, len(content) - 1]:
        path.write_bytes(content[:length])
        refusal(path)
    assert "cut short, damaged or something else" in refusal(path)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"hello\n",
        pickle.dumps({"a": 1}),
        pickle.dumps({"a": 1}, 2),
        b"PK\x03\x04" + b"\0" * 99,
    ],
)
def test_other_files_with_our_suffix(content, tmp_path):
    path = tmp_path / "a.pt"
    path.write_bytes(content)
    assert "cannot be read as a torch file" in refusal(path)


def test_more_than_memory(tmp_path, monkeypatch):
    def exhausted(*_: Any, **__: Any) -> None:
        raise RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 9 bytes")

    path = save(one(1), tmp_path / "a.pt")
    monkeypatch.setattr(torch, "load", exhausted)
    assert ".safetensors" in refusal(path)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_pickle_protocols(layout, protocol, tmp_path):
    """All are recognised; torch reads 2 (its default) and, with a warning of its own, 3."""
    path = tmp_path / "anything"
    zipped = LAYOUTS[layout]
    torch.save(one(1), path, pickle_protocol=protocol, _use_new_zipfile_serialization=zipped)
    assert FORMAT.recognises(RegularFile(path), path.read_bytes()[:16])
    if protocol > 3:
        assert "not one that torch.save writes by default" in refusal(path)
        return
    reader = opened(FORMAT, path, None)
    assert reader.read("w", 0, 2).tolist() == [1, 1]
    reader.close()


def test_another_zip_archive_is_not_ours(tmp_path):
    with zipfile.ZipFile(tmp_path / "other", "w") as archive:
        archive.writestr("w.npy", b"")
    assert not FORMAT.recognises(
        RegularFile(tmp_path / "other"), (tmp_path / "other").read_bytes()[:16]
    )


def test_changes_are_noticed(tmp_path):
    path = save(one(1), tmp_path / "a.pt")
    reader = opened(FORMAT, path, None)
    assert reader.unchanged()
    save(one(2), tmp_path / "b.pt").replace(path)
    assert not reader.unchanged()
    assert reader.read("w", 0, 2).tolist() == [1, 1]
    reader.close()
