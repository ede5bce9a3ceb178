"""Compares both networks with what the user's own framework computed for the teacher.

Teacher and student are read under the same assumptions, so a wrong one (tanh taken for relu) hides
from a comparison of the two. It does not hide from outputs that come from elsewhere.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ckgrow.architecture import Assumption
from ckgrow.errors import CheckpointError
from ckgrow.names import shown
from ckgrow.shapes import infer_shapes
from ckgrow.verdict.arrays import read_arrays
from ckgrow.verdict.comparison import OutputVerdict, Pair, largest_difference
from ckgrow.verdict.running import Side

YARDSTICKS = 16.0
RELATIVE = 1e-4
"""Other frameworks have other kernels; a wrong assumption moves outputs by percents."""


@dataclass(frozen=True)
class Expectation:
    """How far each side is from one expected output; None where it cannot be compared."""

    name: str
    met: bool
    reason: str
    teacher_max_abs: float | None
    student_max_abs: float | None
    tolerance: float


def expected_from_file(path: Path, teacher: Side) -> dict[str, np.ndarray]:
    """Expected outputs named as the graph's; a single array may bear any name.

    Raises FileError and CheckpointError as ``ckgrow.verdict.samples.from_file`` does.
    """
    shapes = infer_shapes(teacher.graph, teacher.header)
    wanted = {name: shapes[name] for name in teacher.graph.outputs}
    return read_arrays(path, wanted, "graph output")


def meet(
    expected: Mapping[str, np.ndarray],
    pairs: Mapping[str, Pair],
    verdicts: Mapping[str, OutputVerdict],
    assumptions: Sequence[Assumption],
) -> tuple[Expectation, ...]:
    """Compares every expected output with both sides' float32 outputs."""
    if not expected:
        raise CheckpointError("there are no expected outputs to compare with")
    met = []
    for name, array in expected.items():
        if name not in pairs:
            known = ", ".join(map(shown, pairs))
            raise CheckpointError(f"{shown(name)} is no output of both graphs; these are: {known}")
        if array.shape != pairs[name].teacher.shape:
            raise CheckpointError(
                f"the expected output {shown(name)} has shape {list(array.shape)}, "
                f"but the teacher computes {list(pairs[name].teacher.shape)}: "
                "expected outputs and inputs must hold the same samples"
            )
        met.append(_meet(name, array, pairs[name], verdicts[name].yardstick or 0.0, assumptions))
    return tuple(met)


def _meet(
    name: str,
    expected: np.ndarray,
    pair: Pair,
    yardstick: float,
    assumptions: Sequence[Assumption],
) -> Expectation:
    scale = float(np.abs(expected.astype(np.float64)).max())
    tolerance = max(YARDSTICKS * yardstick, RELATIVE * scale)
    teacher, student = _difference(expected, pair.teacher), _difference(expected, pair.student)
    departing = [
        f"the {who}" if difference is None else f"the {who} by {difference:.2e}"
        for who, difference in (("teacher", teacher), ("student", student))
        if difference is None or difference > tolerance
    ]
    if not departing:
        reason = f"both sides are within {tolerance:.2e} of what was expected"
    else:
        verb = "departs" if len(departing) == 1 else "depart"
        reason = f"{' and '.join(departing)} {verb} from what was expected"
        reason += f" (tolerance {tolerance:.2e})"
        if teacher is None or teacher > tolerance:
            reason += f"; an assumption is probably wrong: {_suspects(assumptions)}"
    return Expectation(name, not departing, reason, teacher, student, tolerance)


def _difference(expected: np.ndarray, computed: np.ndarray) -> float | None:
    if computed.shape != expected.shape or not np.isfinite(computed).all():
        return None
    return largest_difference(expected, computed)


def _suspects(assumptions: Sequence[Assumption]) -> str:
    doubtful = [each for each in assumptions if each.source != "checkpoint"]
    listed = ", ".join(f"{each.fact} = {each.value} ({each.source})" for each in doubtful)
    return listed or "activation, eps, padding or the order of layers"
