"""What the tests of students share: random teachers, students made in memory, torch's own forward.

A module may stand on the meta device: ``outputs_of`` gives it all its tensors, of any width.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.func import functional_call

from ckgrow import spec
from ckgrow.architecture import Explanation, Network, Stage, Targeting
from ckgrow.execute import execute
from ckgrow.graph import Graph
from ckgrow.header import Header, numpy_dtype
from ckgrow.loading import Loaded, Wish, load
from ckgrow.memory import MemoryReader
from ckgrow.planning import Plan, make_plan
from ckgrow.recipes import Recipe
from ckgrow.registry import runtime

State = Mapping[str, torch.Tensor]


@dataclass(frozen=True)
class Student:
    plan: Plan
    tensors: dict[str, torch.Tensor]


class MemoryWriter:
    """A checkpoint that is written into arrays."""

    def __init__(self, header: Header) -> None:
        self.arrays = {
            name: np.empty(each.shape, numpy_dtype(each.dtype)) for name, each in header.items()
        }

    def write(self, name: str, start: int, rows: np.ndarray) -> None:
        np.atleast_1d(self.arrays[name])[start : start + len(rows)] = rows

    def finish(self, replacements: Mapping[str, str]) -> None:
        """Nothing waits to be flushed."""

    def abandon(self) -> None:
        """Nothing waits to be removed."""


def arrays_of(
    recipes: Mapping[str, Recipe], teacher: Mapping[str, Any], workers: int = 2
) -> dict[str, np.ndarray]:
    """What ``recipes`` make of a teacher in memory."""
    writer = MemoryWriter(Header({name: recipe.spec for name, recipe in recipes.items()}))
    execute(recipes, MemoryReader(teacher).read, writer, workers)
    return writer.arrays


def grown(state: State, *steps: Mapping[str, Any], seed: int = 0, **teacher: Any) -> Student:
    """The student of a teacher in memory; ``teacher`` is that section of a spec."""
    read = spec.from_dict({"seed": seed, "teacher": teacher, "steps": list(steps)})
    with load(state, Wish(read.teacher.architecture, read.teacher.options)) as loaded:
        plan = make_plan(loaded, read)
        bare = {name.removeprefix(loaded.prefix): each for name, each in state.items()}
        made = arrays_of(plan.draft.recipes, bare)
        return Student(plan, {loaded.prefix + k: torch.from_numpy(v) for k, v in made.items()})


def random_state(module: torch.nn.Module, seed: int = 0, shrink: int = 1) -> dict[str, Any]:
    """Tensors for a module on the meta device: BatchNorm's statistics are not the initial ones.

    ``shrink`` divides every width that it divides, so that a large network becomes a small one
    of the same wiring (kernels keep their size).
    """
    generator = torch.Generator().manual_seed(seed)
    return {
        name: _random(name, (*_shrunk(each.shape[:2], shrink), *each.shape[2:]), generator)
        if each.is_floating_point()
        else torch.tensor(7)  # batches that BatchNorm has seen
        for name, each in module.state_dict().items()
    }


def _shrunk(shape: Sequence[int], shrink: int) -> tuple[int, ...]:
    return tuple(size // shrink if size % shrink == 0 else size for size in shape)


def _random(name: str, shape: tuple[int, ...], generator: torch.Generator) -> torch.Tensor:
    if len(shape) > 1:
        return torch.randn(shape, generator=generator) * math.sqrt(2 / math.prod(shape[1:]))
    if name.endswith(("bias", "running_mean")):
        return torch.randn(shape, generator=generator) * 0.2
    return torch.rand(shape, generator=generator) + 0.5  # gamma and variance


def images(count: int, *size: int, seed: int = 1) -> torch.Tensor:
    return torch.randn((count, *size), generator=torch.Generator().manual_seed(seed))


def outputs_of(
    module: torch.nn.Module, state: State, x: torch.Tensor, dtype: torch.dtype = torch.float64
) -> tuple[torch.Tensor, ...]:
    """The module's own forward on exactly these tensors, in ``dtype``."""
    tensors = {n: each.to(dtype) if each.is_floating_point() else each for n, each in state.items()}
    with torch.no_grad():
        made = functional_call(module, tensors, (x.to(dtype),), strict=True)
    return tuple(made) if isinstance(made, tuple) else (made,)


def deviation(expected: Sequence[torch.Tensor], found: Sequence[torch.Tensor]) -> float:
    """The largest difference of any output, in units of that output's scale."""
    worst = 0.0
    for before, after in zip(expected, found, strict=True):
        scale = before.abs().max()
        assert torch.isfinite(scale)
        assert (before - before[0]).abs().max() > 1e-3 * scale, "the outputs do not vary"
        assert before.shape == after.shape
        worst = max(worst, float((after - before).abs().max() / scale))
    return worst


def on_meta(constructor: Any, *arguments: Any, **options: Any) -> torch.nn.Module:
    """A module without memory of its own, in eval mode."""
    with torch.device("meta"):
        module: torch.nn.Module = constructor(*arguments, **options)
    return module.eval()


class Unnamed:
    """An architecture that knows nothing but the graph it was given."""

    name = "unnamed"
    summary = "a graph of a test"
    options = ()
    targets: Mapping[str, Targeting] = {}

    def explain(self, header: Header) -> Explanation:
        return Explanation(frozenset(), tuple(header))

    def build(self, header: Header, options: Mapping[str, Any]) -> Network:
        raise AssertionError("nothing was explained")

    def stages(self, graph: Graph) -> tuple[Stage, ...]:
        return ()

    def stock(self, header: Header) -> str | None:
        return None


def grown_graph(
    graph: Graph, tensors: Mapping[str, np.ndarray], *steps: Mapping[str, Any], seed: int = 0
) -> tuple[Plan, dict[str, np.ndarray]]:
    """The student of a bare graph."""
    reader = MemoryReader(tensors)
    teacher = Loaded("test", None, reader, "", reader.header, Unnamed(), Network(graph), None)
    plan = make_plan(teacher, spec.from_dict({"seed": seed, "steps": list(steps)}))
    return plan, arrays_of(plan.draft.recipes, tensors)


def random_arrays(header: Header, seed: int = 0) -> dict[str, np.ndarray]:
    """Arrays of a header; what is called ``running_var`` is positive."""
    generator = np.random.default_rng(seed)
    made: dict[str, np.ndarray] = {}
    for name, each in header.items():
        scale = 1 / math.sqrt(max(math.prod(each.shape[1:]), 1))
        array = generator.standard_normal(each.shape) * scale
        array = np.abs(array) + 0.5 if name.endswith("running_var") else array
        made[name] = array.astype(numpy_dtype(each.dtype))
        made[name].flags.writeable = False  # nothing may write into a teacher
    return made


def run(
    name: str, graph: Graph, tensors: Mapping[str, np.ndarray], x: np.ndarray
) -> list[np.ndarray]:
    """The outputs of a graph in the runtime called ``name``."""
    session = runtime(name).Session(graph, MemoryReader(tensors).header, tensors.__getitem__)
    made = session.run(dict.fromkeys(graph.inputs, x))
    return [made[output] for output in graph.outputs]


def assert_same_function(
    graph: Graph,
    tensors: Mapping[str, np.ndarray],
    plan: Plan,
    student: Mapping[str, np.ndarray],
    bound: float = 1e-12,
) -> None:
    """In float64 up to ``bound`` of the scale, in ONNX Runtime up to rounding."""
    (shape,) = graph.inputs.values()
    x = np.random.default_rng(5).standard_normal((3, *shape[1:])).astype(np.float32)
    for name, limit in (("torch_float64", bound), ("onnxruntime", 2e-4)):
        before = run(name, graph, tensors, x)
        after = run(name, plan.graph, student, x)
        expected, found = (list(map(torch.from_numpy, each)) for each in (before, after))
        assert deviation(expected, found) <= limit
