"""Random numbers of a plan: whatever is drawn for two uses is drawn from two streams."""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from collections.abc import Mapping

import pytest
from method_matrix import Cell, cells, teacher
from student_oracles import grown, random_state
from torch import nn

from ckgrow import spec
from ckgrow.errors import SpecError
from ckgrow.loading import Wish, load
from ckgrow.planning import make_plan
from ckgrow.random import Stream
from ckgrow.recipes import Recipe

LIGHT = tuple(cell for cell in cells() if cell.network not in ("googlenet", "inception_v3"))


def uses(recipes: Mapping[str, Recipe]) -> dict[Stream, list[object]]:
    """Every stream of a plan with the objects that draw from it: a recipe reached twice is one."""
    found: dict[Stream, list[object]] = defaultdict(list)
    seen: set[int] = set()
    waiting: list[object] = list(recipes.values())
    while waiting:
        each = waiting.pop()
        if isinstance(each, tuple):
            waiting += each
        if not dataclasses.is_dataclass(each) or id(each) in seen:
            continue
        seen.add(id(each))
        for part in dataclasses.fields(each):
            value = getattr(each, part.name)
            if isinstance(value, Stream):
                found[value].append(each)
            else:
                waiting.append(value)
    return found


def shared(recipes: Mapping[str, Recipe]) -> list[list[object]]:
    """The uses that draw the same numbers."""
    drawing: dict[bytes, list[object]] = defaultdict(list)
    for stream, objects in uses(recipes).items():
        drawing[stream.uniform(0, 4).tobytes()] += objects
    return [objects for objects in drawing.values() if len(objects) > 1]


def planned(cell: Cell) -> Mapping[str, Recipe]:
    subject, state = teacher(cell.network)
    options = {**subject.options}
    if len(subject.size) > 1:
        options["input"] = list(subject.size)
    read = spec.from_dict({"steps": [cell.step], "teacher": {"options": options}})
    with load(state, Wish(read.teacher.architecture, read.teacher.options)) as loaded:
        return make_plan(loaded, read).draft.recipes


@pytest.mark.parametrize("cell", LIGHT, ids=lambda cell: cell.name)
def test_no_two_uses_share_a_stream(cell):
    try:
        recipes = planned(cell)
    except SpecError:
        return  # there is no plan
    assert shared(recipes) == []


GAUSSIAN = {"noise": {"kind": "gaussian"}}
ZERO_SUM = {"noise": {"kind": "zero-sum"}}


@pytest.mark.parametrize(
    ("steps", "least"),
    [
        # rows and columns of the middle weight are both noisy, the others one of them
        (({"widen": "*", "factor": 2, "method": "envelope", "noise": {"both": True}},), 4),
        (({"widen": "*", "factor": 2, "method": "r2wider", **GAUSSIAN},), 6),
        (({"widen": "*", "factor": 2, "method": "r2wider", **ZERO_SUM},), 6),
        (({"widen": "*", "factor": 2, **GAUSSIAN},), 4),
        (({"widen": "*", "factor": 2, **ZERO_SUM},), 4),
        (({"widen": "*", "by": 2, "method": "random-pad"},) * 3, 12),
        (({"widen": "*", "by": 2, "method": "r2wider"}, {"deepen": "2", "layers": 2}), 4),
        (({"deepen": "2", "layers": 3, "method": "r2deeper"},) * 2, 6),
    ],
)
def test_noise_and_steps_one_after_another(steps, least):
    layers = (nn.Linear(5, 6), nn.ReLU(), nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3))
    state = random_state(nn.Sequential(*layers))
    recipes = grown(state, *steps, options={"activation": "relu"}).plan.draft.recipes
    assert shared(recipes) == []
    assert sum(map(len, uses(recipes).values())) >= least
