"""Students whose file has lost ckgrow's entry: read by names and shapes, or by an earlier copy's.

A sound student that loses its record, as training frameworks lose it, passes all the same, or it is
said what is missing. With an earlier copy's record (``--maps``) every one passes, and broken ones
do not.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from commands import ckgrow
from matrix_networks import SUBJECTS, Subject
from safetensors.torch import load_file, save_file

from ckgrow.errors import CkgrowError
from ckgrow.names import natural_key
from ckgrow.public import apply, verify

PASSED = "preserved"
DIFFERS = "the largest difference"


@dataclass(frozen=True)
class Case:
    """``fate`` of the student without its record: passed, or words of what is said."""

    subject: str
    steps: Callable[[Mapping[str, str]], list[dict[str, Any]]]
    fate: str


def widen(place="inner", **how):
    return lambda at: [{"widen": at[place], "factor": 2, **how}]


def deepen(place="inner", **how):
    return lambda at: [{"deepen": at[place], **how}]


UNKNOWN = "if ckgrow has grown it, name an earlier copy"
INTERFACE = "there is none; name an earlier copy"
MISREAD = "it may have been read wrongly: where new layers stand"

CASES = {
    "mlp widened": Case("mlp relu", widen(), PASSED),
    "mlp deepened": Case("mlp relu", deepen(layers=1), PASSED),
    "mlp factored": Case("mlp relu", deepen(layers=1, method="netmorph"), PASSED),
    "mlp residual": Case("mlp relu", deepen(layers=2, method="r2deeper"), UNKNOWN),
    "mlp branch": Case(
        "mlp relu", lambda at: [{"branch": at["inner"], "at": "sum", "width": 4}], UNKNOWN
    ),
    "mlp inputs": Case("mlp relu", lambda at: [{"inputs": {"by": 2}}], INTERFACE),
    "mlp classes": Case("mlp relu", lambda at: [{"classes": {"by": 2}}], INTERFACE),
    "convnet widened": Case("convnet", widen(), PASSED),
    "convnet kernel": Case("convnet", lambda at: [{"kernel": at["inner"], "to": 5}], PASSED),
    "convnet deepened": Case("convnet", deepen(layers=1), PASSED),
    "convnet factored": Case("convnet", deepen(layers=1, method="netmorph"), MISREAD),
    "resnet widened": Case("resnet basic", widen("stream"), PASSED),
    "resnet fold": Case("resnet basic", widen("stream", method="fold"), PASSED),
    "resnet blocks": Case("resnet basic", deepen("stage", blocks=1), PASSED),
    "resnet layer": Case("resnet basic", deepen(layers=1), UNKNOWN),
    "resnet option A fold": Case("resnet option A", widen("stream", method="fold"), UNKNOWN),
    "googlenet widened": Case("googlenet", widen("branch"), PASSED),
    "googlenet layer": Case("googlenet", deepen(layers=1), UNKNOWN),
}


@dataclass(frozen=True)
class Files:
    """Where a teacher and its student stand; ``lost`` has the student's tensors and no record."""

    teacher: Path
    student: Path
    subject: Subject

    def lost(self, change: Callable[[dict[str, torch.Tensor]], None] = lambda _: None) -> Path:
        values = load_file(self.student)
        change(values)
        path = self.student.with_name("lost.safetensors")
        save_file(values, path)
        return path


@pytest.fixture
def grow(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def make(case: Case) -> Files:
        subject = SUBJECTS[case.subject]
        files = Files(tmp_path / "teacher.safetensors", tmp_path / "student.safetensors", subject)
        save_file(subject.state(), files.teacher)
        teacher = {"options": dict(subject.options)}
        spec = {"teacher": teacher, "steps": case.steps(subject.places)}
        apply(files.teacher, spec, files.student, check=False)
        return files

    return make


def spoil(values):
    """The first class of the last layer is off: every sample shows it."""
    last = max((name for name, each in values.items() if each.ndim == 2), key=natural_key)
    values[last][0] *= 1.1


def outcome(teacher, student, **settings):
    """ "preserved", the reason why not, or the error's words."""
    try:
        made = verify(teacher, student, quick=True, samples=2, **settings)
    except CkgrowError as failure:
        return str(failure)
    return PASSED if made.preserved else made.reason


@pytest.mark.parametrize("name", CASES)
def test_a_sound_student_does_not_fail_for_want_of_a_record(grow, name):
    case = CASES[name]
    files = grow(case)
    said = outcome(files.teacher, files.lost(), options=dict(files.subject.options))
    assert case.fate in said
    assert said == PASSED or "--maps" in said


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case.fate == PASSED])
def test_a_broken_student_does_not_pass_for_want_of_a_record(grow, name):
    files = grow(CASES[name])
    said = outcome(files.teacher, files.lost(spoil), options=dict(files.subject.options))
    assert DIFFERS in said


@pytest.mark.parametrize("name", CASES)
def test_with_the_record_of_an_earlier_copy(grow, name):
    """No option need be stated: the record has them."""
    files = grow(CASES[name])
    assert outcome(files.teacher, files.lost(), maps=files.student) == PASSED
    assert DIFFERS in outcome(files.teacher, files.lost(spoil), maps=files.student)


@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod.", "module._orig_mod."])
@pytest.mark.parametrize("form", ["safetensors", "bare", "state_dict"])
@pytest.mark.parametrize("name", ["mlp classes", "resnet layer"])
def test_as_frameworks_save_it(grow, name, form, prefix):
    files = grow(CASES[name])
    values = {prefix + name: each for name, each in load_file(files.student).items()}
    saved_as = files.student.with_name(f"lost.{'safetensors' if form == 'safetensors' else 'pt'}")
    if form == "safetensors":
        save_file(values, saved_as)
    else:
        torch.save(values if form == "bare" else {"epoch": 3, form: values}, saved_as)
    made = verify(files.teacher, saved_as, maps=files.student, quick=True, samples=2)
    assert made.preserved, made.reason
    # The tensors are still those of the record, whatever they are wrapped in.
    assert made.notes == (f"the student's record is that of {files.student}",)
    assert made.hashes == verify(files.teacher, files.student, quick=True).hashes


def test_a_teacher_that_is_a_student_says_what_its_own_student_has_forgotten(grow):
    """A convnet's pools and input size stand in no name; they were stated generations ago."""
    files = grow(CASES["convnet widened"])
    second = files.student.with_name("second.safetensors")
    apply(files.student, {"steps": [{"widen": "conv1", "by": 2}]}, second, check=False)
    save_file(load_file(second), second)
    assert outcome(files.student, second) == PASSED
    save_file(load_file(files.student), files.student)
    assert "state the option pool" in outcome(files.student, second)


def test_defects_count_for_the_tensors_that_have_them(grow):
    """A factored layer rounds; the record says so of the tensors that were written, no others."""
    files = grow(CASES["mlp factored"])
    lost = files.lost()
    assert verify(files.teacher, lost, maps=files.student).preserved
    assert not verify(files.teacher, lost).preserved

    def nudge(values):
        values["0.bias"][0] += 1e-4

    made = verify(files.teacher, files.lost(nudge), maps=files.student)
    assert not made.preserved
    assert "no rounding that its record tells of is allowed for" in made.notes[1]


# --- a record that cannot be lent -----------------------------------------------------------


def test_a_lender_without_a_record(grow):
    files = grow(CASES["mlp residual"])
    done = ckgrow("verify", files.teacher, files.lost(), "--maps", files.teacher)
    assert done.exit_code == 3
    assert f"{files.teacher} has no record to lend: the entry 'ckgrow'" in done.stderr


def test_a_lender_that_does_not_exist(grow):
    files = grow(CASES["mlp residual"])
    done = ckgrow("verify", files.teacher, files.lost(), "--maps", "nowhere.safetensors")
    assert done.exit_code == 4
    assert "nowhere.safetensors cannot be opened: no such file" in done.stderr


def rename(values):
    values["other"] = values.pop("4.branch.0.bias")


def cut(values):
    values["4.branch.0.bias"] = values["4.branch.0.bias"][:-1].clone()


def add(values):
    values["9.weight"] = torch.ones(2, 2)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (rename, "lost.safetensors, which has no tensor 4.branch.0.bias"),
        (cut, "lost.safetensors: 4.branch.0.bias is 8 in the one and 7 in the other"),
        (add, "lost.safetensors, which also has a tensor 9.weight"),
    ],
)
def test_a_lender_of_other_tensors(grow, change, said):
    files = grow(CASES["mlp residual"])
    done = ckgrow("verify", files.teacher, files.lost(change), "--maps", files.student)
    assert done.exit_code == 3
    assert f"the record of {files.student} does not fit" in done.stderr
    assert said in done.stderr


def test_counters_of_batches_may_come_and_go(grow):
    files = grow(CASES["resnet layer"])

    def without(values):
        for name in [name for name in values if "num_batches" in name]:
            del values[name]
        values["steps"] = torch.tensor(7)

    assert outcome(files.teacher, files.lost(without), maps=files.student) == PASSED


def test_the_record_of_a_student_of_another_teacher(grow):
    files = grow(CASES["mlp classes"])
    other = files.teacher.with_name("other.safetensors")
    save_file(files.subject.state(seed=1), other)
    made = verify(other, files.lost(), maps=files.student)
    assert not made.preserved
    assert "tells of another teacher" in made.reason
    assert "is not the one that the student was grown from" in made.notes[1]
