"""What is made of a plan: the student's tensors, as they are called in its file."""

from __future__ import annotations

from collections.abc import Mapping

from ckgrow.checkpoint import Content
from ckgrow.header import Header
from ckgrow.outputs import Output
from ckgrow.planning import Plan
from ckgrow.recipes import Recipe


def made_tensors(plan: Plan, *, quiet: bool = False) -> dict[str, Recipe]:
    """How each is made, without noise where ``quiet``."""
    prefix = plan.teacher.prefix
    return {
        prefix + name: recipe.quiet() if quiet else recipe
        for name, recipe in plan.draft.recipes.items()
    }


def made_ties(plan: Plan) -> tuple[tuple[str, ...], ...]:
    """Those that are one parameter."""
    prefix = plan.teacher.prefix
    return tuple(tuple(prefix + name for name in tie) for tie in plan.draft.current_ties)


def made_content(plan: Plan, output: Output, metadata: Mapping[str, str]) -> Content:
    """What the file holds, with ``metadata``."""
    teacher = plan.teacher
    return Content(
        made_header(made_tensors(plan)),
        metadata,
        plan.graph,
        teacher.prefix,
        made_ties(plan),
        teacher.reader.contents.container,
        output.drop,
        output.shard_size,
    )


def made_header(made: Mapping[str, Recipe]) -> Header:
    """In the order of names, so that the same tensors make the same bytes whoever held them."""
    return Header({name: made[name].spec for name in sorted(made)})
