"""The noise of a widening step."""

from __future__ import annotations

from typing import Literal

from pydantic import ConfigDict, Field, model_validator

from ckgrow.spec import values as spec_values
from ckgrow.spec.section import Decibels, Ratio, Stated

DEFAULT_SCALE = 0.3
"""Of noise, in deviations of the layer's own weights."""


class Noise(Stated):
    """Noise that tells copies apart, or that new channels start from."""

    model_config = ConfigDict(json_schema_extra=spec_values.none_together(("scale", "snr_db")))

    kind: Literal["zero-sum", "gaussian"] | None = Field(
        default=None,
        description="what cancels, or what does not; the method's own if not given",
    )
    scale: Ratio | None = Field(
        default=None,
        description=f"in deviations of the layer's own weights; {DEFAULT_SCALE} if not given",
    )
    snr_db: Decibels | None = Field(
        default=None, description="instead of scale: weights over noise, in decibels"
    )
    match: Literal["std", "mean-and-std"] = Field(
        default="std", description="whether the layer's own mean is added to the noise"
    )
    both: bool = Field(
        default=False, description="envelope: noise in the weights that read new channels, too"
    )

    @model_validator(mode="after")
    def _one_size(self) -> Noise:
        spec_values.at_most_one(scale=self.scale, snr_db=self.snr_db)
        return self
