"""Runs a network on the user's inputs, and measures what comes into its BatchNorms.

They are measured in order: what stands behind new channels depends on their statistics. Only
BatchNorms that undo themselves change nothing for others, and are all measured in one run.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np

from ckgrow.errors import CheckpointError
from ckgrow.graph import Graph, Node
from ckgrow.header import Header
from ckgrow.names import shown, shown_path
from ckgrow.ops.batch_normalization import EPSILON
from ckgrow.recipes import (
    ROLES,
    Measurement,
    Reading,
    Recipe,
    undone,
)
from ckgrow.registry import runtime
from ckgrow.verdict.running import Side, batch_rows
from ckgrow.verdict.samples import Samples, from_file


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
        require_variance(self.count, value, path)
        variance = self.squares / (self.count - 1)
        if not np.isfinite(variance).all():
            raise CheckpointError(
                f"{shown_path(path)}: {shown(value)} has no finite variance on these inputs"
            )
        return self.mean, variance


def require_variance(count: int, value: str, path: Path) -> None:
    """CheckpointError where ``value`` has too few values per channel to have a variance."""
    if count < 2:
        raise CheckpointError(
            f"{shown_path(path)} holds a single value per channel for {shown(value)}; a variance "
            "needs more samples"
        )


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
