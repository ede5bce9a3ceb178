"""``deepen``: new layers behind a layer, or new blocks in a stage."""

from __future__ import annotations

from collections.abc import Mapping

from ckgrow.architecture import Stage
from ckgrow.drafts.calibrating import calibrated
from ckgrow.drafts.draft import Draft
from ckgrow.errors import SpecError
from ckgrow.loading import Loaded
from ckgrow.methods import block_method, layer_method
from ckgrow.methods.method import BlockMethod, Preserves, weakest
from ckgrow.names import Pattern
from ckgrow.planning.deepening import deepen_layer, deepen_layer_by_block, deepen_stage
from ckgrow.planning.report import StepReport
from ckgrow.planning.targets import match_names
from ckgrow.planning.verbs.facts import refuse_defaults
from ckgrow.planning.verbs.options import refuse_unread
from ckgrow.random import Draw
from ckgrow.spec import DeepenStep

COMMON = ("deepen", "layers", "blocks", "at", "after", "method")
"""Keys that every method reads."""


def deepen_step(
    draft: Draft, step: DeepenStep, draw: Draw, teacher: Loaded
) -> tuple[Draft, StepReport]:
    """Every layer and stage that the step names, in the order of the network."""
    stages = {stage.name: stage for stage in teacher.architecture.stages(draft.graph)}
    layers = draft.grouping.layers
    wanted = _meant(step, stages, tuple(layers))
    names = match_names(step.deepen, wanted, step.where, "layer or stage")
    method_name = step.method or ("zero-init" if names[0] in stages else "net2deeper")
    waiting = list(names)
    before = draft
    added: list[str] = []
    warnings: list[str] = []
    preserves: list[Preserves] = []
    defect = 0.0
    for part in map(draw.part, range(len(names))):
        name = waiting.pop(0)
        if name in stages:
            block = block_method(method_name, step.where)
            refuse_unread(step, COMMON, block)
            refuse_defaults(block.rests_on, teacher, block.name, step.where)
            done = deepen_stage(draft, stages[name], block, part, step)
        else:
            method = layer_method(method_name, step.where)
            refuse_unread(step, COMMON, method)
            if isinstance(method, BlockMethod):  # exact whatever the activation is
                refuse_defaults((), teacher, method.name, step.where)
                done = deepen_layer_by_block(draft, name, method, part, step)
            else:
                refuse_defaults(method.rests_on, teacher, method.name, step.where)
                done = deepen_layer(draft, name, method, part, step)
        draft = done.draft
        waiting = [done.moved(each) for each in waiting]
        added = [*map(done.moved, added), *done.added]
        preserves.append(done.preserves)
        defect += done.defect
        warnings.extend(done.warnings)
    measured, said = calibrated(before, draft.with_changes(), step, teacher.network.assumptions)
    report = StepReport(
        step.where,
        f"deepen {', '.join(step.deepen)} by {method_name}",
        method_name,
        weakest(preserves),
        tuple(names),
        added=tuple(added),
        defect=defect,
        warnings=(*warnings, *said),
    )
    return measured, report


def _meant(
    step: DeepenStep, stages: Mapping[str, Stage], layers: tuple[str, ...]
) -> tuple[str, ...]:
    """Stages where a pattern matches one or blocks are asked for, layers otherwise."""
    if step.blocks is not None or step.after is not None:
        if not stages:
            raise SpecError(
                f"{step.where}: this network has no stages; name a layer and say 'layers'"
            )
        for text in step.deepen:
            if text in layers:
                raise SpecError(
                    f"{step.where}: {text} is a layer, and "
                    f"{'blocks' if step.blocks is not None else 'after'!r} is for stages "
                    f"({', '.join(stages)}); say 'layers'"
                )
        return tuple(stages)
    patterns = [Pattern(text) for text in step.deepen]
    matches = [name for name in stages for pattern in patterns if pattern.matches(name)]
    if step.layers is not None:
        if matches and any(pattern.is_literal for pattern in patterns):
            raise SpecError(f"{step.where}: {matches[0]} is a stage; say 'blocks', not 'layers'")
        return layers
    return tuple(stages) if matches else (*stages, *layers)
