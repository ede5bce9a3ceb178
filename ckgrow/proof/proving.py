"""The proof: both walks, the outputs, and what follows."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from ckgrow.labels import UNKNOWN, Labels
from ckgrow.loading import Loaded
from ckgrow.names import first_few, shown
from ckgrow.proof.certificate import Check, Finding, Proof, Result, Traces
from ckgrow.proof.claims import Claims
from ckgrow.proof.describing import described
from ckgrow.proof.reading import all_finite
from ckgrow.proof.student import StudentWalk
from ckgrow.proof.tables import tabulate
from ckgrow.proof.walking import Network, TeacherWalk
from ckgrow.verdict.interface import Interface

FINITE = "every weight is a finite number"
OUTPUT = "the outputs are the teacher's, channel by channel"


def prove(teacher: Loaded, student: Loaded, claims: Claims | None = None) -> Proof:
    """Whether ``student`` is its teacher's function, by its tensors and what is claimed of them.

    ``claims`` are those of the student's own record if not given. Reads both files once, in
    memory for a few tiles of rows; a layer that was factored is held as a whole.
    """
    proof, _ = traced_proof(teacher, student, claims)
    return proof


def traced_proof(
    teacher: Loaded, student: Loaded, claims: Claims | None = None
) -> tuple[Proof, Traces]:
    """The same, and the labels that it rests on, for whoever compares activations."""
    if claims is None:
        claims = Claims.of(teacher, student)
    table = Labels()
    before = TeacherWalk(Network(teacher.network.graph, teacher.header, teacher.read), table)
    before.walk()
    broken: dict[str, None] = {}

    def read(name: str, start: int, stop: int) -> np.ndarray:
        rows = student.read(name, start, stop)
        if not all_finite(rows):
            broken[name] = None
        return rows

    network = Network(student.network.graph, student.header, read)
    after = StudentWalk(network, before, claims, table)
    after.walk()
    findings = [
        *(Finding(name, "", FINITE, (), (), float("inf")) for name in broken),
        *after.findings,
        *_outputs(before, after, claims),
    ]
    lacking = list(dict.fromkeys(after.lacking))
    if not claims.recorded and findings:
        lacking.insert(0, "a record of where the student's channels come from")
    result = _result(findings, lacking, claims)
    groups, tensors = tabulate(student, claims, after.seen, findings)
    proof = Proof(
        result,
        _reason(result, findings, lacking, tensors),
        tuple(findings),
        tuple(lacking),
        groups,
        tensors,
        max((check.defect for check in tensors if check.result == "holds"), default=0.0),
    )
    return proof, Traces(table, before.values, after.values)


def _outputs(before: TeacherWalk, after: StudentWalk, claims: Claims) -> Iterator[Finding]:
    """What is wrong with the outputs; nothing where they are known to be the teacher's."""
    ours, theirs = after.network.graph.outputs, before.network.graph.outputs
    for name in dict.fromkeys((*theirs, *ours)):
        if name not in ours or name not in theirs:
            yield Finding("", name, "both have the same outputs", (), (), float("inf"))
            continue
        made, wanted = after.values[name], before.values[name]
        teacher, student = before.shapes[name], after.shapes[name]
        dim = Interface(claims.interface).dim(name, teacher, student)
        if dim is not None:
            old, every = int(teacher[dim]), int(student[dim])
            made = np.take(after.table.at(made, dim, every), range(old), dim)
            wanted = before.table.at(wanted, dim, old)
        if (teacher != student and dim is None) or made.shape != wanted.shape:
            after.lacking.append(f"a map of the output {shown(name)}, whose shape changed")
            continue
        if (made == UNKNOWN).any():
            after.lacking.append(f"what the output {shown(name)} is made of")
        wrong = np.flatnonzero((made != wanted) & (made != UNKNOWN))
        if len(wrong):
            where = after.network.graph.producers().get(name)
            said = [described(after.table, int(made.ravel()[each])) for each in wrong[:8]]
            layer = name if where is None else where.name
            yield Finding("", layer, OUTPUT, tuple(wrong.tolist()), tuple(said), float("inf"))


def _result(findings: list[Finding], lacking: list[str], claims: Claims) -> Result:
    if findings and claims.recorded:
        return "refuted"
    return "not proven" if lacking else "proven"


def _reason(
    result: Result, findings: list[Finding], lacking: list[str], checks: tuple[Check, ...]
) -> str:
    if result == "refuted":
        where = first_few([shown(each.tensor or each.layer) for each in findings])
        return f"violated at {where}: {findings[0].equation}"
    if result == "not proven":
        return f"what is missing: {first_few(lacking)}"
    held = [check.defect for check in checks if check.result == "holds"]
    defect = max(held, default=0.0)
    if defect == 0.0:
        return f"every equation of {len(held)} tensors holds exactly: equal for every input"
    return (
        f"every equation of {len(held)} tensors holds within {defect:.2g} units of rounding, as "
        "its record says: equal for every input, but for that"
    )
