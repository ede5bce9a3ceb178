"""The units of a group, each with everything that belongs to it: [W_in | b | W_out] as one row.

W_in are the weights that make a unit, b its entries of biases and BatchNorms, W_out the weights
that read it, all over the whole network: on a residual stream every layer that adds to it or reads
it. Two units with equal rows get equal gradients for ever.

The *rank* of the gradients is how many units move independently. It is taken of the matrix of
inner products of the rows, each scaled to length 1; singular values of the rows that are below a
small part of the largest count as zero.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import torch

from ckgrow.axes import Dim
from ckgrow.coupling import Use
from ckgrow.graph import Graph
from ckgrow.groups import Group, Grouping
from ckgrow.learning.network import Tensors
from ckgrow.ops import rule

LIKE = 1e-6
"""Relative difference below which rows are equal, and singular values zero: copies whose stored
float32 weights are rounded apart differ by less."""
LIKE_SINGLE = 1e-4
"""The same for singular values of gradients that were computed in float32."""
LARGEST = 2048
"""Units whose inner products are still computed."""


@dataclass(frozen=True)
class Part:
    """Where units stand in a tensor: ``inner`` entries each, along ``dim`` from ``start`` on.

    ``rows`` cuts another dimension (dim, start, length): the rows of one convolution group.
    """

    tensor: str
    dim: int
    start: int
    count: int
    inner: int
    rows: tuple[int, int, int] | None = None

    def rows_of(self, tensor: torch.Tensor) -> torch.Tensor:
        """What belongs to each unit; shape (count, entries)."""
        if self.rows is not None:
            tensor = tensor.narrow(*self.rows)
        taken = tensor.narrow(self.dim, self.start, self.count * self.inner)
        return taken.movedim(self.dim, 0).reshape(self.count, -1)


@dataclass(frozen=True)
class Run:
    """The units of one run of a group (of one convolution group, where there are several)."""

    count: int
    parts: tuple[Part, ...]

    def rows(self, tensors: Mapping[str, torch.Tensor]) -> Iterator[torch.Tensor]:
        """The rows of all units, tensor by tensor; constants and statistics are not trained."""
        for part in self.parts:
            if part.tensor in tensors:
                yield part.rows_of(tensors[part.tensor].detach())

    def rank(self, gradients: Tensors) -> int:
        """How many rows are independent."""
        products = torch.zeros((self.count, self.count), dtype=torch.float64)
        like = LIKE
        for found in self.rows(gradients):
            like = LIKE_SINGLE if found.dtype == torch.float32 else like
            rows = found.double()
            products += rows @ rows.T
        lengths = products.diagonal().sqrt()
        factors = torch.where(lengths > 0, 1 / lengths, 0.0)
        values = torch.linalg.eigvalsh(products * factors[:, None] * factors)
        # products square what is to be told apart: 1e-12 is still well above float64's rounding
        return int((values > like**2 * values[-1]).sum()) if float(values[-1]) > 0 else 0

    def any(self, masks: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """For each unit whether any of its entries is true."""
        found = torch.zeros(self.count, dtype=torch.bool)
        for rows in self.rows(masks):
            found |= rows.any(dim=1)
        return found

    def twins(self, weights: Tensors) -> torch.Tensor:
        """For each unit whether another one has an equal row.

        Equal rows are neighbours when rows are sorted by their product with a random one.
        """
        key = torch.zeros(self.count, dtype=torch.float64)
        generator = torch.Generator().manual_seed(0)
        for rows in self.rows(weights):
            chances = torch.randn(rows.shape[1], generator=generator, dtype=torch.float64)
            key += rows.double() @ chances
        order = key.argsort()
        apart = torch.zeros(self.count - 1, dtype=torch.float64)
        size = torch.zeros(self.count, dtype=torch.float64)
        for rows in self.rows(weights):
            double = rows.double()
            apart += (double[order[1:]] - double[order[:-1]]).square().sum(dim=1)
            size += double.square().sum(dim=1)
        like = apart <= LIKE**2 * torch.maximum(size[order[1:]], size[order[:-1]])
        found = torch.zeros(self.count, dtype=torch.bool)
        found[order[1:][like]] = True
        found[order[:-1][like]] = True
        return found


@dataclass(frozen=True)
class Units:
    """The units of a group; those of different runs share nothing.

    A unit is ``size`` channels of one layer, where channels are copied together.
    """

    runs: tuple[Run, ...]
    size: int

    @property
    def tensors(self) -> frozenset[str]:
        """All that follow the units."""
        return frozenset(part.tensor for run in self.runs for part in run.parts)

    def rank(self, gradients: Tensors) -> int | None:
        """How many units move independently, in channels; None where there are too many to say."""
        if any(run.count > LARGEST for run in self.runs):
            return None
        if not all(
            bool(gradients[name].isfinite().all()) for name in self.tensors & set(gradients)
        ):
            return None
        return sum(run.rank(gradients) for run in self.runs) * self.size

    def any(self, masks: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """For each unit whether any of its entries is true."""
        return _joined(run.any(masks) for run in self.runs)

    def twins(self, weights: Tensors) -> torch.Tensor:
        """For each unit whether another one of its run is equal to it."""
        return _joined(run.twins(weights) for run in self.runs)


def _joined(masks: Iterable[torch.Tensor]) -> torch.Tensor:
    return torch.cat([*masks, torch.zeros(0, dtype=torch.bool)])


def units_of(graph: Graph, grouping: Grouping, group: Group) -> Units:
    """The units of a group, all runs."""
    counts = grouping.coupled.counts
    parts: dict[int, dict[Part, None]] = {atom: {} for atom in group.atoms}  # in order, each once
    for use in grouping.coupled.uses:
        for dim, follows in enumerate(use.dims):
            if follows is not None:
                for atom, part in _parts(use, dim, follows, graph, grouping):
                    if atom in parts:
                        parts[atom][part] = None
    runs = (Run(counts[atom], tuple(found)) for atom, found in parts.items() if counts[atom])
    return Units(tuple(runs), group.unit)


def _parts(
    use: Use, dim: int, follows: Dim, graph: Graph, grouping: Grouping
) -> Iterator[tuple[int, Part]]:
    """Where the segments of an axis stand along one dimension of a tensor."""
    counts, shape = grouping.coupled.counts, grouping.coupled.shapes[use.tensor]
    run = grouping.coupled.length(follows.axis) // follows.blocks
    position = 0
    for segment in follows.axis:
        count = counts[segment.atom]
        rows = None
        if follows.blocks > 1:  # a run of the channels is read by the rows of its own block
            across = rule(graph.node(use.node).op).rows(graph.node(use.node))
            height = int(shape[across]) // follows.blocks
            rows = (across, position // run * height, height)
        start = position % run if follows.blocks > 1 else position
        yield segment.atom, Part(use.tensor, dim, start, count, segment.inner, rows)
        position += count * segment.inner
