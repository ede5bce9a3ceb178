"""What a student's file says of itself: where it comes from, and how its channels map.

One JSON string, sorted and without timestamps, so that equal inputs give equal bytes. The
student's own hash stands in it with a fixed length and is filled in after writing.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from ckgrow.architecture import Assumption
from ckgrow.drafts.draft import Origin
from ckgrow.errors import CheckpointError, GraphError
from ckgrow.graph import Constant, Graph, Node
from ckgrow.header import last_place
from ckgrow.maps import ChannelMap
from ckgrow.names import shown

SCHEMA = "ckgrow.provenance/3"
FIRST = "ckgrow.provenance/1"
SECOND = "ckgrow.provenance/2"
"""What 0.1.0 and 0.2.0 wrote; they are read still."""
UNPLACED = ""
"""In the place of a node: a defect of which it is not known where it is."""
UNHASHED = "the-hash-of-this-student".ljust(64, "-")
"""Stands for the student's own hash until its bytes are known; as long as one in hexadecimal."""

_DAMAGES = (
    *(ValueError, LookupError, TypeError, AttributeError, ArithmeticError, RecursionError),
    GraphError,
)
"""What a record raises that is not as it was written."""


@dataclass(frozen=True)
class TwinHashes:
    """The content of another state dict of the same container, in the teacher and the student."""

    teacher: str
    student: str = UNHASHED


@dataclass(frozen=True)
class Provenance:
    """The identity and history of a student.

    ``calibration`` has the hash of every file that statistics were measured on, as the spec names
    it. ``graph`` is present where the adapter cannot rebuild it from keys and shapes. ``origins``
    has the map of every layer from the teacher's layer it comes from, ``interface`` that of every
    graph input and output whose channels are not the teacher's, ``kept`` where the teacher's
    tensors stand in the student's, a slice per axis, ``renames`` what the teacher's tensors that
    are called otherwise are called now, ``defects`` how far rounded nodes are from keeping the
    function, each relative to what passes through it. ``options`` are the student's,
    ``teacher_options`` what was stated of the teacher. ``lineage`` holds the teacher's own
    ancestors, oldest first, each as {teacher, spec, version}. ``twins`` are the other state dicts
    of a container.
    """

    version: str
    architecture: str
    options: Mapping[str, Any]
    assumptions: tuple[Assumption, ...]
    spec: Mapping[str, Any]
    teacher: str
    teacher_options: Mapping[str, Any]
    origins: Mapping[str, Origin]
    interface: Mapping[str, ChannelMap]
    new_tensors: tuple[str, ...]
    kept: Mapping[str, tuple[str, ...]]
    renames: Mapping[str, str]
    lineage: tuple[Mapping[str, Any], ...]
    preserves: str
    defects: Mapping[str, float]
    graph: Graph | None = None
    calibration: Mapping[str, str] = field(default_factory=dict)
    twins: Mapping[str, TwinHashes] = field(default_factory=dict)
    student: str = UNHASHED

    def to_json(self) -> str:
        """One line of JSON with sorted keys."""
        document = {
            "schema": SCHEMA,
            "version": self.version,
            "architecture": self.architecture,
            "options": dict(self.options),
            "assumptions": [vars(assumption) for assumption in self.assumptions],
            "spec": self.spec,
            "teacher": self.teacher,
            "teacher_options": dict(self.teacher_options),
            **_origins_document(self.origins),
            "interface": {name: [each.width, each.runs()] for name, each in self.interface.items()},
            "new_tensors": list(self.new_tensors),
            "kept": {name: list(axes) for name, axes in self.kept.items()},
            "renames": dict(self.renames),
            "lineage": list(self.lineage),
            "preserves": self.preserves,
            "defects": dict(self.defects),
            "graph": None if self.graph is None else graph_document(self.graph),
            "calibration": dict(self.calibration),
            "student": self.student,
        }
        if self.twins:
            document["twins"] = {name: vars(each) for name, each in self.twins.items()}
        return json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=True)

    @staticmethod
    def from_json(text: str, where: str) -> Provenance:
        """The provenance in a file's metadata; CheckpointError when it is none."""
        try:
            document = json.loads(text)
            if document.get("schema") == FIRST:
                document = _from_first(document)
            if document.get("schema") == SECOND:
                document = _from_second(document)
            if document.get("schema") != SCHEMA:
                raise CheckpointError(
                    f"{where}: its ckgrow entry is {shown(str(document.get('schema')))}, "
                    f"this version reads {SCHEMA}; use the version that wrote it"
                )
            return Provenance(
                version=str(document["version"]),
                architecture=str(document["architecture"]),
                options=_mapping(document["options"]),
                assumptions=tuple(map(_assumption, document["assumptions"])),
                spec=_mapping(document["spec"]),
                teacher=str(document["teacher"]),
                teacher_options=_mapping(document["teacher_options"]),
                origins=_origins(document["maps"], document["layers"]),
                interface={
                    name: ChannelMap.from_runs(int(width), runs)
                    for name, (width, runs) in document["interface"].items()
                },
                new_tensors=_texts(document["new_tensors"]),
                kept={name: tuple(map(str, axes)) for name, axes in document["kept"].items()},
                renames={old: str(new) for old, new in document["renames"].items()},
                lineage=tuple(
                    {name: each[name] for name in ("teacher", "spec", "version")}
                    for each in document["lineage"]
                ),
                preserves=str(document["preserves"]),
                defects={name: float(each) for name, each in document["defects"].items()},
                graph=None if document["graph"] is None else graph_from(document["graph"]),
                calibration=_mapping(document["calibration"]),
                twins={
                    name: TwinHashes(_text(each["teacher"]), _text(each["student"]))
                    for name, each in document.get("twins", {}).items()
                },
                student=str(document["student"]),
            )
        except _DAMAGES as damage:
            raise CheckpointError(
                f"{where}: its ckgrow entry is damaged ({type(damage).__name__}); "
                "remove the entry 'ckgrow' from the file's metadata to read it as it is"
            ) from None

    def identity(self) -> str:
        """What makes two runs grow the same weights: everything but hashes of what was made."""
        return replace(self, student=UNHASHED, twins={}).to_json()

    def as_ancestor(self) -> tuple[Mapping[str, Any], ...]:
        """The lineage of a student grown from this one."""
        own = {"teacher": self.teacher, "spec": self.spec, "version": self.version}
        return (*self.lineage, own)


def _from_first(document: Mapping[str, Any]) -> dict[str, Any]:
    """A record of version 1 as one of the next: nothing changed at the interface then."""
    since: dict[str, Any] = {"interface": {}, "kept": {}, "calibration": {}}
    return {**document, **since, "teacher_options": document["options"], "schema": SECOND}


def _from_second(document: Mapping[str, Any]) -> dict[str, Any]:
    """A record of version 2: one sum of defects stood for all layers, and no renames."""
    total = float(document["defect"])
    since = {"defects": {UNPLACED: total} if total else {}, "renames": {}}
    return {**document, **since, "schema": SCHEMA}


def most_recorded(dtype: str) -> float:
    """What a step records of a node at most; a record that says more is believed no farther.

    A dense factor comes to three roundings, which are half a unit in the last place each, and what
    solving for it in float64 is off by.
    """
    return 2.0 * last_place(dtype) + 2.0**-40


def graph_document(graph: Graph) -> dict[str, Any]:
    """A graph as plain data."""
    return {
        "inputs": {name: list(shape) for name, shape in graph.inputs.items()},
        "outputs": list(graph.outputs),
        "nodes": [
            [node.op, node.name, list(node.inputs), list(node.outputs), dict(node.attributes)]
            for node in graph.nodes
        ],
        "constants": {
            name: [constant.dtype, list(constant.shape), list(constant.values)]
            for name, constant in graph.constants.items()
        },
    }


def graph_from(document: Mapping[str, Any]) -> Graph:
    """The inverse of :func:`graph_document`."""
    nodes = tuple(
        Node(
            _text(op),
            _text(name),
            _texts(inputs),
            _texts(outputs),
            {k: _tuple(v) for k, v in attributes.items()},
        )
        for op, name, inputs, outputs, attributes in document["nodes"]
    )
    constants = {
        name: Constant(dtype, tuple(shape), tuple(values))
        for name, (dtype, shape, values) in document["constants"].items()
    }
    inputs = {name: tuple(shape) for name, shape in document["inputs"].items()}
    return Graph(inputs, _texts(document["outputs"]), nodes, constants).check()


def _assumption(given: Mapping[str, Any]) -> Assumption:
    _texts(given.values())
    return Assumption(**given)


def _texts(given: Iterable[Any]) -> tuple[str, ...]:
    return tuple(map(_text, given))


def _text(given: Any) -> str:
    """A name from a file, as everything else then takes it for one; TypeError otherwise."""
    if not isinstance(given, str):
        raise TypeError("a name is no text")
    return given


def _mapping(given: Any) -> dict[str, Any]:
    """A JSON object as it is; TypeError for the list of pairs that ``dict`` takes as well."""
    if not isinstance(given, dict):
        raise TypeError("no object")
    return given


def _tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _origins_document(origins: Mapping[str, Origin]) -> dict[str, Any]:
    """Maps once each, since a stream's layers share one, and layers as [of, map, certificate]."""
    number: dict[ChannelMap, int] = {}
    layers = {
        name: [origin.of, number.setdefault(origin.map, len(number)), origin.certificate]
        for name, origin in sorted(origins.items())
    }
    return {"maps": [[each.width, each.runs()] for each in number], "layers": layers}


def _origins(maps: list[Any], layers: Mapping[str, Any]) -> dict[str, Origin]:
    known = [ChannelMap.from_runs(int(width), runs) for width, runs in maps]
    return {
        name: Origin(str(of), known[number], str(certificate))
        for name, (of, number, certificate) in layers.items()
    }
