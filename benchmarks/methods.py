"""Makes the table of methods in docs/methods.md: every entry is measured, none is written by hand.

Runs every cell of the matrix (tests/method_matrix.py) and a few questions besides: how many new
channels a method can make, how much of what is new can be chosen freely, whether it can learn.

    python benchmarks/methods.py            rewrites the table in docs/methods.md
    python benchmarks/methods.py --check    fails if the table there is another, but for rounding
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests"))

import conftest  # noqa: F401  # declares the operators that torchvision may lack
import torch
from learning_oracle import unit_rank, unmoved
from matrix_networks import chain
from method_matrix import WIDEN, Cell, Outcome, cells, measure, teacher
from student_oracles import Student, grown, on_meta, random_state
from torch import nn

from ckgrow.errors import SpecError
from ckgrow.methods.method import weakest

PAGE = ROOT / "docs" / "methods.md"
BEGIN, END = "<!-- measured: begin -->", "<!-- measured: end -->"
ACTIVATIONS = ("tanh", "hardswish", "sigmoid")
HEADS = (
    "method",
    "function",
    "float64",
    "teacher kept",
    "activations",
    "residual",
    "concat",
    "grouped",
    "new channels",
    "free",
    "can learn",
)
PROMISES = {
    "exact": "exact",
    "rounded": "rounded",
    "eval": "in eval mode",
    "approximate": "approximately",
    "no": "no",
}

Row = tuple[str, ...]
Results = list[tuple[Cell, Outcome]]


def main() -> int:
    """Writes or checks the table."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--check", action="store_true")
    check = arguments.parse_args().check
    page = PAGE.read_text(encoding="utf-8")
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    made = f"{before}{BEGIN}\n{table(results())}{END}{after}"
    if check:
        return int(_without_float64(made) != _without_float64(page))
    PAGE.write_text(made, encoding="utf-8")
    return 0


def _without_float64(page: str) -> list[list[str]]:
    """The page by lines and cells, without the column that machines round differently."""
    column = 1 + HEADS.index("float64")
    lines = [line.split("|") for line in page.splitlines()]
    return [line[:column] + line[column + 1 :] for line in lines]


def results() -> Results:
    """Every cell, measured."""
    return [(cell, measure(cell)) for cell in cells()]


def table(measured: Results) -> str:
    """One row for each method of each verb, in the order of the matrix."""
    rows: dict[tuple[str, str], Results] = {}
    for cell, outcome in measured:
        rows.setdefault((cell.verb, cell.method), []).append((cell, outcome))
    lines = [_line(HEADS), _line("---" for _ in HEADS)]
    lines += [_line(_row(verb, method, found)) for (verb, method), found in rows.items()]
    return "\n".join(lines) + "\n"


def _row(verb: str, method: str, found: Results) -> Row:
    students = [outcome for _, outcome in found if not outcome.refused]
    promises = {outcome.promised for outcome in students}
    function = PROMISES[weakest(promises)] if promises else "refused everywhere"
    worst = max((outcome.double for outcome in students), default=0.0)
    return (
        f"{verb} `{method}`",
        function,
        f"{worst:.0e}" if function not in ("approximately", "no") else f"{worst:.2g} off",
        "yes" if all(outcome.kept for outcome in students) else "no",
        _activations(found),
        _where(found, lambda cell: cell.network.startswith("resnet") and cell.place != "grouped"),
        _where(found, lambda cell: cell.network in ("googlenet", "inception_v3")),
        _where(found, lambda cell: cell.network == "resnet grouped"),
        _channels(method) if verb == "widen" else "",
        _free(found),
        _learns(verb, method, found),
    )


def _where(found: Results, belongs: Any) -> str:
    outcomes = [outcome for cell, outcome in found if belongs(cell)]
    taken = sum(not outcome.refused for outcome in outcomes)
    if not outcomes:
        return ""
    return "yes" if taken == len(outcomes) else f"{taken} of {len(outcomes)}" if taken else "no"


def _activations(found: Results) -> str:
    """Which of the activations of the small MLPs it refuses."""
    refused = {
        cell.network.removeprefix("mlp ")
        for cell, outcome in found
        if cell.network.startswith("mlp ") and outcome.refused
    }
    if not refused:
        return "any"
    if refused >= {"relu", *ACTIVATIONS}:
        return ""
    return "not " + ", ".join(name for name in ACTIVATIONS if name in refused)


def _network() -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """An MLP whose middle layer has room for gradients of full rank."""
    module = on_meta(lambda: chain(20, 12, 8, 12, 4, activation=nn.ReLU))
    return random_state(module), {"activation": "relu"}


def _widened(method: str, **size: int) -> Student | None:
    state, options = _network()
    try:
        return grown(state, {"widen": "2", **size, **WIDEN[method]}, options=options)
    except SpecError:
        return None


def _channels(method: str) -> str:
    """By how many channels it can widen 8."""
    can = {by for by in range(1, 17) if _widened(method, by=by)}
    kinds = {"any": range(1, 17), "even": range(2, 17, 2), "whole multiples": range(8, 17, 8)}
    if not can:  # it is not for chains: its pairs are tested where it works
        return "even" if method == "fold" else ""
    return next(name for name, numbers in kinds.items() if can == {*numbers})


def _free(found: Results) -> str:
    """Part of the new entries of weights that another seed would have chosen otherwise."""
    cell, outcome = _first(found)
    if outcome.student is None:
        return ""
    one, other = outcome.student.tensors, measure(replace(cell, seed=1)).student
    assert other is not None
    old = sum(tensor.numel() for tensor in teacher(cell.network)[1].values())
    new = sum(tensor.numel() for tensor in one.values()) - old
    differ = sum(int((one[name] != other.tensors[name]).sum()) for name in one)
    return f"{min(differ / max(new, 1), 1):.0%}"


def _learns(verb: str, method: str, found: Results) -> str:
    """Whether a widened layer's gradients have full rank; whether all that is new moves."""
    if verb == "widen" and (widened := _widened(method, factor=2)):
        rank = unit_rank(widened, "2", "4")
        return "yes" if rank == 16 else f"no: rank {rank} of 16"
    student = _first(found)[1].student
    if student is None:
        return ""
    still = unmoved(student)
    return "yes" if not still else f"no: {still[0]}"


def _first(found: Results) -> tuple[Cell, Outcome]:
    """The first cell that was not refused."""
    return next((each for each in found if not each[1].refused), found[0])


def _line(cells: Iterable[str]) -> str:
    return "| " + " | ".join(cells) + " |"


if __name__ == "__main__":
    sys.exit(main())
