"""The noise of a step: how large it is, and on what it acts.

Zero-sum noise acts on the columns that read copies, and cancels exactly. Gaussian noise acts on the
rows that make channels. Its size is ``scale`` deviations of the layer's own weights, or such that
weights over noise are ``snr_db`` decibels.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ckgrow.errors import SpecError
from ckgrow.growth.axis import Growing
from ckgrow.growth.prognosis import NEGLIGIBLE
from ckgrow.maps import ChannelMap
from ckgrow.recipes import Disturbance, Noised, Recipe, Statistic, share_size
from ckgrow.spec import DEFAULT_SCALE, Noise

if TYPE_CHECKING:
    from ckgrow.spec import WidenStep


def noise_of(
    step: WidenStep,
    default: Noise | None = None,
    kinds: tuple[str, ...] = ("zero-sum", "gaussian"),
    *,
    both_sides: bool = False,
) -> Noise | None:
    """The step's noise, or the method's own where it states none; ``kinds`` begin with the usual.

    ``both_sides``: the method can put noise on rows and columns alike (``both``).

    Raises SpecError for noise that the method does not know.
    """
    noise = step.noise if step.states("noise") else default
    if noise is None:
        return None
    kind = noise.kind or kinds[0]
    if kind not in kinds:
        raise SpecError(
            f"{step.where}: {step.method} knows no {kind} noise, only {' and '.join(kinds)}"
        )
    if kind == "zero-sum" and noise.match != "std":
        raise SpecError(
            f"{step.where}: noise.match is for gaussian noise; zero-sum noise has the mean 0"
        )
    if noise.both and not both_sides:
        raise SpecError(f"{step.where}: noise.both is for envelope, not for {step.method}")
    return noise.model_copy(update={"kind": kind})


def noise_scale(noise: Noise, weight_size: float = 1.0) -> float:
    """Its size in deviations, beside weights that have ``weight_size`` deviations themselves."""
    if noise.snr_db is not None:
        return weight_size * 10.0 ** (-noise.snr_db / 20.0)
    return DEFAULT_SCALE if noise.scale is None else noise.scale


def lasts(noise: Noise | None) -> bool:
    """Whether there is noise that is not lost when weights are rounded."""
    return noise is not None and noise_scale(noise) >= NEGLIGIBLE


def zero_sum_noise(
    noise: Noise | None, source: Recipe, split: str, grown: ChannelMap, at: Growing
) -> Disturbance | None:
    """Noise on the shares of copies, None where there is none or it is of another kind."""
    if noise is None or noise.kind != "zero-sum" or not (grown.counts > 1).any():
        return None
    scale = noise_scale(noise, share_size(split, grown))
    return Disturbance(at.stream("zero-sum"), Statistic("deviation", source, at.tensor), scale)


def disturbed_rows(
    made: Recipe, source: Recipe, at: Growing, chosen: np.ndarray, noise: Noise
) -> Recipe:
    """``made`` with gaussian noise on the entries ``chosen`` along the dimension that grows."""
    deviation = Statistic("deviation", source, at.tensor)
    mean = Statistic("mean", source, at.tensor) if noise.match == "mean-and-std" else None
    stream = at.stream("gaussian")
    return Noised(made, at.dim, chosen, stream, deviation, noise_scale(noise), mean)
