"""How the student was made: the spec, and the generations before it."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap

from ckgrow.planning.verbs import VERBS
from ckgrow.reports.page.evidence import Evidence
from ckgrow.reports.page.figures import plural
from ckgrow.reports.page.markup import Markup, joined, tag
from ckgrow.reports.page.tables import folded, pairs

_ORDER = ("version", "seed", "teacher", "steps", "verify")
_HASH = 16


def story(evidence: Evidence) -> Markup:
    """The spec as YAML, and the lineage."""
    known = evidence.student.provenance
    if known is None:
        return tag(
            "p",
            "The student's file carries no record of its making (its entry ",
            tag("code", "ckgrow"),
            " is gone, or it was made elsewhere), so neither spec nor lineage can be shown.",
        )
    other = (
        ""
        if evidence.record
        else tag(
            "p",
            f"The record tells of another teacher, whose tensors hash to {known.teacher[:_HASH]}…",
        )
    )
    *before, _ = ancestors = known.as_ancestor()
    return joined(
        other,
        tag("pre", yaml(known.spec)),
        tag("h3", "Lineage"),
        pairs(_generations(ancestors)),
        *(
            folded(f"Spec of generation {number}", tag("pre", yaml(each["spec"])))
            for number, each in enumerate(before, start=1)
        ),
    )


def _generations(ancestors: tuple[Mapping[str, Any], ...]) -> Iterator[tuple[str, Markup]]:
    for number, each in enumerate(ancestors, start=1):
        steps = len(each["spec"].get("steps", ()))
        yield (
            f"generation {number}",
            joined(
                "from a teacher whose tensors hash to ",
                tag("code", f"{str(each['teacher'])[:_HASH]}…"),
                f", by {plural(steps, 'step')}, with ckgrow {each['version']}",
            ),
        )


def yaml(spec: Mapping[str, Any]) -> str:
    """A spec as people write it: the verb first in every step."""
    writer = YAML()
    writer.default_flow_style = None  # what holds only scalars stands on one line
    writer.width = 96
    stream = io.StringIO()
    writer.dump(_ordered(spec), stream)
    return stream.getvalue().rstrip()


def _ordered(spec: Mapping[str, Any]) -> CommentedMap:
    stated = {key: value for key, value in spec.items() if value not in ({}, {"options": {}})}
    known = [key for key in _ORDER if key in stated]
    found = {key: stated[key] for key in (*known, *(key for key in stated if key not in known))}
    return _block({**found, "steps": [_step(each) for each in found.get("steps", ())]})


def _step(step: Mapping[str, Any]) -> CommentedMap:
    return _block({key: step[key] for key in sorted(step, key=lambda key: key not in VERBS)})


def _block(entries: Mapping[str, Any]) -> CommentedMap:
    """A mapping that is written with a line for every entry."""
    lines = CommentedMap(entries)
    lines.fa.set_block_style()
    return lines
