"""Which node of the teacher a node of the student comes from, as its record claims."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ckgrow.graph import Graph, Node
from ckgrow.ops.tracing import Linear
from ckgrow.proof.claims import Claims
from ckgrow.proof.effective import Effective, Plain
from ckgrow.proof.walking import Followed, TeacherWalk


@dataclass(frozen=True)
class Matching:
    """The claims about one student, looked up in its teacher."""

    teacher: TeacherWalk
    student: Graph
    claims: Claims

    def layer(self, linear: Linear) -> Linear | None:
        """The teacher's layer that rows are claimed to be copies of."""
        origin = self.claims.origins.get(linear.node.name)
        if origin is not None:
            return self.teacher.layers.get(origin.of)
        if self.claims.recorded:
            return None
        node = self._counterpart(linear.node, (linear.weight,))
        return None if node is None else self.teacher.layers.get(node.name)

    def sources(self, linear: Linear, model: Linear | None) -> np.ndarray | None:
        """A source for every row, coded as maps do; None where nothing is claimed."""
        origin = self.claims.origins.get(linear.node.name)
        if origin is not None:
            return origin.map.sources
        same = model is not None and model.width == linear.width
        return np.arange(linear.width) if same else None

    def followed(self, node: Node, names: Sequence[str]) -> Followed | None:
        """The teacher's node that had these parameters, if it is the same function of them."""
        found = self._counterpart(node, names)
        if found is None or dict(found.attributes) != dict(node.attributes):
            return None
        return self.teacher.followed.get(found.name)

    def lacking(
        self,
        student: Effective,
        teacher: Plain | None,
        sources: np.ndarray | None,
        *,
        passing: bool,
    ) -> str:
        """What is missing for a layer of which this is claimed, "" when nothing is."""
        name = student.weights.linear.node.name
        if sources is None:
            return f"a map of {name}" if self.claims.recorded else ""
        if len(sources) != student.weights.linear.width:
            return f"a map of {name} with as many channels as it has"
        if passing or not (sources >= 0).any():
            return ""
        if teacher is None:
            return f"the teacher's layer that {name} comes from"
        if sources.max() >= teacher.weights.linear.width:
            return f"a map of {name} onto channels that the teacher has"
        if student.geometry != teacher.geometry:
            return f"the strides and sizes of {name} as the teacher has them"
        return ""

    def _counterpart(self, node: Node, names: Sequence[str]) -> Node | None:
        """The teacher's node that read these tensors when they were the teacher's.

        Among several that share a tensor, the one of the same name, or else in the same place.
        """
        readers = self.teacher.network.graph.consumers()
        for name in names:
            before = self.claims.teacher_names.get(name, "")
            nodes = [each for each in readers.get(before, []) if each.op == node.op]
            if nodes:
                mine = [n.name for n in self.student.consumers()[name] if n.op == node.op]
                named = [each for each in nodes if each.name == node.name]
                return named[0] if named else nodes[min(mine.index(node.name), len(nodes) - 1)]
        return None
