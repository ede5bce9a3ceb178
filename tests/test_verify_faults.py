"""What verify is given and cannot use: one line on stderr, the exit code of its kind, no traceback.

Arrays of the wrong kind, networks that are no teacher and student, weights that are no numbers, and
files that somebody else changes while they are read.
"""

from __future__ import annotations

import io
import os
import zipfile
from contextlib import nullcontext

import numpy as np
import pytest
import torch
from commands import WIDEN, ckgrow, document, saved, tensors, written
from matrix_networks import SUBJECTS
from safetensors import safe_open
from safetensors.numpy import load_file, save_file
from safetensors.torch import save_file as save_torch
from student_oracles import on_meta, random_state
from torchvision.models import googlenet, vgg11

from ckgrow.cli import making
from ckgrow.public import verify
from ckgrow.watching import Unwatched

TEACHER, STUDENT = "teacher.safetensors", "student.safetensors"
FILES = ("verify", TEACHER, STUDENT)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    saved(tmp_path / TEACHER, tensors())
    written(tmp_path / "spec.yaml", WIDEN)
    assert ckgrow("apply", TEACHER, "spec.yaml", "-o", STUDENT).exit_code == 0
    return tmp_path


def refused(code, *said, arguments):
    done = ckgrow(*arguments)
    assert done.exit_code == code, done.output
    assert done.stdout == ""
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1
    for each in said:
        assert each in done.stderr


# --- arrays ---------------------------------------------------------------------------------

X = np.random.default_rng(0).normal(size=(5, 4)).astype("f4")
Y = np.zeros((5, 3), "f4")


def npy(array, **how):
    file = io.BytesIO()
    np.save(file, array, **how)
    return file.getvalue()


def claiming(shape, descr="<f4"):
    text = f"{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}".ljust(117) + "\n"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text.encode()


ARRAYS = {
    "a wrong size": (npy(X[:, :3]), "graph input input has shape [5, 3]; expected [N, 4]"),
    "no batch": (npy(X[0]), "the first dimension counts the samples: use array[None]"),
    "a scalar": (npy(np.float32(1)), "has shape []; expected [N, 4]"),
    "integers": (npy(X.astype("i8")), "is int64; expected a floating point dtype: save it as"),
    "booleans": (npy(X > 0), "is bool; expected a floating point dtype"),
    "complex numbers": (npy(X + 1j), "is complex64; expected a floating point dtype"),
    "texts": (npy(np.array([["a"] * 4])), "expected a floating point dtype"),
    "objects": (
        npy(X.astype(object), allow_pickle=True),
        "it holds Python objects, which are never loaded; save numbers as float32",
    ),
    "no sample": (npy(X[:0]), "is empty: shape [0, 4]; give some samples"),
    "NaN": (npy(np.where(X > 1, np.nan, X)), "holds NaN or infinity ("),
    "infinity": (npy(np.where(X > 1, np.inf, X)), "holds NaN or infinity ("),
    "too large for float32": (npy(X.astype("f8") * 1e300), "input has values too large for"),
    "nothing": (b"", "is no readable .npy file"),
    "half of it": (npy(X)[:-9], "it is cut short: 80 bytes of data are not there"),
    "a huge claim": (claiming("(4611686018427387904, 4)"), "it is cut short: 73786976294838206464"),
    "a huge claim of integers": (claiming("(1099511627776, 4)", "<i8"), "it is cut short"),
    "a huge claim of text": (claiming("(3, 4)", "<U99999999"), "it is cut short"),
    "a negative claim": (claiming("(-1, 4)"), "it claims the shape [-1, 4]"),
}


@pytest.mark.parametrize("what", ARRAYS)
def test_inputs_that_are_none(folder, what):
    content, said = ARRAYS[what]
    (folder / "x.npy").write_bytes(content)
    refused(3, "x.npy", said, arguments=(*FILES, "--inputs", "x.npy"))
    with zipfile.ZipFile(folder / "x.npz", "w") as archive:
        archive.writestr("input.npy", content)
    said = said.replace(".npy file", ".npz file")
    refused(3, "x.npz", said, arguments=(*FILES, "--inputs", "x.npz"))


@pytest.mark.parametrize(
    ("arrays", "said"),
    [
        ({"image": X, "mask": X}, "the array image is no graph input; expected input [N, 4]"),
        ({}, "holds no array; expected input [N, 4]"),
    ],
)
def test_arrays_of_other_names(folder, arrays, said):
    np.savez("x.npz", **arrays)
    refused(3, "x.npz", said, arguments=(*FILES, "--inputs", "x.npz"))


@pytest.mark.parametrize(
    ("array", "said"),
    [
        (Y[:, :2], "graph output logits has shape [5, 2]; expected [N, 3]"),
        (Y[:4], "expected outputs and inputs must hold the same samples"),
        (Y.astype(int), "is int64; expected a floating point dtype"),
        (Y * np.nan, "holds NaN or infinity (15 of 15 values)"),
    ],
)
def test_expected_outputs_that_are_none(folder, array, said):
    np.save("x.npy", X)
    np.save("y.npy", array)
    refused(3, said, arguments=(*FILES, "--inputs", "x.npy", "--expect", "y.npy"))


@pytest.mark.parametrize("option", ["--inputs", "--maps"])
@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("nowhere.npy", "nowhere.npy"),
        (".", "a directory|is not a file"),
        ("pipe.npy", "pipe.npy"),
        ("n" * 300, "File name too long"),
    ],
)
def test_files_that_are_none(folder, option, path, said):
    os.mkfifo("pipe.npy")
    done = ckgrow(*FILES, option, path)
    assert done.exit_code == 4
    assert any(each in done.stderr for each in said.split("|"))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--samples", "0"), "greater than or equal to 1"),
        (("--rtol", "nan"), "rtol must be a number of at least 0"),
        (("--atol", "-1"), "atol must be a number of at least 0"),
        (("--expect", "y.npy"), "expected outputs belong to inputs of yours"),
    ],
)
def test_options_that_are_none(folder, options, said):
    done = ckgrow(*FILES, *options)
    assert done.exit_code == 2
    assert said in " ".join(done.stderr.split())


@pytest.mark.parametrize("quick", [(), ("--quick",)], ids=["", "quick"])
def test_one_sample_says_nothing(folder, quick):
    np.save("x.npy", X[:1])
    assert document(*FILES, "--inputs", "x.npy", *quick, code=1)["preserved"] is False


# --- networks -------------------------------------------------------------------------------


def test_a_student_of_another_family(tmp_path):
    """The same images and as many classes: they can be compared, and differ."""
    subject = SUBJECTS["resnet basic"]
    save_torch(subject.state(), tmp_path / "resnet.safetensors")
    vgg = random_state(on_meta(vgg11, num_classes=2), shrink=32)
    save_torch(vgg, tmp_path / "vgg.safetensors")
    made = document(
        *("verify", tmp_path / "resnet.safetensors", tmp_path / "vgg.safetensors"),
        *("--quick", "--samples", "1"),
        code=1,
    )
    assert "the largest difference" in made["reason"]
    assert made["notes"][-1].startswith("the teacher is of the family resnet, the student of")


def test_images_of_other_sizes(tmp_path):
    for name, size in (("small", 8), ("large", 12)):
        values = {
            "conv1.weight": torch.randn(4, 1, 3, 3),
            "conv1.bias": torch.randn(4),
            "fc1.weight": torch.randn(3, 4 * size * size),
            "fc1.bias": torch.randn(3),
        }
        save_torch(values, tmp_path / f"{name}.safetensors")
    files = (tmp_path / "small.safetensors", tmp_path / "large.safetensors")
    made = document("verify", *files, code=1)
    assert made["reason"] == (
        "the inputs differ: input ['N', 1, 16, 16] in the teacher, input ['N', 1, 24, 24] in the "
        "student"
    )


def retouched(name, change):
    with safe_open(name, "numpy") as file:
        metadata = file.metadata()
    values = load_file(name)
    change(values)
    save_file(values, name, metadata)


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("name", [TEACHER, STUDENT])
@pytest.mark.parametrize("quick", [(), ("--quick",)], ids=["", "quick"])
def test_weights_that_are_no_numbers(folder, name, value, quick):
    def spoil(values):
        values["2.weight"][0, 0] = value

    retouched(name, spoil)
    made = document(*FILES, *quick, code=1)
    who = "teacher" if name == TEACHER else "student"
    assert f"the {who} computes NaN or infinity" in made["reason"]


@pytest.mark.parametrize("swap", [False, True])
def test_empty_checkpoints(folder, swap):
    save_file({}, "empty.safetensors")
    files = ("empty.safetensors", TEACHER) if swap else (TEACHER, "empty.safetensors")
    refused(3, "empty.safetensors holds no tensors", arguments=("verify", *files))
    (folder / "zero.safetensors").write_bytes(b"")
    files = ("zero.safetensors", TEACHER) if swap else (TEACHER, "zero.safetensors")
    refused(3, "zero.safetensors is empty", arguments=("verify", *files))


@pytest.mark.parametrize("order", [1, -1])
def test_an_output_too_many(tmp_path, order):
    """GoogLeNet's auxiliary heads are outputs; one side has them, the other has not."""
    heads = random_state(
        on_meta(googlenet, init_weights=False, aux_logits=True, num_classes=16), shrink=8
    )
    bare = {name: each for name, each in heads.items() if not name.startswith("aux")}
    save_torch(heads, tmp_path / "heads.safetensors")
    save_torch(bare, tmp_path / "bare.safetensors")
    files = [tmp_path / f"{each}.safetensors" for each in ("heads", "bare")][::order]
    made = document("verify", *files, "--quick", "--samples", "1", code=1)
    assert made["reason"].startswith("output aux1: only one of the networks has this output")


# --- files that change while they are read --------------------------------------------------


def truncate(path):
    os.truncate(path, path.stat().st_size - 40)


def empty(path):
    os.truncate(path, 0)


def overwrite(path):
    """Other numbers at the end of a file that keeps its size."""
    with path.open("r+b") as file:
        file.seek(-8, os.SEEK_END)
        file.write(bytes(8))


def replace(path):
    """Another file of the same bytes: what has been read may have been either's."""
    copy = path.with_name("copy")
    copy.write_bytes(path.read_bytes())
    copy.replace(path)


def remove(path):
    path.unlink()


def append(path):
    with path.open("ab") as file:
        file.write(b"more")


class Striking(Unwatched):
    """Counts the stages of a verdict, and does something to a file when the n-th begins."""

    def __init__(self, path, blow, number):
        self.path, self.blow, self.number, self.stages = path, blow, number, 0

    def begin(self, what, total):
        self.stages += 1
        if self.stages == self.number:
            self.blow(self.path)


def as_torch(name):
    values = {key: torch.from_numpy(each) for key, each in load_file(name).items()}
    path = name.replace(".safetensors", ".pt")
    torch.save(values, path)
    return path


@pytest.mark.parametrize("blow", [truncate, empty, overwrite, replace, remove, append])
@pytest.mark.parametrize("form", ["safetensors", "torch"])
@pytest.mark.parametrize("who", ["teacher", "student"])
def test_a_file_that_changes_while_it_is_read(folder, monkeypatch, who, form, blow):
    files = [as_torch(each) if form == "torch" else each for each in (TEACHER, STUDENT)]
    path = folder / files[who == "student"]
    content = path.read_bytes()
    counting = Striking(path, blow, 0)
    assert verify(*files, watching=counting).preserved
    assert counting.stages >= 5
    for number in range(1, counting.stages + 1):
        path.write_bytes(content)
        struck = Striking(path, blow, number)
        monkeypatch.setattr(making, "watching", lambda struck=struck: nullcontext(struck))
        said = f"{path.name} changed while it was read; run again when nothing writes to it"
        refused(4, said, arguments=("verify", *files))
