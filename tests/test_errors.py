"""Everything wrong that a file, a spec or an option can be: one message, one exit code, no mess.

Each row says what is wrong, the exit code, and words that the message must have: the place and,
where there is one, the fix.
"""

from __future__ import annotations

import json
import os
import struct
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from commands import WIDEN, ckgrow, listing, process, saved, tensors, written
from safetensors.numpy import load_file, save_file
from shipped import SPECS, TEACHERS

from ckgrow import recognition
from ckgrow.architecture import Explanation

COMMANDS = {
    "apply": ("apply", "{teacher}", "{spec}", "-o", "student.safetensors"),
    "plan": ("plan", "{teacher}", "{spec}"),
    "inspect": ("inspect", "{teacher}"),
    "init": ("init", "{teacher}"),
    "verify": ("verify", "{teacher}", "good.safetensors"),
    "verify student": ("verify", "good.safetensors", "{teacher}"),
}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    saved(tmp_path / "good.safetensors", tensors())
    written(tmp_path / "good.yaml", WIDEN)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def refused(code, said, *arguments):
    """The command fails so, says so in one message without control characters, leaves nothing."""
    before = listing(".")
    done = ckgrow(*arguments)
    assert done.exit_code == code, done.output
    assert listing(".") == before
    assert "verdict" not in done.stdout
    message = done.stderr.removesuffix("\n")
    assert message.startswith("error: ")
    assert len(message) < 2_000
    assert all(character.isprintable() or character == "\n" for character in message)
    for words in said:
        assert words in message


def refused_by(commands, code, said, teacher="good.safetensors", spec="good.yaml"):
    for command in commands:
        arguments = [each.format(teacher=teacher, spec=spec) for each in COMMANDS[command]]
        refused(code, said, *arguments)


# --- specs ----------------------------------------------------------------------------------

STEP = 'steps:\n  - widen: "0"\n'
RELU = "teacher: {options: {activation: relu}}\n"

SPEC_CONTENT = {
    "empty": ("", "is empty; `ckgrow init` writes a first spec"),
    "comments only": ("# nothing\n", "is empty"),
    "list": ("- 1\n", "bad.yaml:1: the spec must be a mapping"),
    "no steps": ("steps: []\n", "bad.yaml:1: steps is empty"),
    "unknown key": ("stpes: []\n", "did you mean 'steps'"),
    "unknown key of a step": (STEP + "    facter: 2\n", "did you mean 'factor'"),
    "escape in a key": ('"\\e[31mx": 1\n' + WIDEN, r"unknown key '\x1b[31mx'"),
    "escape in a pattern": ('steps:\n  - widen: "\\ex"\n    factor: 2\n', r"'\x1bx' matches no"),
    "duplicate key": (STEP + "    factor: 2\n    factor: 3\n", "bad.yaml:4"),
    "anchor": ("steps: &a []\n", "bad.yaml:1: '&a' is a YAML anchor"),
    "tag": ("steps: !!python/object:os.system []\n", "bad.yaml:1"),
    "merge": ("<<: {}\nsteps: []\n", "bad.yaml:1"),
    "tab": ("steps:\n\t- widen: x\n", "bad.yaml:2: a tab stands where YAML wants spaces"),
    "brackets": ("[" * 40_000, "bad.yaml:1"),
    "open bracket": ("steps: [\n", "close the bracket or the quote"),
    "unquoted star": ("steps:\n  - widen: *.conv1\n    factor: 2\n", "quote the pattern"),
    "unquoted set": ("steps:\n  - widen: layer[34]\n    factor: 2\n", "matches no layer"),
    "digits": (f"seed: {'9' * 5_000}\n{WIDEN}", "(5000 characters) is too long for a number"),
    "not UTF-8": (b"\xff\xfe\x00", "bad.yaml"),
    "zero byte": (b"steps: \x00", "bad.yaml"),
    "version": ("version: 2\n" + WIDEN, "bad.yaml:1: version"),
    "minutes": (STEP + "    to: 1:30\n", "bad.yaml:3"),
    "no factor": (STEP, "bad.yaml:2"),
    "two sizes": (STEP + "    factor: 2\n    to: 12\n", "bad.yaml"),
    "factor 0": (STEP + "    factor: 0\n", "bad.yaml:3: factor in step 1 must be greater than 0"),
    "factor negative": (STEP + "    factor: -2\n", "bad.yaml:3: factor"),
    "factor nan": (STEP + "    factor: .nan\n", "bad.yaml:3: .nan is not a finite number"),
    "factor inf": (STEP + "    factor: .inf\n", "bad.yaml:3"),
    "factor 1e9": (STEP + "    factor: 1e9\n", "bad.yaml:3: factor in step 1 must be at most"),
    "factor word": (STEP + "    factor: no\n", "bad.yaml:3: factor in step 1 must be a number"),
    "to a fraction": (STEP + "    to: 7.5\n", "bad.yaml:3: to in step 1 must be a whole number"),
    "to 1e12": (STEP + "    to: 1000000000000\n", "bad.yaml:3: to in step 1 must be at most"),
    "smaller": (STEP + "    to: 3\n", "0 has 6 channels and cannot shrink to 3"),
    "smaller factor": (STEP + "    factor: 0.5\n", "cannot shrink to 3"),
    "no match": ("steps:\n  - widen: nope\n    factor: 2\n", "bad.yaml:2: nope matches no layer"),
    "barrier": ('steps:\n  - widen: "2"\n    factor: 2\n', "2 cannot be widened: graph output"),
    "only barriers": ('steps:\n  - widen: "[2-9]*"\n    factor: 2\n', "bad.yaml:2"),
    "open set": ('steps:\n  - widen: "[34"\n    factor: 2\n', "has a '[' without its ']'"),
    "no such method": (STEP + "    factor: 2\n    method: net2wide\n", "did you mean 'net2wider'"),
    "method of another verb": (STEP + "    factor: 2\n    method: zero-init\n", "no method"),
    "escape in a method": (STEP + '    factor: 2\n    method: "\\e[1m"\n', r"'\x1b[1m'"),
    "no such split": (STEP + "    factor: 2\n    split: evenly\n", "bad.yaml:4"),
    "rescale 3": (STEP + "    factor: 2\n    rescale: 3\n", "bad.yaml"),
    "guessed activation": ('steps:\n  - deepen: "0"\n', "activation is relu, which is a guess"),
    "tanh": (
        'teacher: {options: {activation: tanh}}\nsteps:\n  - deepen: "0"\n',
        "Tanh is not idempotent",
    ),
    "no stages": (RELU + 'steps:\n  - deepen: "0"\n    blocks: 1\n', "this network has no stages"),
    "too deep": (RELU + 'steps:\n  - deepen: "0"\n    layers: 9999\n', "must be at most"),
    "no layers": (RELU + 'steps:\n  - deepen: "0"\n    layers: 0\n', "bad.yaml:4"),
    "no such option": ("teacher: {options: {x: 1}}\n" + WIDEN, "mlp has no option x; it has"),
    "no such choice": (
        "teacher: {options: {activation: rleu}}\n" + WIDEN,
        "option 'activation' is rleu; did you mean 'relu'?",
    ),
    "no such architecture": (
        "teacher: {architecture: resnets}\n" + WIDEN,
        "there is no architecture resnets, only convnet, inception, mlp, resnet; did you mean",
    ),
    "samples": ("verify: {samples: 0}\n" + WIDEN, "bad.yaml:1: verify.samples must be at least 1"),
}


@pytest.mark.parametrize("name", SPEC_CONTENT)
def test_content_of_specs(folder, name):
    text, said = SPEC_CONTENT[name]
    (folder / "bad.yaml").write_bytes(text if isinstance(text, bytes) else text.encode())
    refused_by(("apply", "plan"), 2, [said], spec="bad.yaml")


def test_architecture_that_does_not_fit(folder):
    written(folder / "bad.yaml", "teacher: {architecture: resnet}\n" + WIDEN)
    said = ["good.safetensors is no resnet, which was asked for", "0.weight"]
    refused_by(("apply", "plan"), 3, said, spec="bad.yaml")


# --- files that are not there, or no files --------------------------------------------------


def make_nothing(path):
    pass


def make_folder(path):
    path.mkdir()


def make_fifo(path):
    os.mkfifo(path)


def make_loop(path):
    path.symlink_to(path.name)


def make_dangling(path):
    path.symlink_to("nowhere")


def make_device(path):
    path.symlink_to("/dev/zero")


PLACES = {
    make_nothing: "no such file",
    make_folder: "is a directory without a checkpoint in it; name a file",
    make_fifo: "is a pipe, socket or device",
    make_loop: "Too many levels of symbolic links",
    make_dangling: "no such file",
    make_device: "is a pipe, socket or device",
}


@pytest.mark.parametrize("make", PLACES, ids=lambda make: make.__name__)
def test_places_of_checkpoints(folder, make):
    make(folder / "bad.safetensors")
    refused_by(COMMANDS, 4, ["bad.safetensors", PLACES[make]], teacher="bad.safetensors")


@pytest.mark.parametrize("make", PLACES, ids=lambda make: make.__name__)
def test_places_of_specs(folder, make):
    make(folder / "bad.yaml")
    refused_by(("apply", "plan"), 4, ["bad.yaml"], spec="bad.yaml")


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (make_fifo, "is no regular file; name a file to write"),
        (make_device, "is no regular file; name a file to write"),
        (make_loop, "cannot be written"),
    ],
    ids=lambda each: getattr(each, "__name__", ""),
)
@pytest.mark.parametrize("force", [(), ("--force",)], ids=["", "force"])
def test_places_of_outputs(folder, make, said, force):
    make(folder / "bad.safetensors")
    apply = ("apply", "good.safetensors", "good.yaml", "-o", "bad.safetensors", *force)
    refused(4, ["bad.safetensors", said], *apply)


OUTPUTS = {
    "missing/student.safetensors": (4, "missing does not exist; make it first"),
    "good.yaml/student.safetensors": (4, "Not a directory; choose another name or folder"),
    "x" * 300 + ".safetensors": (4, "File name too long; choose another name"),
    "x" * 240 + ".safetensors": (4, "File name too long; choose another name"),
    "good.safetensors": (4, "good.safetensors is the teacher itself; write the student elsewhere"),
    "./link.safetensors": (4, "link.safetensors is the teacher itself"),
    "hard.safetensors": (4, "hard.safetensors is the teacher itself"),
    "student.xyz": (2, "ckgrow does not write .xyz; it writes .npz, .onnx, .safetensors, "),
    "student": (2, "ckgrow does not write files without one"),
    "/dev/zero": (2, "ckgrow does not write files without one"),
    "": (2, "ckgrow does not write files without one"),
}


@pytest.mark.parametrize("output", OUTPUTS, ids=lambda name: name[:20] or "empty")
def test_outputs(folder, output):
    (folder / "link.safetensors").symlink_to("good.safetensors")
    (folder / "hard.safetensors").hardlink_to("good.safetensors")
    code, said = OUTPUTS[output]
    for force in ((), ("--force",)):
        refused(code, [said], "apply", "good.safetensors", "good.yaml", "-o", output, *force)


# --- content of checkpoints -----------------------------------------------------------------


def changed(**values):
    made = {**tensors(), **values}
    return {name: array for name, array in made.items() if array is not None}


def networks():
    resnet = load_file(TEACHERS / "resnet.safetensors")
    inception = load_file(TEACHERS / "inception.safetensors")
    without = dict(resnet)
    del without["layer1.0.bn1.weight"]
    quantized = {"2.weight": np.zeros((3, 6), np.int8)}
    branch = {name: each for name, each in inception.items() if name != "conv1.bn.weight"}
    nearest = "is no network ckgrow knows; the nearest architecture is"
    return {
        "empty": ({}, ["holds no tensors"]),
        "foreign": ({"foo": np.zeros(3, "f4")}, ["no architecture explains its keys (foo)"]),
        "escape": ({"\x1b[31mx": np.zeros(3, "f4")}, [r"(\'\x1b[31mx\')".replace("\\'", "'")]),
        "long name": ({"x" * 1_000_000: np.zeros(3, "f4")}, ["(1000000 characters)"]),
        "half a resnet": (without, [f"{nearest} resnet", "missing: layer1.0.bn1.weight"]),
        "half an inception": (branch, [f"{nearest} inception", "missing: conv1.bn.weight"]),
        "key left over": (
            {**resnet, "layer9.\x07x": np.zeros(3, "f4")},
            [f"{nearest} resnet", r"keys that fit nothing there: 'layer9.\x07x'"],
        ),
        "mlp with more": (changed(extra=np.zeros(3, "f4")), [f"{nearest} mlp", "there: extra"]),
        "shapes that do not chain": (
            changed(**{"2.weight": np.zeros((3, 7), "f4")}),
            ["in no order does each of the 2 layers read what the one before it makes"],
        ),
        "int8": (changed(**quantized), ["2.weight is int8", "convert a quantized checkpoint back"]),
        "complex": ({name: each.astype("c8") for name, each in tensors().items()}, ["complex64"]),
        "no units": (tensors(hidden=0), ["0.bias is empty (shape [0])"]),
    }


@pytest.mark.parametrize("name", networks())
def test_content_of_checkpoints(folder, name):
    values, said = networks()[name]
    saved(folder / "bad.safetensors", values)
    refused_by(COMMANDS, 3, ["bad.safetensors", *said], teacher="bad.safetensors")


def explaining(name, **parts):
    """An adapter that says of every checkpoint that it explains just these keys of it."""
    explanation = Explanation(**{"unexplained": (), **parts})
    return SimpleNamespace(name=name, options=(), explain=lambda header: explanation)


def known(monkeypatch, *adapters):
    names = {adapter.name: adapter for adapter in adapters}
    monkeypatch.setattr(recognition, "architectures", lambda: names)


def test_nearest_is_what_lacks_least(folder, monkeypatch):
    """Not what explains most: a chain of layers claims every BatchNorm there is."""
    greedy = explaining("greedy", explained=frozenset("abc"), missing=("x", "y", "z"))
    near = explaining("near", explained=frozenset("ab"), unexplained=("0.weight",))
    known(monkeypatch, greedy, near)
    said = "the nearest architecture is near; keys that fit nothing there: 0.weight"
    refused(3, [said], "inspect", "good.safetensors")


def test_ambiguous_architecture(folder, monkeypatch):
    known(
        monkeypatch,
        explaining("one", explained=frozenset(tensors())),
        explaining("other", explained=frozenset(tensors())),
    )
    said = "good.safetensors fits one and other; say which one with 'teacher: {architecture: ...}'"
    refused_by(("plan", "inspect", "apply"), 2, [said])


def framed(header, data=b""):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def entry(shape=(1,), offsets=(0, 4), dtype="F32"):
    return {"dtype": dtype, "shape": list(shape), "data_offsets": list(offsets)}


SAFETENSORS = {
    "no bytes": b"",
    "seven bytes": b"\x01" * 7,
    "header of 0": struct.pack("<Q", 0) + b"{}",
    "header of 2^64": b"\xff" * 8 + b"{}",
    "header beyond the end": struct.pack("<Q", 1000) + b"{}",
    "not UTF-8": framed(b"{\xff\xff}"),
    "no object": framed(b"[1, 2]"),
    "no JSON": framed(b"{oops}"),
    "nested": framed(b'{"a":' * 30_000 + b"1" + b"}" * 30_000),
    "zero bytes behind": framed(b"{}\x00\x00\x00"),
    "space before": framed(b" {}"),
    "duplicate names": framed(
        b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},'
        b'"a":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}}',
        bytes(8),
    ),
    "trailing": framed({"a": entry()}, bytes(9)),
    "cut short": framed({"a": entry()}, bytes(3)),
    "hole": framed({"a": entry(), "b": entry(offsets=(8, 12))}, bytes(12)),
    "overlap": framed({"a": entry(), "b": entry(offsets=(0, 4))}, bytes(4)),
    "negative": framed({"a": entry(offsets=(-4, 0))}, bytes(4)),
    "fraction": framed({"a": entry(offsets=(0, 4.5))}, bytes(4)),
    "unknown dtype": framed({"a": entry(dtype="F31")}, bytes(4)),
    "huge shape": framed({"a": entry((0, 2**62), (0, 0))}),
    "many dimensions": framed({"a": entry((1,) * 100)}, bytes(4)),
    "metadata that is no text": framed({"__metadata__": {"a": 1}, "a": entry()}, bytes(4)),
    "damaged provenance": framed({"__metadata__": {"ckgrow": "{"}, "a": entry()}, bytes(4)),
    "provenance of another kind": framed(
        {"__metadata__": {"ckgrow": '{"schema": "x"}'}, "a": entry()}, bytes(4)
    ),
    "text": b"steps:\n  - widen: everything\n",
}


@pytest.mark.parametrize("name", SAFETENSORS)
def test_safetensors_files(folder, name):
    (folder / "bad.safetensors").write_bytes(SAFETENSORS[name])
    refused_by(("apply", "verify", "verify student"), 3, ["bad.safetensors"], "bad.safetensors")


class Evil:
    def __reduce__(self):
        return os.system, ("touch pwned",)


def test_torch_files(folder):
    """Code is never run, and a tensor that claims more than the file holds is refused."""
    torch.save({"0.weight": Evil()}, "code.pt")
    torch.save({"0.weight": torch.zeros(1).expand(2**40)}, "bomb.pt")
    torch.save({"epoch": 3}, "weightless.pt")
    torch.save([1, 2], "list.pt")
    several = {name: {"0.weight": torch.zeros(2, 2)} for name in ("ema", "best")}
    torch.save(several, "several.pt")
    (folder / "empty.pt").write_bytes(b"")
    (folder / "text.pt").write_bytes(b"not a checkpoint at all")
    for name in ("code", "bomb", "weightless", "list", "empty", "text"):
        refused_by(("apply", "inspect"), 3, [f"{name}.pt"], f"{name}.pt")
    done = ckgrow("inspect", "several.pt")
    assert done.exit_code in (2, 3)
    assert "ema" in done.stderr
    assert "best" in done.stderr
    assert not (folder / "pwned").exists()


def test_weights_of_a_container(folder):
    state = {name: torch.from_numpy(values) for name, values in tensors().items()}
    torch.save({"state_dict": state, "ema": state, "epoch": 3}, "teacher.pt")
    done = ckgrow("apply", "teacher.pt", "good.yaml", "-o", "student.safetensors")
    assert done.exit_code == 0
    assert "left behind in the teacher's file: " in done.stdout
    assert "epoch" in done.stdout
    done = ckgrow("verify", "teacher.pt", "student.safetensors", "--weights", "ema")
    assert done.exit_code == 0
    refused(2, ["teacher.pt", "ema"], "inspect", "teacher.pt", "--weights", "emma")
    refused(2, ["choosing weights by name"], "inspect", "good.safetensors", "--weights", "ema")


# --- values ---------------------------------------------------------------------------------


def spoiled(name, value):
    values = tensors()
    values[name].flat[0] = value
    return values


@pytest.mark.parametrize(
    ("values", "said"),
    [
        (spoiled("0.weight", np.nan), "the teacher computes NaN or infinity"),
        (spoiled("2.bias", np.inf), "the teacher computes NaN or infinity"),
        (
            {name: values * np.float32(1e30) for name, values in tensors().items()},
            "the teacher computes NaN or infinity",
        ),
        ({name: values * 0 for name, values in tensors().items()}, "it does not vary over the"),
    ],
    ids=["nan", "infinity", "overflow", "zeros"],
)
def test_no_verdict_on_what_cannot_be_judged(folder, values, said):
    saved(folder / "bad.safetensors", values)
    before = listing(".")
    done = ckgrow("apply", "bad.safetensors", "good.yaml", "-o", "student.safetensors")
    assert done.exit_code == 1
    assert said in done.stdout
    assert "nothing was written to student.safetensors" in done.stdout
    assert listing(".") == before
    done = ckgrow("verify", "bad.safetensors", "bad.safetensors")
    assert done.exit_code == 1
    assert said in done.stdout


@pytest.mark.parametrize(("variance", "code"), [(0.0, 0), (-1.0, 1)])
def test_variance_of_a_batch_normalization(folder, variance, code):
    values = load_file(TEACHERS / "resnet.safetensors")
    values["bn1.running_var"][0] = variance
    teacher = saved(folder / "teacher.safetensors", values)
    spec = SPECS / "widen_resnet.yaml"
    assert ckgrow("apply", teacher, spec, "-o", "student.safetensors").exit_code == code


def test_dtypes_may_be_mixed(folder):
    values = tensors()
    values["0.weight"] = values["0.weight"].astype(np.float16)
    values["2.bias"] = values["2.bias"].astype(np.float64)
    saved(folder / "mixed.safetensors", values)
    done = ckgrow("apply", "mixed.safetensors", "good.yaml", "-o", "student.safetensors")
    assert done.exit_code == 0
    student = load_file("student.safetensors")
    assert {name: each.dtype for name, each in student.items()} == {
        name: each.dtype for name, each in values.items()
    }


def test_largest_float16_numbers_survive(folder):
    values = {name: each.astype(np.float16) for name, each in tensors().items()}
    values["2.weight"][:, 0] = np.finfo(np.float16).max
    saved(folder / "large.safetensors", values)
    done = ckgrow("apply", "large.safetensors", "good.yaml", "-o", "student.safetensors")
    assert done.exit_code == 0, done.output
    assert all(np.isfinite(each).all() for each in load_file("student.safetensors").values())


def test_growing_to_the_same_size_is_a_warning(folder):
    written(folder / "same.yaml", STEP + "    to: 6\n")
    done = ckgrow("apply", "good.safetensors", "same.yaml", "-o", "student.safetensors")
    assert done.exit_code == 0
    assert "warning: " in done.stdout
    first, second = load_file("good.safetensors"), load_file("student.safetensors")
    assert all(np.array_equal(first[name], second[name]) for name in first)


# --- options --------------------------------------------------------------------------------

OPTIONS = {
    ("--option", "activation"): (2, "write NAME=VALUE, for instance activation=relu"),
    ("--option", "=relu"): (2, "write NAME=VALUE"),
    ("--option", "activtion=relu"): (2, "did you mean 'activation'?"),
    ("--option", "activation=rleu"): (2, "choices: relu"),
    ("--option", "activation=[[["): (2, "choices: relu"),
    ("--option", "\x1b[1m=3"): (2, r"mlp has no option '\x1b[1m'"),
    ("--architecture", "nope"): (2, "there is no architecture nope, only convnet"),
    ("--architecture", "inception"): (3, "is no inception, which was asked for"),
    ("--weights", "ema"): (2, "choosing weights by name is for torch files"),
}
OF_VERIFY = {
    ("--rtol", "-1"): (2, "rtol must be a number of at least 0"),
    ("--atol", "nan"): (2, "atol must be a number of at least 0"),
    ("--inputs", "missing.npy"): (4, "missing.npy does not exist"),
    ("--inputs", "."): (4, ". is not a file"),
    ("--inputs", "/dev/zero"): (4, "/dev/zero is not a file"),
    ("--inputs", "missing\x1b[1m.npy"): (4, r"missing\x1b[1m.npy' does not exist"),
    ("--inputs", "good.yaml"): (3, "arrays are read from .bin, .ckpt, .npy, .npz"),
    ("--inputs", "good.safetensors"): (3, "is no graph input; expected input [N, 4]"),
    ("--expect", "good.safetensors"): (2, "expected outputs belong to inputs of yours"),
}


@pytest.mark.parametrize("option", OPTIONS, ids="".join)
def test_options(folder, option):
    code, said = OPTIONS[option]
    for command in ("inspect", "init", "verify"):
        rest = ["good.safetensors"] * (2 if command == "verify" else 1)
        refused(code, [said], command, *rest, *option)


@pytest.mark.parametrize("option", OF_VERIFY, ids="".join)
def test_options_of_verify(folder, option):
    code, said = OF_VERIFY[option]
    refused(code, [said], "verify", "good.safetensors", "good.safetensors", *option)


@pytest.mark.parametrize(
    "arguments",
    [
        ("grow",),
        ("apply",),
        ("apply", "good.safetensors", "good.yaml"),
        ("apply", "good.safetensors", "good.yaml", "-o", "s.safetensors", "--workers", "0"),
        ("apply", "good.safetensors", "good.yaml", "-o", "s.safetensors", "--workers", "two"),
        ("verify", "good.safetensors", "good.safetensors", "--samples", "0"),
        ("verify", "good.safetensors", "good.safetensors", "--seed", "-1"),
        ("plan", "good.safetensors", "good.yaml", "--nope"),
        ("inspect", "good.safetensors", "another.safetensors"),
    ],
    ids=" ".join,
)
def test_usage(folder, arguments):
    before = listing(folder)
    done = ckgrow(*arguments)
    assert done.exit_code == 2
    assert "Error: " in done.stderr
    assert listing(folder) == before


def test_json_of_a_failure_is_no_document(folder):
    """stdout stays empty: whoever reads it sees at once that there is nothing."""
    done = process("inspect", "missing.safetensors", "--json")
    assert (done.returncode, done.stdout) == (4, "")


def test_metadata_is_no_way_in(folder):
    """Texts of the file that come out in no message and no terminal."""
    save_file(tensors(), "teacher.safetensors", {"\x1b[31m": "\x1b[2J", "format": "../../etc"})
    done = ckgrow("apply", "teacher.safetensors", "good.yaml", "-o", "student.safetensors")
    assert done.exit_code == 0
    assert "\x1b" not in done.output
