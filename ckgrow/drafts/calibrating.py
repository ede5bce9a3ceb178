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

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
from blake3 import blake3

from ckgrow.architecture import Assumption
from ckgrow.drafts.draft import Draft
from ckgrow.drafts.moments import Calibration, Norm, require_variance
from ckgrow.errors import CheckpointError, FileError, SpecError
from ckgrow.graph import Graph, Node
from ckgrow.maps import ZERO
from ckgrow.names import shown, shown_path
from ckgrow.ops.rule import elements
from ckgrow.reasons import unreadable
from ckgrow.recipes import (
    Calibrated,
    Placed,
    Recipe,
    Undoing,
)
from ckgrow.spec import DeepenStep, Step, WidenStep
from ckgrow.verdict.samples import count_in_file

FEW_VALUES = 32
"""Values per channel below which a variance is hardly known: its error is a quarter of it."""

_BLOCK = 1 << 20


def calibrated(
    before: Draft,
    after: Draft,
    step: WidenStep | DeepenStep,
    assumptions: Sequence[Assumption],
) -> tuple[Draft, tuple[str, ...]]:
    """``after``, with measured statistics wherever ``step`` made new BatchNorm channels.

    With it come warnings. Of the file no more is read than what it says of its arrays. Raises
    SpecError where nothing is new, FileError where there is no file, CheckpointError where it does
    not hold the network's inputs; ``assumptions`` tell where their size comes from.
    """
    if step.calibrate is None:
        return after, ()
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
    try:
        count = count_in_file(path, after.graph, _advice(after.graph, assumptions))
        warnings = _few_values(norms, after, count, path)
    except (CheckpointError, FileError) as failure:
        raise type(failure)(f"{step.where}: calibrate: {failure}") from failure
    calibration = Calibration(path, after.graph, after.recipes, tuple(norms))
    recipes = dict(after.recipes)
    for norm in norms:
        for key in norm.keys:
            recipes[key] = Calibrated(recipes[key], key, calibration, shown_path(path))
    return after.with_changes(recipes=recipes), warnings


def hash_calibrations(steps: Iterable[Step]) -> dict[str, str]:
    """BLAKE3 of every file that ``steps`` measure on, by its path as the spec writes it."""
    found: dict[str, str] = {}
    for step in steps:
        if isinstance(step, WidenStep | DeepenStep) and step.calibrate is not None:
            path = step.folder / step.calibrate
            digest = blake3()
            try:
                with path.open("rb") as file:
                    while block := file.read(_BLOCK):
                        digest.update(block)
            except OSError as failure:
                raise FileError(
                    f"{shown_path(path)} cannot be read: {unreadable(failure)}"
                ) from failure
            found[step.calibrate] = str(digest.hexdigest())
    return found


def require_unchanged(steps: Iterable[Step], hashes: Mapping[str, str]) -> None:
    """FileError where a file is no longer the one of which :func:`hash_calibrations` spoke.

    Asked when everything is measured: what was read in between is then what was hashed.
    """
    now = hash_calibrations(steps)
    for name, digest in hashes.items():
        if now[name] != digest:
            raise FileError(
                f"{shown_path(Path(name))} changed while it was read; run again when nothing "
                "writes to it"
            )


def _advice(graph: Graph, assumptions: Sequence[Assumption]) -> str:
    """What can be done about inputs of another size: an option called like the input states it."""
    for each in assumptions:
        if each.fact in graph.inputs and each.source == "spec":
            return f", as teacher.options.{each.fact} states"
        if each.fact in graph.inputs and each.source != "checkpoint":
            return f", as is assumed; for inputs of another size state teacher.options.{each.fact}"
    return ""


def _few_values(norms: Iterable[Norm], draft: Draft, count: int, path: Path) -> tuple[str, ...]:
    """Warnings of BatchNorms whose channels have few values in ``count`` samples."""
    said = []
    for norm in norms:
        value = norm.node.inputs[0]
        positions = draft.shapes[value][2:]
        if not all(isinstance(size, int) for size in positions):
            continue  # nobody knows before it is run
        values = count * elements(positions)
        require_variance(values, value, path)
        if values < FEW_VALUES:
            said.append(
                f"{shown_path(path)} holds only {values} values per channel for {shown(value)}; "
                f"statistics of a BatchNorm want {FEW_VALUES} at least"
            )
    return tuple(dict.fromkeys(said))


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
        new = run.fresh_units >= 0
        copied = run.sources >= 0
        new[copied] = _new_entries(recipe.source, known)[run.sources[copied]]
        return new
    if isinstance(source, Recipe):
        return _new_entries(source, known)
    return np.ones(recipe.spec.shape[0], bool)
