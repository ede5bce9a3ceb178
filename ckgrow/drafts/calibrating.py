r"""Statistics of new BatchNorm channels, measured on inputs that the user gives.

The network as it is after a step is run on them up to every BatchNorm with new channels, and what
comes in there is measured: mean and variance per channel, over the batch and all positions.

- New channels beside old ones, and those of new blocks, get them as mean and var; equal channels
  (the two of a pair) get the same, and channels that are zero for every input get none.
- A BatchNorm that undoes itself (net2deeper) gets them as mean and var, beta = mean and
  gamma = sqrt(var + eps): in eval mode it is still the identity, and in train mode, where the
  batch's own statistics take over, it now is so in expectation.

The variance is the unbiased one, sum (x - mean)^2 / (n - 1), which is what torch's running_var
tends to. In train mode torch normalises with the biased one of the batch, which is smaller by
1 - 1 / n for n values per channel.

BatchNorms are measured in order: what stands behind new channels depends on their statistics. Only
those that undo themselves change nothing for the others, and are all measured in one run.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
from blake3 import blake3

from ckgrow.drafts.draft import Draft
from ckgrow.errors import CheckpointError, FileError, SpecError
from ckgrow.graph import Graph, Node
from ckgrow.header import Header
from ckgrow.maps import ZERO
from ckgrow.names import shown, shown_path
from ckgrow.ops.batch_normalization import EPSILON
from ckgrow.recipes import (
    ROLES,
    Calibrated,
    Measurement,
    Paired,
    Placed,
    Reading,
    Recipe,
    Undoing,
    undone,
)
from ckgrow.registry import runtime
from ckgrow.spec import DeepenStep, Step, WidenStep
from ckgrow.verdict.running import Side, batch_rows
from ckgrow.verdict.samples import Samples, from_file

FEW_VALUES = 32
"""Values per channel below which a variance is hardly known: its error is a quarter of it."""


def calibrated(before: Draft, after: Draft, step: WidenStep | DeepenStep) -> Draft:
    """``after``, with measured statistics wherever ``step`` made new BatchNorm channels.

    Nothing is read here. Raises SpecError where there are none, FileError where there is no file.
    """
    if step.calibrate is None:
        return after
    path = step.folder / step.calibrate
    if not path.is_file():
        raise FileError(
            f"{step.where}: calibrate: {shown_path(path)} is no file; a path that is not absolute "
            "starts at the spec's own folder"
        )
    known = set(before.recipes.values())
    norms = [
        norm
        for node in after.graph.nodes
        if node.op == "BatchNormalization" and (norm := _norm(node, after, known)) is not None
    ]
    if not norms:
        raise SpecError(
            f"{step.where}: calibrate has nothing to measure: this step makes no new BatchNorm "
            "channels; leave it out"
        )
    calibration = Calibration(path, after.graph, after.recipes, tuple(norms))
    recipes = dict(after.recipes)
    for norm in norms:
        for key in norm.keys:
            recipes[key] = Calibrated(recipes[key], key, calibration, shown_path(path))
    return after.with_changes(recipes=recipes)


def hash_calibrations(steps: Iterable[Step]) -> dict[str, str]:
    """BLAKE3 of every file that ``steps`` measure on, by its path as the spec writes it."""
    found: dict[str, str] = {}
    for step in steps:
        if isinstance(step, WidenStep | DeepenStep) and step.calibrate is not None:
            path = step.folder / step.calibrate
            try:
                found[step.calibrate] = blake3(path.read_bytes()).hexdigest()
            except OSError as failure:
                raise FileError(
                    f"{shown_path(path)} cannot be read: {failure.strerror or failure}"
                ) from failure
    return found


@dataclass(frozen=True, eq=False)
class Norm:
    """A BatchNorm with new channels: those ``chosen``, each like its ``twin`` (mostly itself).

    It ``undoes`` itself where it is the identity as a whole.
    """

    node: Node
    chosen: np.ndarray
    twins: np.ndarray
    undoes: bool

    @property
    def keys(self) -> tuple[str, ...]:
        """The tensors that are measured: mean and var, or all four."""
        return self.node.inputs[1:5] if self.undoes else self.node.inputs[3:5]


def _norm(node: Node, draft: Draft, known: set[Recipe]) -> Norm | None:
    """What is new of a BatchNorm, None where nothing is."""
    gamma, _, mean, _ = (draft.recipes[key] for key in node.inputs[1:5])
    chosen = _new_entries(mean, known)
    sources = np.arange(len(chosen))
    if isinstance(mean, Placed):
        sources = mean.runs[0].sources
    maker = draft.graph.producers().get(node.inputs[0])
    if maker is not None and maker.name in draft.origins:
        sources = draft.origins[maker.name].map.sources
        chosen = chosen & (sources != ZERO)
    if not chosen.any():
        return None
    _, first, place = np.unique(sources, return_index=True, return_inverse=True)
    return Norm(node, chosen, first[place], isinstance(gamma, Undoing))


def _new_entries(recipe: Recipe, known: set[Recipe]) -> np.ndarray:
    """Which entries of a per-channel tensor come from none of the recipes ``known``."""
    if recipe in known:
        return np.zeros(recipe.spec.shape[0], bool)
    source = getattr(recipe, "source", None)
    if isinstance(recipe, Placed):
        (run,) = recipe.runs
        old = _new_entries(recipe.source, known)
        return np.where(run.sources >= 0, old[run.sources], run.fresh_units >= 0)
    if isinstance(source, Recipe) and not isinstance(recipe, Paired):
        return _new_entries(source, known)
    return np.ones(recipe.spec.shape[0], bool)


@dataclass(frozen=True, eq=False)
class Calibration(Measurement[Mapping[str, np.ndarray]]):
    """Measures ``norms`` of a network on the inputs in ``path``."""

    path: Path
    graph: Graph
    recipes: Mapping[str, Recipe]
    norms: tuple[Norm, ...]
    lasting: ClassVar[bool] = True

    def take(self, reading: Reading) -> Mapping[str, np.ndarray]:
        """Whole tensors by key, as they are stored.

        Raises what :func:`ckgrow.verdict.samples.from_file` raises.
        """
        samples = from_file(self.path, self.graph)
        found: dict[str, np.ndarray] = {}
        above = _above(self.graph)
        waiting = list(self.norms)
        while waiting:
            changing = {norm.node.output for norm in waiting if not norm.undoes}
            ready = [norm for norm in waiting if not above[norm.node.inputs[0]] & changing]
            values = tuple(dict.fromkeys(norm.node.inputs[0] for norm in ready))
            measured = self._moments(values, above, samples, found, reading)
            for norm in ready:
                found |= self._tensors(norm, *measured[norm.node.inputs[0]], reading)
            waiting = [norm for norm in waiting if norm not in ready]
        return found

    def _tensors(
        self, norm: Norm, mean: np.ndarray, variance: np.ndarray, reading: Reading
    ) -> dict[str, np.ndarray]:
        keys = norm.node.inputs[1:5]
        if norm.undoes:
            epsilon = norm.node.get("epsilon", EPSILON)
            dtype = self.recipes[keys[0]].spec.dtype
            made = undone(mean, variance, dtype, epsilon)
            return dict(zip(keys, (made[role] for role in ROLES), strict=True))
        chosen = norm.chosen & (variance[norm.twins] > 0.0)  # a constant channel is left alone
        tensors: dict[str, np.ndarray] = {}
        for key, values in zip(keys[2:], (mean, variance), strict=True):
            tensor = _whole(self.recipes[key], reading).copy()
            tensor[chosen] = values[norm.twins][chosen].astype(tensor.dtype)
            tensors[key] = tensor
        return tensors

    def _moments(
        self,
        values: tuple[str, ...],
        above: Mapping[str, set[str]],
        samples: Samples,
        found: Mapping[str, np.ndarray],
        reading: Reading,
    ) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        """Mean and unbiased variance of every channel of ``values``."""
        needed = set().union(*(above[value] for value in values))
        nodes = tuple(node for node in self.graph.nodes if needed.intersection(node.outputs))
        read = {name for node in nodes for name in node.inputs}
        constants = {name: each for name, each in self.graph.constants.items() if name in read}
        graph = Graph(self.graph.inputs, values, nodes, constants)
        header = Header({name: self.recipes[name].spec for name in graph.parameters()})

        def tensor(name: str) -> np.ndarray:
            return found[name] if name in found else _whole(self.recipes[name], reading)

        session = runtime("onnxruntime").Session(graph, header, tensor)
        step = batch_rows([Side("", graph, header, tensor)])
        moments = {value: _Moments() for value in values}
        for start in range(0, samples.count, step):
            outputs = session.run(samples.rows(start, start + step))
            for value, each in moments.items():
                each.add(outputs[value])
        return {value: each.result(value, self.path) for value, each in moments.items()}


class _Moments:
    """Mean and squares of every channel, batch by batch (Chan, Golub, LeVeque, 1979)."""

    def __init__(self) -> None:
        self.count = 0
        self.mean: np.ndarray = np.zeros(1)
        self.squares: np.ndarray = np.zeros(1)

    def add(self, batch: np.ndarray) -> None:
        """A batch "sample channel *position"."""
        values = np.moveaxis(batch, 1, 0).reshape(batch.shape[1], -1).astype(np.float64)
        mean = values.mean(axis=1)
        squares = np.square(values - mean[:, None]).sum(axis=1)
        step, new = mean - self.mean, values.shape[1]
        total = self.count + new
        self.mean = self.mean + step * new / total
        self.squares = self.squares + squares + step * step * self.count * new / total
        self.count = total

    def result(self, value: str, path: Path) -> tuple[np.ndarray, np.ndarray]:
        """Mean and unbiased variance; CheckpointError where there are none."""
        if self.count < 2:
            raise CheckpointError(
                f"{shown_path(path)} holds a single value per channel for {shown(value)}; a "
                "variance needs more samples"
            )
        variance = self.squares / (self.count - 1)
        if not np.isfinite(variance).all():
            raise CheckpointError(
                f"{shown_path(path)}: {shown(value)} has no finite variance on these inputs"
            )
        if self.count < FEW_VALUES:
            warnings.warn(
                f"{shown_path(path)} holds only {self.count} values per channel for "
                f"{shown(value)}; statistics of a BatchNorm want {FEW_VALUES} at least",
                RuntimeWarning,
                stacklevel=2,
            )
        return self.mean, variance


def _above(graph: Graph) -> dict[str, set[str]]:
    """For each value, itself and the values it is computed from."""
    made = {value for node in graph.nodes for value in node.outputs}
    above: dict[str, set[str]] = {name: set() for name in graph.inputs}
    for node in graph.nodes:
        inputs = [name for name in node.inputs if name in made]
        found = set().union(*(above[name] for name in inputs))
        for value in node.outputs:
            above[value] = found | {value}
    return above


def _whole(recipe: Recipe, reading: Reading) -> np.ndarray:
    """A whole tensor in its stored dtype and shape."""
    shape = recipe.spec.shape
    rows = recipe.rows(np.arange(shape[0] if shape else 1), reading)
    return rows.reshape(shape)
