"""How wide the verdict's tolerances are: for ordinary rounding, and for recorded defects.

    python benchmarks/rounding.py

Random teachers of real sizes and sound students of them are judged in float32 and float64. The
first table has the measured yardstick, and the difference, in parts of the bound of ``--quick``,
which allows 4; the second what of float64's tolerance students with recorded defects use, and what
they used when 64 times the sum of the defects was allowed. Results go to
``benchmarks/results/rounding-DATE.md``.
"""

from __future__ import annotations

import datetime
import sys
from collections.abc import Iterator, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests"))

import conftest  # noqa: F401  # declares the operators that torchvision may lack
import numpy as np
import torch
import torchvision
from student_oracles import arrays_of, on_meta, random_state

from ckgrow import spec
from ckgrow.loading import Wish, load
from ckgrow.memory import MemoryReader
from ckgrow.planning import make_plan
from ckgrow.verdict.judgement import Judgement, judge
from ckgrow.verdict.running import Side
from ckgrow.verdict.samples import seeded_samples
from ckgrow.verdict.tolerance import DEFECTS, FLOAT64_RELATIVE, rounding_bound

State = Mapping[str, torch.Tensor]
Step = Mapping[str, Any]
Made = tuple[Side, Mapping[str, float]]
"""A student, and its recorded defects."""
SAMPLES = 6
WIDENING: Mapping[str, Step] = {
    "net2wider": {},
    "r2wider": {"method": "r2wider"},
    "r2wider, scale 10": {"method": "r2wider", "scale": 10},
    "symmetric": {"method": "symmetric"},
}
SMALL = {"options": {"input": [3, 64, 64]}}
RELU = {"architecture": "mlp", "options": {"activation": "relu"}}
HALVES = (torch.bfloat16, torch.float16)


def main() -> None:
    """Measures, prints and records."""
    said = ["| network | method | layers | yardstick | difference |", "|---|---|---|---|---|"]
    for name, state, layers, section in ordinary():
        for method, options in WIDENING.items():
            student, found = judged(state, {"widen": layers, "factor": 2, **options}, section)
            said.append(f"| {name} | {method} | {parts_of_bound(student, found)} |")
            print(said[-1], flush=True)
    heads = "| network | step | dtype | of the tolerance | of 64 x the sum |"
    said += ["", heads, "|---|---|---|---|---|"]
    for name, state, dtype, step, section in defective():
        cast = {
            n: each.to(dtype) if each.is_floating_point() else each for n, each in state.items()
        }
        student, found = judged(cast, step, section)
        how = f"{step['layers']} x {step['method']}"
        kind = str(dtype).removeprefix("torch.")
        said.append(f"| {name} | {how} | {kind} | {parts_of_tolerance(student, found)} |")
        print(said[-1], flush=True)
    results = ROOT / "benchmarks/results" / f"rounding-{datetime.date.today()}.md"
    results.write_text("\n".join(said) + "\n")


def ordinary() -> Iterator[tuple[str, State, str, dict[str, Any]]]:
    """(name, teacher, what is widened, the spec's section of the teacher)."""
    models = torchvision.models
    for name in ("resnet18", "resnet50", "resnet152"):
        yield name, random_state(on_meta(getattr(models, name))), "layer*.*.conv1", SMALL
    yield "vgg16_bn", random_state(on_meta(models.vgg16_bn)), "features.*", SMALL
    googlenet = random_state(on_meta(models.googlenet, aux_logits=True, init_weights=False))
    larger = {"options": {"input": [3, 96, 96]}}
    yield "googlenet", googlenet, "inception*.branch*.0.conv", larger
    for width, depth in ((64, 3), (1000, 3), (64, 20)):
        yield f"mlp {depth} x {width}", mlp(20, *[width] * depth, 10), "*", RELU


def defective() -> Iterator[tuple[str, State, torch.dtype, Step, dict[str, Any]]]:
    """(name, teacher, dtype, what is inserted, the spec's section of the teacher)."""
    vgg = random_state(on_meta(torchvision.models.vgg11_bn), shrink=4)
    resnet = random_state(on_meta(torchvision.models.resnet18), shrink=4)
    for count in (1, 16):
        net2deeper = {"layers": count, "method": "net2deeper"}
        netmorph = {"layers": count, "method": "netmorph"}
        for dtype in (torch.float32, *HALVES):
            yield "vgg11_bn", vgg, dtype, {"deepen": "features.11", **net2deeper}, SMALL
        yield "resnet18", resnet, torch.float32, {"deepen": "layer1.0.conv1", **netmorph}, SMALL
        for width in (8, 64, 256):
            chain = mlp(20, width, width, 10)
            step = {"deepen": "2", **netmorph}
            yield f"mlp of {width}", chain, torch.float32, step, RELU
            step = {**step, "activation": "p-activation"}
            yield f"mlp of {width}, p-activation", chain, torch.float32, step, RELU


def judged(state: State, step: Step, section: dict[str, Any]) -> tuple[Made, Judgement]:
    """A student, and what the verdict says of it."""
    read = spec.from_dict({"teacher": section, "steps": [step]})
    with load(state, Wish(read.teacher.architecture, read.teacher.options)) as loaded:
        plan = make_plan(loaded, read)
        teacher = Side("teacher", loaded.network.graph, loaded.header, loaded.tensor)
        made = arrays_of(plan.draft.recipes, state)
    student = Side("student", plan.graph, MemoryReader(made).header, made.__getitem__)
    samples = seeded_samples(teacher.graph, SAMPLES, 0)
    defects = plan.draft.defects
    found = judge(teacher, student, samples=samples, quick=False, defects=defects)
    if not found.preserved:
        print(f"not preserved: {found.reason}")
    return (student, defects), found


def parts_of_bound(student: Made, found: Judgement) -> str:
    """Depth, yardstick and difference, the worst of all outputs."""
    side, _ = student
    bound = rounding_bound(side.graph, side.header)
    units = {name: bound * scale for name, scale in scales(found).items()}
    yardstick = max((each.yardstick or 0.0) / units[each.name] for each in found.outputs)
    difference = max((each.max_abs or 0.0) / units[each.name] for each in found.outputs)
    return f"{(bound / 2.0**-21) ** 2:.0f} | {yardstick:.2f} | {difference:.2f}"


def parts_of_tolerance(student: Made, found: Judgement) -> str:
    """What of the tolerance is used, and would be of the linear one."""
    _, defects = student
    linear = FLOAT64_RELATIVE + DEFECTS * sum(defects.values())
    used, before = 0.0, 0.0
    for each in found.outputs:
        difference = each.float64_max_abs or 0.0
        used = max(used, difference / (each.float64_tolerance or np.inf))
        before = max(before, difference / (linear * scales(found)[each.name]))
    return f"{used:.3f} | {before:.5f}"


def scales(found: Judgement) -> dict[str, float]:
    """The largest absolute value of each of the teacher's outputs."""
    return {name: float(np.abs(pair.teacher).max()) for name, pair in found.double_pairs.items()}


def mlp(*widths: int) -> dict[str, torch.Tensor]:
    """Random weights of a chain, as torch's Sequential names them."""
    generator = torch.Generator().manual_seed(0)
    state = {}
    for index, (inner, outer) in enumerate(pairwise(widths)):
        matrix = torch.randn(outer, inner, generator=generator)
        state[f"{2 * index}.weight"] = matrix * (2 / inner) ** 0.5
        state[f"{2 * index}.bias"] = torch.randn(outer, generator=generator) * 0.1
    return state


if __name__ == "__main__":
    main()
