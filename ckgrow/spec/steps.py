"""The steps of a spec, a model for each verb.

To add a verb, write its model here and enter it in :data:`VERBS` and :data:`AnyStep`; what it does
is a file in ``ckgrow/planning/verbs``. Which keys a method reads is for the method to say.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import (
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    PrivateAttr,
    Tag,
    model_validator,
)

from ckgrow.spec import values as spec_values
from ckgrow.spec.noise import Noise
from ckgrow.spec.section import Added, Channels, Count, Fill, Patterns, Ratio, Stated


class Step(Stated):
    """What all steps share."""

    verb: ClassVar[str]

    _where: str = PrivateAttr(default="step")
    _folder: Path = PrivateAttr(default=Path())

    @property
    def where(self) -> str:
        """How an error about this step begins: ``spec.yaml:7``, or ``step 2`` without a file."""
        return self._where

    @property
    def folder(self) -> Path:
        """Where its files are, unless their paths are absolute: beside the spec file."""
        return self._folder

    def standing_at(self, where: str) -> Self:
        """A step that another one made, with ``where`` that one stands."""
        made = self.model_copy()
        made._where = where
        return made

    def without_prefix(self, prefix: str) -> Self:
        """The step with ``prefix`` taken off its patterns: layers may be named either way."""
        patterns = getattr(self, self.verb)
        if not prefix or not isinstance(patterns, tuple):
            return self
        shorter = tuple(text.removeprefix(prefix) or text for text in patterns)
        return self.model_copy(update={self.verb: shorter})


class WidenStep(Step):
    """More channels in the outputs of layers."""

    verb = "widen"
    model_config = ConfigDict(json_schema_extra=spec_values.one_of("factor", "to", "by", "groups"))

    widen: Patterns = Field(description="layers, as names or globs")
    factor: Ratio | None = Field(default=None, description="times the present width")
    to: Channels | None = Field(default=None, description="the new width, in channels")
    by: Channels | None = Field(default=None, description="channels to add")
    groups: Channels | None = Field(
        default=None, description="the new number of groups of a grouped convolution"
    )
    multiple_of: Channels | None = Field(default=None, description="round the new width up to it")
    method: str = Field(default="net2wider", description="how the new channels come about")
    placement: Literal["end", "center", "interleave"] | None = Field(
        default=None, description="where new channels stand; the method's own place if not given"
    )
    split: Literal["unequal", "select", "per-channel", "uniform"] = Field(
        default="unequal", description="how the weights that read a unit are shared by its copies"
    )
    copies: Literal["even", "random"] = Field(
        default="even", description="which units are copied: all as often, or drawn at random"
    )
    noise: Annotated[Noise | None, BeforeValidator(spec_values.noise)] = Field(
        default=None,
        description="none, or how large; the method's own if not given",
        json_schema_extra=spec_values.noise_schema,
    )
    rescale: Ratio | None = Field(
        default=None, description="times a widened unit's inputs, divided out of its outputs"
    )
    fill: Fill = Field(default="match-std", description="what fresh weights are drawn from")
    scale: Ratio = Field(
        default=1.0, description="r2wider: size of the weights that read a pair, in deviations"
    )
    zero: Literal["out", "in"] = Field(
        default="out", description="netmorph: which side of a new unit is zero"
    )
    fallback: Literal["symmetric", "random"] = Field(
        default="symmetric", description="diagonal: for layers that grow along one axis only"
    )
    calibrate: str | None = Field(
        default=None, description="inputs (npz) that the statistics of new BatchNorms come from"
    )

    @model_validator(mode="after")
    def _one_size(self) -> WidenStep:
        spec_values.exactly_one(factor=self.factor, to=self.to, by=self.by, groups=self.groups)
        return self


class DeepenStep(Step):
    """New layers behind a layer, or new blocks in a stage."""

    verb = "deepen"
    model_config = ConfigDict(
        json_schema_extra=spec_values.none_together(
            ("layers", "blocks"), ("layers", "after"), ("at", "after")
        )
    )

    deepen: Patterns = Field(description="layers or stages, as names or globs")
    layers: Count | None = Field(default=None, description="layers to add behind each layer")
    blocks: Count | None = Field(default=None, description="blocks to add to each stage")
    at: Literal["end"] = Field(default="end", description="where in a stage: behind its last block")
    after: Count | None = Field(
        default=None, description="where in a stage: behind which block, counted from 1"
    )
    method: str | None = Field(
        default=None, description="net2deeper for layers and zero-init for stages, if not given"
    )
    fill: Fill = Field(default="match-std", description="what fresh weights are drawn from")
    scale: Ratio = Field(
        default=1.0, description="r2deeper: size of the weights that cancel, in deviations"
    )
    activation: Literal["none", "p-activation"] = Field(
        default="none", description="netmorph: what stands between the two factors"
    )
    calibrate: str | None = Field(
        default=None, description="inputs (npz) that the statistics of new BatchNorms come from"
    )

    @model_validator(mode="after")
    def _one_place(self) -> DeepenStep:
        spec_values.at_most_one(layers=self.layers, blocks=self.blocks)
        spec_values.at_most_one(layers=self.layers, after=self.after)
        if self.after is not None and self.states("at"):
            spec_values.at_most_one(at=self.at, after=self.after)
        return self


class KernelStep(Step):
    """Larger convolution kernels, zero around the old ones."""

    verb = "kernel"

    kernel: Patterns = Field(description="convolutions, as names or globs")
    to: Annotated[int | tuple[int, ...], BeforeValidator(spec_values.sizes)] = Field(
        description="the new size: one number, or one for each axis",
        json_schema_extra=spec_values.sizes_schema,
    )


class BranchStep(Step):
    """A parallel path beside a layer or block."""

    verb = "branch"

    branch: Patterns = Field(description="layers or blocks, as names or globs")
    at: Literal["sum", "concat"] = Field(
        default="sum", description="added to the layer's output, or appended to a concatenation"
    )
    width: Channels | None = Field(
        default=None, description="channels of the new path; as many as the layer's if not given"
    )
    method: str = Field(default="netmorph", description="how the new path starts without effect")
    fill: Fill = Field(default="match-std", description="what fresh weights are drawn from")


class InputsStep(Step):
    """More channels in the network's input, ignored at first."""

    verb = "inputs"

    inputs: Added = Field(description="{by: N} channels more, or {to: N} in all")


class ClassesStep(Step):
    """More classes in the network's output; the old ones stay as they are."""

    verb = "classes"

    classes: Added = Field(description="{by: N} classes more, or {to: N} in all")
    fill: Fill = Field(default="match-std", description="what fresh weights are drawn from")


class TargetStep(Step):
    """A published network that the teacher is to become."""

    verb = "target"

    target: str = Field(description="its name, for instance torchvision/wide_resnet50_2")
    widen: Annotated[str, BeforeValidator(spec_values.method)] = Field(
        default="net2wider", description="the method for new channels"
    )
    deepen: Annotated[str | None, BeforeValidator(spec_values.method)] = Field(
        default=None, description="the method for new layers and blocks, as for deepen"
    )


VERBS: Mapping[str, type[Step]] = {
    model.verb: model
    for model in (
        WidenStep,
        DeepenStep,
        KernelStep,
        BranchStep,
        InputsStep,
        ClassesStep,
        TargetStep,
    )
}
"""The model of each verb, in the order of the documentation."""


def verb_of(step: object) -> str | None:
    """The only verb of a step, read or still to be read; None when there is none or several."""
    if isinstance(step, Step):
        return step.verb
    verbs = verbs_in(step) if isinstance(step, dict) else []
    return verbs[0] if len(verbs) == 1 else None


def verbs_in(step: Mapping[Any, object]) -> list[str]:
    """The verbs among the keys of a step; ``widen`` and ``deepen`` beside ``target`` are none."""
    keys = TargetStep.model_fields.keys() - {"target"} if "target" in step else set()
    return [verb for verb in VERBS if verb in step and verb not in keys]


AnyStep = Annotated[
    Annotated[WidenStep, Tag("widen")]
    | Annotated[DeepenStep, Tag("deepen")]
    | Annotated[KernelStep, Tag("kernel")]
    | Annotated[BranchStep, Tag("branch")]
    | Annotated[InputsStep, Tag("inputs")]
    | Annotated[ClassesStep, Tag("classes")]
    | Annotated[TargetStep, Tag("target")],
    Discriminator(verb_of),
]
