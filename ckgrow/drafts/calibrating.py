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
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from blake3 import blake3

from ckgrow.drafts.draft import Draft
from ckgrow.drafts.moments import Calibration, Norm
from ckgrow.errors import FileError, SpecError
from ckgrow.graph import Node
from ckgrow.maps import ZERO
from ckgrow.names import shown_path
from ckgrow.recipes import (
    Calibrated,
    Paired,
    Placed,
    Recipe,
    Undoing,
)
from ckgrow.spec import DeepenStep, Step, WidenStep


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
