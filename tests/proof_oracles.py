"""What the tests of proofs share: students in memory, as a checkpoint with its record would be."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
from student_oracles import State, Student, Unnamed

from ckgrow.architecture import Network
from ckgrow.graph import Graph
from ckgrow.loading import Loaded
from ckgrow.memory import MemoryReader
from ckgrow.planning import Plan
from ckgrow.proof import Claims, Proof, prove

Arrays = Mapping[str, np.ndarray]


def in_memory(label: str, graph: Graph, arrays: Arrays) -> Loaded:
    """Tensors and a graph as an open checkpoint without a record."""
    reader = MemoryReader(arrays)
    return Loaded(label, None, reader, "", reader.header, Unnamed(), Network(graph), None)


def claims_of(plan: Plan) -> Claims:
    """What the record of a plan's student says."""
    draft = plan.draft
    names = {now: before for before, now in draft.names.items() if now in draft.recipes}
    rescaled = any(getattr(step, "rescale", None) is not None for step in plan.spec.steps)
    return Claims(draft.origins, names, draft.interface, draft.defects, rescaled)


def arrays_of_state(plan: Plan, state: State) -> dict[str, np.ndarray]:
    """Torch tensors as arrays under the names that the graph has for them."""
    prefix = plan.teacher.prefix
    return {name.removeprefix(prefix): each.numpy() for name, each in state.items()}


def proof_of(student: Student, state: State, changed: Arrays | None = None) -> Proof:
    """The proof of a student of a teacher in memory; ``changed`` replaces some of its tensors."""
    before = arrays_of_state(student.plan, state)
    after = {**arrays_of_state(student.plan, student.tensors), **(changed or {})}
    return proof_of_graph(student.plan, before, after)


def proof_of_graph(
    plan: Plan, before: Arrays, after: Arrays, claims: Claims | None = None
) -> Proof:
    """The same for bare arrays, perhaps with other claims than the plan's."""
    return prove(
        in_memory("teacher", plan.start.graph, before),
        in_memory("student", plan.graph, after),
        claims or claims_of(plan),
    )


def reclaimed(plan: Plan, layer: str, **changes: object) -> Claims:
    """The claims of a plan, changed for one layer."""
    claims = claims_of(plan)
    origin = replace(claims.origins[layer], **changes)
    return replace(claims, origins={**claims.origins, layer: origin})
