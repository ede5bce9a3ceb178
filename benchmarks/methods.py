"""Makes the table of methods in docs/methods.md: every entry is measured, none is written by hand.

Runs every cell of the matrix (tests/method_matrix.py) and a few questions besides: how many new
channels a method can make, how much of what is new can be chosen freely, whether it can learn.

    python benchmarks/methods.py            rewrites the table in docs/methods.md
    python benchmarks/methods.py --check    fails if the table there is another
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests"))

import conftest  # noqa: F401  # declares the operators that torchvision may lack
import torch
from learning_oracle import moved, unit_rank
from matrix_networks import chain
from method_matrix import DEEPEN, WIDEN, Cell, Outcome, cells, measure
from student_oracles import Student, grown, on_meta, random_state
from torch import nn

from ckgrow.errors import SpecError
from ckgrow.methods.method import STRENGTH

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
        return int(made != page)
    PAGE.write_text(made, encoding="utf-8")
    return 0


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
    function = PROMISES[max(promises, key=STRENGTH.index)] if promises else "refused everywhere"
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
        _free(verb, method),
        _learns(verb, method),
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


def _student(step: Mapping[str, Any], seed: int = 0) -> Student | None:
    state, options = _network()
    try:
        return grown(state, step, seed=seed, options=options)
    except SpecError:
        return None


def _channels(method: str) -> str:
    """By how many channels it can widen 8."""
    can = {by for by in range(1, 17) if _student({"widen": "2", "by": by, **WIDEN[method]})}
    kinds = {"any": range(1, 17), "even": range(2, 17, 2), "whole multiples": range(8, 17, 8)}
    return next((name for name, numbers in kinds.items() if can == {*numbers}), "")


def _step(verb: str, method: str) -> Mapping[str, Any] | None:
    if verb == "widen":
        return {"widen": "2", "factor": 2, **WIDEN[method]}
    return {"deepen": "2", **DEEPEN[method]} if verb == "deepen" else None


def _free(verb: str, method: str) -> str:
    """Part of the new entries of weights that another seed would have chosen otherwise."""
    step = _step(verb, method)
    one, two = (_student(step, seed) if step else None for seed in (0, 1))
    if one is None or two is None:
        return ""
    old = sum(tensor.numel() for tensor in _network()[0].values())
    new = sum(tensor.numel() for tensor in one.tensors.values()) - old
    differ = sum(int((one.tensors[name] != two.tensors[name]).sum()) for name in one.tensors)
    return f"{min(differ / max(new, 1), 1):.0%}"


def _learns(verb: str, method: str) -> str:
    """Rank of the units' gradients for what widens, the part that moves of what is inserted."""
    step = _step(verb, method)
    student = _student(step) if step else None
    if student is None:
        return ""
    if verb == "widen":
        rank = unit_rank(student, "2", "4")
        return "yes" if rank == 16 else f"rank {rank} of 16"
    share, _ = moved(student)
    return "yes" if share == 1 else f"{share:.0%} of new weights move"


def _line(cells: Iterable[str]) -> str:
    return "| " + " | ".join(cells) + " |"


if __name__ == "__main__":
    sys.exit(main())
