"""The growth spec: what a person asks for, as frozen models, from YAML or from a dict.

A step is a mapping whose verb is one of its keys. To add a verb, write its model below and enter it
in :data:`VERBS` and in the type of :attr:`Spec.steps`. Which methods exist, which layers a pattern
means and whether they can grow is for planning to find out; here a spec is only read.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    PrivateAttr,
    SerializerFunctionWrapHandler,
    Tag,
    ValidationError,
    model_serializer,
    model_validator,
)

from ckgrow.errors import SpecError
from ckgrow.spec import values as spec_values
from ckgrow.spec import yamlfile
from ckgrow.spec.messages import explained
from ckgrow.spec.yamlfile import Document

VERSION = 1
"""The version of the language."""

Patterns = Annotated[
    tuple[str, ...],
    BeforeValidator(spec_values.patterns),
    Field(json_schema_extra=spec_values.patterns_schema),
]
Ratio = Annotated[float, Field(gt=0, le=10_000, allow_inf_nan=False)]
Channels = Annotated[int, Field(ge=1, le=2**31)]
Count = Annotated[int, Field(ge=1, le=1000)]


class Section(BaseModel):
    """Any mapping of a spec: frozen, no unknown keys, no conversions, no keys without a value."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    @model_validator(mode="before")
    @classmethod
    def _refuse_empty(cls, given: object) -> object:
        if isinstance(given, dict):
            for key in cls.model_fields:
                if key in given and given[key] is None:
                    raise spec_values.empty((key,))
        return given


class Noise(Section):
    """Noise that tells copies apart."""

    kind: Literal["zero-sum", "gaussian"] = Field(
        description="zero-sum keeps the function; gaussian does not"
    )
    scale: Ratio = Field(
        default=0.3, description="in standard deviations of the layer's own weights"
    )


class Step(Section):
    """What all steps share."""

    _where: str = PrivateAttr(default="step")

    @property
    def where(self) -> str:
        """How an error about this step begins: ``spec.yaml:7``, or ``step 2`` without a file."""
        return self._where

    def without_prefix(self, prefix: str) -> Self:
        """The step with ``prefix`` taken off its patterns: layers may be named either way."""
        verb = verb_of(self) or ""
        patterns = tuple(text.removeprefix(prefix) or text for text in getattr(self, verb))
        return self.model_copy(update={verb: patterns}) if prefix else self


class WidenStep(Step):
    """More channels in the outputs of layers."""

    model_config = ConfigDict(
        json_schema_extra={"oneOf": [{"required": [size]} for size in ("factor", "to", "by")]}
    )

    widen: Patterns = Field(description="layers, as names or globs")
    factor: Ratio | None = Field(default=None, description="times the present width")
    to: Channels | None = Field(default=None, description="the new width, in channels")
    by: Channels | None = Field(default=None, description="channels to add")
    multiple_of: Channels | None = Field(default=None, description="round the new width up to it")
    method: str = Field(default="net2wider", description="how the new channels come about")
    split: Literal["unequal", "select", "per-channel", "uniform"] = Field(
        default="unequal", description="how the weights that read a unit are shared by its copies"
    )
    copies: Literal["even", "random"] = Field(
        default="even", description="which units are copied: all as often, or drawn at random"
    )
    noise: Annotated[Noise | None, BeforeValidator(spec_values.noise)] = Field(
        default=None,
        description="none, or noise on the copies",
        json_schema_extra=spec_values.noise_schema,
    )
    rescale: Ratio | None = Field(
        default=None, description="times a widened unit's inputs, divided out of its outputs"
    )

    @model_validator(mode="after")
    def _one_size(self) -> WidenStep:
        spec_values.exactly_one(factor=self.factor, to=self.to, by=self.by)
        return self

    @model_serializer(mode="wrap")
    def _written(self, write: SerializerFunctionWrapHandler) -> dict[str, Any]:
        document: dict[str, Any] = write(self)
        return document if self.noise is not None else {**document, "noise": "none"}


class DeepenStep(Step):
    """New layers behind a layer, or new blocks in a stage."""

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
    fill: Literal["match-std", "he", "xavier", "zeros", "copy"] = Field(
        default="match-std", description="what fresh weights are drawn from"
    )

    @model_validator(mode="after")
    def _one_place(self) -> DeepenStep:
        spec_values.at_most_one(layers=self.layers, blocks=self.blocks)
        spec_values.at_most_one(layers=self.layers, after=self.after)
        if self.after is not None and "at" in self.model_fields_set:
            spec_values.at_most_one(at=self.at, after=self.after)
        return self

    @model_serializer(mode="wrap")
    def _written(self, write: SerializerFunctionWrapHandler) -> dict[str, Any]:
        document: dict[str, Any] = write(self)
        if self.after is not None:
            del document["at"]
        return document


VERBS: dict[str, type[Step]] = {"widen": WidenStep, "deepen": DeepenStep}
"""The model of each verb."""


def verb_of(step: object) -> str | None:
    """The only verb of a step, read or still to be read; None when there is none or several."""
    if isinstance(step, Step):
        return next(verb for verb, model in VERBS.items() if type(step) is model)
    verbs = [verb for verb in VERBS if verb in step] if isinstance(step, dict) else []
    return verbs[0] if len(verbs) == 1 else None


AnyStep = Annotated[
    Annotated[WidenStep, Tag("widen")] | Annotated[DeepenStep, Tag("deepen")],
    Discriminator(verb_of),
]


class Teacher(Section):
    """What is stated about the teacher because its keys and shapes do not tell."""

    architecture: str | None = Field(default=None, description="the adapter that reads it")
    options: Annotated[dict[str, Any], BeforeValidator(spec_values.plain)] = Field(
        default_factory=dict, description="options of that adapter; `ckgrow adapters` lists them"
    )


class Verify(Section):
    """How the student is compared with the teacher."""

    samples: Annotated[int, Field(ge=1, le=4096)] = Field(
        default=16, description="number of random inputs"
    )


class Spec(Section):
    """A whole growth spec."""

    version: Annotated[int, AfterValidator(spec_values.version(VERSION))] = Field(
        default=VERSION,
        description="version of the language",
        json_schema_extra={"const": VERSION},
    )
    seed: Annotated[int, Field(ge=0, lt=2**63)] = Field(
        default=0, description="of everything that is drawn at random"
    )
    teacher: Teacher = Field(default_factory=Teacher, description="facts about the teacher")
    steps: Annotated[tuple[AnyStep, ...], BeforeValidator(spec_values.listed)] = Field(
        description="in order, each on the result of the one before",
        json_schema_extra={"minItems": 1},
    )
    verify: Verify = Field(default_factory=Verify, description="how the result is checked")


def parse(path: str | os.PathLike[str]) -> Spec:
    """The spec in a YAML file. Raises FileError, and SpecError with the line of what is wrong."""
    return _validated(yamlfile.load(path))


def parse_text(text: str, name: str = "spec") -> Spec:
    """The spec in a YAML text, which errors call ``name``. Raises SpecError."""
    return _validated(yamlfile.loads(text, name))


def from_dict(given: Mapping[str, Any], name: str = "spec") -> Spec:
    """The spec in a mapping of plain values, as :func:`canonical` makes it. Raises SpecError."""
    return _validated(Document(name, dict(given), {}))


def _validated(document: Document) -> Spec:
    try:
        spec = Spec.model_validate(document.value)
    except ValidationError as failure:
        raise SpecError(explained(failure, document, Spec, VERBS)) from failure
    for index, step in enumerate(spec.steps):
        step._where = document.where(("steps", index)) if document.lines else f"step {index + 1}"
    return spec


def canonical(spec: Spec) -> dict[str, Any]:
    """The spec as JSON holds it, defaults filled in; :func:`from_dict` reads it back."""
    return spec.model_dump(mode="json", exclude_none=True)


def json_schema() -> dict[str, Any]:
    """The JSON Schema (draft 2020-12) of a spec, for editors."""
    schema: dict[str, Any] = spec_values.without_null(Spec.model_json_schema())
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **schema,
        "title": "ckgrow growth spec",
        "description": "How a trained network grows: steps, in order, and what is known about it.",
    }
