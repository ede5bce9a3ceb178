"""A layer's weights as a matrix of cells: output channels down, input channels across."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from ckgrow.reports.page.heatmap import MOST

_CROP = 12
"""So many channels on either side are shown of a convolution whose kernel changed."""

Layout = Callable[[np.ndarray], np.ndarray]
"""Weights, output channels first, to a matrix."""


def layout(shape: tuple[int, ...]) -> tuple[str, Layout]:
    """How weights of this shape are laid out, in words and as a function.

    Every weight of every kernel is shown where the picture need not be coarser for it. The same
    layout serves a smaller teacher, so that both sides can be compared cell by cell.
    """
    rows, columns, *kernel = shape
    if math.prod(kernel) == 1:
        return "a cell is a weight", lambda weights: weights.reshape(weights.shape[:2])
    if columns == 1:
        return "a row is a kernel", lambda weights: weights.reshape(len(weights), -1)
    if len(kernel) == 2 and rows * kernel[0] <= MOST and columns * kernel[1] <= MOST:
        return f"a cell is a weight, {kernel[0]} x {kernel[1]} of them a kernel", _tiled
    return "a cell is the sum over a kernel", _summed


def cropped(weights: np.ndarray) -> np.ndarray:
    """The first channels on either side."""
    return weights[:_CROP, :_CROP]


def _tiled(weights: np.ndarray) -> np.ndarray:
    rows, columns, height, width = weights.shape
    return weights.transpose(0, 2, 1, 3).reshape(rows * height, columns * width)


def _summed(weights: np.ndarray) -> np.ndarray:
    return weights.reshape(*weights.shape[:2], -1).sum(-1)
