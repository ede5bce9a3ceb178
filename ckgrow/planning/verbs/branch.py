"""``branch``: a path beside a layer or block, or one more branch of a concatenation."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from ckgrow.drafts.concatenations import junction
from ckgrow.drafts.draft import Draft
from ckgrow.drafts.parallel import path_around_block, path_beside_layer
from ckgrow.errors import SpecError
from ckgrow.loading import Loaded
from ckgrow.methods import block_method, widen_method
from ckgrow.methods.method import weakest
from ckgrow.names import Pattern, guess, quoted
from ckgrow.planning.branching import add_path, append_branch
from ckgrow.planning.extension import Extended
from ckgrow.planning.report import StepReport
from ckgrow.planning.targets import MOST_CHANNELS, match_names
from ckgrow.planning.verbs.facts import refuse_defaults
from ckgrow.random import Draw
from ckgrow.spec import BranchStep

SUMMED: Mapping[str, str] = {"netmorph": "zero-init", "r2deeper": "r2deeper"}
"""How a path starts that is added: the method that fills a residual branch likewise."""

APPENDED = ("netmorph", "r2wider")
"""How readers ignore a branch that is appended: methods to widen by whose new units are fresh."""


def branch_step(
    draft: Draft, step: BranchStep, draw: Draw, teacher: Loaded
) -> tuple[Draft, StepReport]:
    """A path for everything that the step names, in the order of the network."""
    _check_method(step)
    if step.width is not None and step.width > MOST_CHANNELS:
        raise SpecError(
            f"{step.where}: a path of {step.width} channels; ckgrow makes {MOST_CHANNELS} at most"
        )
    refuse_defaults((), teacher, "branch", step.where)
    branch = _summed if step.at == "sum" else _appended
    names, made = branch(draft, step, draw, teacher)
    report = StepReport(
        step.where,
        f"branch of {', '.join(step.branch)} by {step.method}",
        step.method,
        weakest(each.preserves for each in made),
        names,
        added=tuple(path for each in made for path in each.added),
        warnings=tuple(text for each in made for text in each.warnings),
    )
    return made[-1].draft, report


def _check_method(step: BranchStep) -> None:
    known = tuple(SUMMED) if step.at == "sum" else APPENDED
    if step.method in known:
        return
    why = (
        "a path that is added starts at zero"
        if step.at == "sum"
        else "a branch that is appended has no units of the teacher's, and its readers ignore it"
    )
    raise SpecError(
        f"{step.where}: no method {quoted(step.method)} to branch by with 'at: {step.at}': {why}, "
        f"by {' or '.join(known)}{guess(step.method, known)}"
    )


def _summed(
    draft: Draft, step: BranchStep, draw: Draw, teacher: Loaded
) -> tuple[tuple[str, ...], list[Extended]]:
    stages = teacher.architecture.stages(draft.graph)
    blocks = {block for stage in stages for block in stage.blocks}
    names = _blocks_or_layers(step, blocks, draft)
    method = block_method(SUMMED[step.method], step.where)
    made: list[Extended] = []
    for number, name in enumerate(names):
        beside = path_around_block if name in blocks else path_beside_layer
        path = beside(draft, name, step.width, method.multiple, step.where)
        made.append(add_path(draft, path, method, draw.part(number), step))
        draft = made[-1].draft
    return names, made


def _blocks_or_layers(step: BranchStep, blocks: set[str], draft: Draft) -> tuple[str, ...]:
    """What each pattern means: blocks where it matches any, layers otherwise."""
    layers = tuple(draft.grouping.layers)
    named: list[str] = []
    for text in step.branch:
        pattern = Pattern(text)
        found = [name for name in _modules(layers) if name in blocks and pattern.matches(name)]
        named += found or match_names((text,), layers, step.where, "layer or block")
    return tuple(dict.fromkeys(named))


def _appended(
    draft: Draft, step: BranchStep, draw: Draw, teacher: Loaded
) -> tuple[tuple[str, ...], list[Extended]]:
    """Each pattern means one new branch for every concatenation that it leads to."""
    method = widen_method(step.method, step.where)
    layers = tuple(draft.grouping.layers)
    modules = tuple(_modules(layers))
    names: dict[str, None] = {}
    for text in step.branch:
        leads_to: dict[str, str] = {}
        obstacles: list[SpecError] = []
        for name in match_names((text,), modules, step.where, "layer, branch or block"):
            try:
                leads_to.setdefault(junction(draft, name, step.where).concat.name, name)
            except SpecError as obstacle:  # a pattern may match much that is in no branch
                obstacles.append(obstacle)
        if not leads_to:
            raise obstacles[0]
        names |= dict.fromkeys(leads_to.values())
    made: list[Extended] = []
    for number, name in enumerate(names):
        made.append(append_branch(draft, name, method, draw.part(number), step))
        draft = made[-1].draft
    return tuple(names), made


def _modules(layers: Iterable[str]) -> list[str]:
    """Layers and the modules that they are inside of, each module before what it holds."""
    found: dict[str, None] = {}
    for layer in layers:
        parts = layer.split(".")
        found |= dict.fromkeys(".".join(parts[:end]) for end in range(1, len(parts) + 1))
    return list(found)
