"""The growth spec: what a person asks for, as frozen models, from YAML or from a dict.

A step is a mapping whose verb is one of its keys (``ckgrow.spec.steps``). Which methods exist,
which layers a pattern means and whether they can grow is for planning to find out; here a spec is
only read.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field, ValidationError

from ckgrow.errors import SpecError
from ckgrow.spec import values as spec_values
from ckgrow.spec import yamlfile
from ckgrow.spec.messages import explained
from ckgrow.spec.section import Section
from ckgrow.spec.steps import VERBS, AnyStep
from ckgrow.spec.yamlfile import Document

VERSION = 1
"""The version of the language."""


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
        step._folder = Path(document.name).parent
    return spec


def canonical(spec: Spec) -> dict[str, Any]:
    """The spec as JSON holds it; :func:`from_dict` reads it back and means the same.

    Defaults of the file are filled in. In steps they are left out, but for the method, since a
    method refuses keys that it does not read. So two specs that mean the same have one form.
    """
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
