"""What is made of a plan: the student's tensors, as they are called in its file."""

from __future__ import annotations

from collections.abc import Mapping

from ckgrow.checkpoint import Content
from ckgrow.errors import SpecError
from ckgrow.header import Header
from ckgrow.loading import Wish, twin
from ckgrow.names import shown
from ckgrow.outputs import Output
from ckgrow.planning import Plan, make_plan
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


def plan_twins(plan: Plan, output: Output) -> dict[str, Plan]:
    """The other state dicts of the teacher's container, each to be grown as the weights are.

    Raises SpecError for one that would not come out in the same shapes.
    """
    teacher = plan.teacher
    stated = Wish(teacher.architecture.name, teacher.network.options)
    names = output.twins(teacher.reader.contents)
    made = {name: make_plan(twin(teacher, name, stated), plan.spec) for name in names}
    for name, other in made.items():
        if _shapes(other) != _shapes(plan):  # where tensors are tied in one of them only
            raise SpecError(
                f"{teacher.label}: its {shown(name)} would not grow like its weights, since other "
                f"tensors are tied in it; leave it out with --drop {shown(name)}"
            )
    return made


def _shapes(plan: Plan) -> dict[str, tuple[int, ...]]:
    return {name: each.shape for name, each in plan.header.items()}
