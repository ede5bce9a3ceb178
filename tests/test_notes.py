"""What the verdict says of the two files besides: changed since ``apply``, swapped, strangers."""

from __future__ import annotations

import json
import os

import ml_dtypes
import numpy as np
import pytest
from commands import WIDEN, ckgrow, document, saved, tensors, written
from safetensors import safe_open
from safetensors.numpy import load_file, save_file
from shipped import TEACHERS

from ckgrow.public import apply, verify

TEACHER, STUDENT = "teacher.safetensors", "student.safetensors"
UNRECORDED = "the student's file has no record of its growth"
CHANGED = "the student's tensors are no longer those that ckgrow apply wrote"
ANOTHER = "the teacher is not the one that the student was grown from, or was changed since"


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    saved(tmp_path / TEACHER, tensors())
    written(tmp_path / "spec.yaml", WIDEN)
    assert ckgrow("apply", TEACHER, "spec.yaml", "-o", STUDENT).exit_code == 0
    return tmp_path


def notes(teacher=TEACHER, student=STUDENT, code=0):
    return document("verify", teacher, student, "--quick", code=code)["notes"]


def retouched(name, change):
    """The file's tensors changed and saved again with its metadata."""
    with safe_open(name, "numpy") as file:
        metadata = file.metadata()
    values = load_file(name)
    change(values)
    save_file(values, name, metadata)


def nudge(values):
    values["2.weight"] += 0.01


def test_nothing_is_said_of_a_student_as_it_was_written(folder):
    assert notes() == []
    assert apply(TEACHER, "spec.yaml", "second.safetensors").verify.notes == ()


def test_a_student_trained_further(folder):
    retouched(STUDENT, nudge)
    (said,) = notes(code=1)
    assert said.startswith(CHANGED)
    assert "no rounding that its record tells of is allowed for" in said


def test_a_student_of_other_numbers_that_computes_the_same(folder):
    """As good as the written one for this verdict; changed all the same."""

    def swap(values):
        values["0.weight"] = values["0.weight"][::-1].copy()
        values["0.bias"] = values["0.bias"][::-1].copy()
        values["2.weight"] = values["2.weight"][:, ::-1].copy()

    retouched(STUDENT, swap)
    (said,) = notes()
    assert said.startswith(CHANGED)


def test_a_student_in_another_dtype(folder):
    retouched(STUDENT, lambda values: values.update({k: v.astype("f8") for k, v in values.items()}))
    (said,) = notes()
    assert said.startswith(CHANGED)


def test_a_teacher_changed_since(folder):
    retouched(TEACHER, nudge)
    (said,) = notes(code=1)
    assert said.startswith(ANOTHER)


def test_another_teacher(folder):
    saved(folder / "other.safetensors", tensors(seed=1))
    (said,) = notes("other.safetensors", code=1)
    assert said.startswith(ANOTHER)
    record = json.loads(safe_open(STUDENT, "numpy").metadata()["ckgrow"])
    assert said.endswith(f"the student's record says {record['teacher'][:12]}")


def test_a_grandmother(folder):
    for before, after in ((STUDENT, "2.safetensors"), ("2.safetensors", "3.safetensors")):
        assert ckgrow("apply", before, "spec.yaml", "-o", after).exit_code == 0
    assert notes(STUDENT, "2.safetensors") == []
    (said,) = notes(TEACHER, "3.safetensors")
    assert "is not the one that the student was grown from but 3 generations before it" in said


@pytest.mark.parametrize("last", [STUDENT, "2.safetensors"])
def test_swapped(folder, last):
    ckgrow("apply", STUDENT, "spec.yaml", "-o", "2.safetensors")
    (said,) = notes(last, TEACHER)
    assert said == "the first file was grown from the second: give the teacher first"


def test_a_student_without_a_record(folder):
    save_file(load_file(STUDENT), STUDENT)
    (said,) = notes()
    assert said.startswith(UNRECORDED)


def test_tensors_in_memory_have_no_record(folder):
    (said,) = verify(load_file(TEACHER), load_file(STUDENT), quick=True).notes
    assert said.startswith(UNRECORDED)


def test_the_same_file_twice(folder):
    os.symlink(TEACHER, "link.safetensors")
    for path in (TEACHER, f"./{TEACHER}", "link.safetensors", folder / TEACHER):
        assert notes(TEACHER, path) == ["both are the same file: the teacher is its own student"]


def test_the_same_tensors_twice(folder):
    save_file({f"module.{name}": each for name, each in tensors().items()}, "ddp.safetensors")
    save_file(load_file(STUDENT), "bare.safetensors")
    said = ["both files hold the same tensors: the teacher is its own student"]
    assert notes(TEACHER, "ddp.safetensors") == notes(STUDENT, "bare.safetensors") == said
    assert verify(tensors(), tensors(), quick=True).notes == tuple(said)


def test_the_same_tensors_in_another_dtype_are_others(folder):
    saved(
        folder / "half.safetensors",
        {name: each.astype(ml_dtypes.bfloat16) for name, each in tensors().items()},
    )
    (said,) = notes(TEACHER, "half.safetensors", code=1)
    assert said.startswith(UNRECORDED)


def test_families(folder):
    made = document("verify", TEACHERS / "resnet.safetensors", TEACHERS / "mlp.safetensors", code=1)
    assert made["notes"][-1] == (
        "the teacher is of the family resnet, the student of mlp: no growth makes the one of the "
        "other"
    )


def test_counters_are_tensors_and_no_fault(tmp_path):
    """num_batches_tracked moves with every step of training, and computes nothing."""
    teacher = load_file(TEACHERS / "resnet.safetensors")
    counter = next(name for name in teacher if "num_batches" in name)
    path = saved(tmp_path / "ahead.safetensors", {**teacher, counter: np.array(7)})
    made = verify(TEACHERS / "resnet.safetensors", path)
    assert made.preserved
    assert made.outputs[0].float64_max_abs == 0
    assert made.hashes["teacher"] != made.hashes["student"]


def test_the_command_prints_them(folder):
    retouched(STUDENT, nudge)
    lines = ckgrow("verify", TEACHER, STUDENT).stdout.splitlines()
    assert f"note: {CHANGED}" in " ".join(lines)
    assert lines[0] == "verdict: NOT PRESERVED"


def test_names_of_files_are_escaped(folder):
    np.savez("x.npz")
    strange = "a\x1b[31m.safetensors"
    os.rename(STUDENT, strange)
    save_file(load_file(strange), STUDENT)
    said = ckgrow("verify", TEACHER, STUDENT, "--maps", strange).stdout
    assert "the student's record is that of" in said
    assert "\x1b" not in said
