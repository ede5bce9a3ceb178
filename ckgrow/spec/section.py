"""What every mapping of a spec has in common, and the types of single values."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    model_serializer,
    model_validator,
)

from ckgrow.spec import values as spec_values

Patterns = Annotated[
    tuple[str, ...],
    BeforeValidator(spec_values.patterns),
    Field(json_schema_extra=spec_values.patterns_schema),
]
Ratio = Annotated[float, Field(gt=0, le=10_000, allow_inf_nan=False)]
Decibels = Annotated[float, Field(ge=-80, le=200, allow_inf_nan=False)]
Channels = Annotated[int, Field(ge=1, le=2**31)]
Count = Annotated[int, Field(ge=1, le=1000)]
Fill = Literal["match-std", "he", "xavier", "zeros", "copy"]


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


class Stated(Section):
    """A mapping that is written without its defaults.

    Whether a key is given makes a difference: a method refuses keys that it does not read, and has
    its own defaults for some that it does. Only ``method`` is always written, for all read it.
    """

    def states(self, key: str) -> bool:
        """Whether the spec itself gives ``key``, rather than its default."""
        return key in self.model_fields_set

    @model_serializer(mode="wrap")
    def _written(self, write: SerializerFunctionWrapHandler) -> dict[str, Any]:
        document: dict[str, Any] = write(self)
        fields = type(self).model_fields
        kept = {
            key: value
            for key, value in document.items()
            if key == "method" or getattr(self, key) != fields[key].default
        }
        return kept | {  # None cannot be stated, but by its name
            key: "none" for key in self.model_fields_set if getattr(self, key) is None
        }


class Amount(Stated):
    """How many more, or how many in all."""

    model_config = ConfigDict(json_schema_extra=spec_values.one_of("by", "to"))

    by: Channels | None = Field(default=None, description="how many to add")
    to: Channels | None = Field(default=None, description="how many in the end")

    @model_validator(mode="after")
    def _one_size(self) -> Amount:
        spec_values.exactly_one(by=self.by, to=self.to)
        return self


Added = Annotated[Amount, BeforeValidator(spec_values.amount)]
