"""benchmarks/apply.py in a small form: both ways make whole students, and so is the table."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from commands import ckgrow
from safetensors.torch import load_file

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
sys.path.insert(0, str(BENCHMARKS))

import apply  # noqa: E402
import apply_script  # noqa: E402
from apply_teachers import GROWTHS, Stack, spec  # noqa: E402

SMALL = (
    Stack("1 GB, tiny, float32", 3, 20, "float32"),
    Stack("1 GB, tiny, bfloat16", 2, 30, "bfloat16"),
)


@pytest.fixture(autouse=True)
def small(monkeypatch):
    monkeypatch.setattr(apply, "PAUSE", 0.0)
    monkeypatch.setattr(apply, "STACKS", SMALL)


def test_the_table_has_a_row_for_every_teacher_and_growth(tmp_path, capsys):
    arguments = ["--runs", "1", "--folder", str(tmp_path), "--results", str(tmp_path)]
    apply.main([*arguments, "--growths", "both"])
    (written,) = tmp_path.glob("apply-*.md")
    rows = [line for line in written.read_text().splitlines() if "tiny" in line]
    assert written.read_text() in capsys.readouterr().out
    assert [row.split(" | ")[1] for row in rows] == ["both", "both"]
    for row in rows:
        figures = [float(cell) for cell in row.strip("| ").split(" | ")[2:]]
        assert len(figures) == 7
        _, ours, _, script, _, times_script, memory = figures
        assert ours / script == pytest.approx(times_script, abs=0.02)
        assert memory > 40  # a process begins with what its parent has, here all of pytest


@pytest.mark.parametrize("growth", GROWTHS)
@pytest.mark.parametrize("stack", SMALL, ids=lambda stack: stack.dtype)
def test_ckgrow_and_the_script_make_students_of_one_shape(tmp_path, stack, growth):
    teacher, wish, ours, theirs = (tmp_path / name for name in ("t.safetensors", "s", "a", "b"))
    ours, theirs = ours.with_suffix(".safetensors"), theirs.with_suffix(".safetensors")
    stack.write(teacher)
    assert teacher.stat().st_size == len(stack.header()) + stack.nbytes
    wish.write_text(spec(stack, growth, 1.5))
    done = ckgrow("apply", teacher, wish, "-o", ours)
    assert done.exit_code == 0, done.output
    apply_script.main(str(teacher), str(theirs), growth, 1.5)
    made, expected = load_file(ours), load_file(theirs)
    assert {name: weight.shape for name, weight in made.items()} == {
        name: weight.shape for name, weight in expected.items()
    }
    sample = torch.linspace(-1, 1, 4)[None].to(made["0a.weight"].dtype)
    for student in (made, expected):
        outputs = [through(state, sample) for state in (load_file(teacher), student)]
        assert torch.allclose(*outputs, rtol=1e-5 if stack.itemsize == 4 else 0.1, atol=1e-6)


def through(state: dict[str, torch.Tensor], x: torch.Tensor) -> torch.Tensor:
    """The network of a state dict, in float64 so that only the weights are rounded."""
    x = x.double()
    for number, weight in enumerate(state.values()):
        x = x @ weight.double().T
        x = x.relu() if number < len(state) - 1 else x
    return x
