"""How single values of a spec are read and described, beyond what their types say.

Every check raises pydantic's own kind of error, with a message that continues the name of the
value: "factor in step 1" + "must be ...".
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from pydantic import BaseModel
from pydantic_core import PydanticCustomError

from ckgrow.errors import SpecError
from ckgrow.names import PATTERN_LENGTH, Pattern, quoted, shown
from ckgrow.spec.yamlfile import DEPTH

LARGEST_KERNEL = 255
"""Largest size of a convolution kernel along an axis."""

_LONGEST_NUMBER = 10**20


def got(value: object) -> str:
    """A wrong value in an error message."""
    match value:
        case None:
            return "nothing"
        case bool():
            return str(value).lower()
        case int() if abs(value) > _LONGEST_NUMBER:
            return "a number of more than 20 digits"
        case int() | float():
            return str(value)
        case str():
            return f"the text {quoted(value)}"
        case dict():
            return "a mapping"
        case list() | tuple():
            return "a list"
        case _:
            return f"a Python {type(value).__name__}"


def patterns(given: object) -> tuple[str, ...]:
    """One pattern or a list of them, each known to be one."""
    if isinstance(given, dict):
        braces = shown("{" + ",".join(map(str, given)) + "}")
        raise _refused(f"is a mapping, which YAML makes of {braces}; quote the pattern")
    items = given if isinstance(given, list | tuple) else (given,)
    if not items:
        raise _refused("names no layer; give a name, or '*' for all")
    for item in items:
        if not isinstance(item, str):
            raise _refused(f"must be text, or a list of texts; got {got(item)}; quote the pattern")
        try:
            Pattern(item)
        except SpecError as failure:
            raise _refused(f"is not a pattern: {failure}") from failure
    return tuple(items)


def patterns_schema(schema: dict[str, Any]) -> None:
    """JSON Schema of :func:`patterns`, in place."""
    schema.pop("type")
    items = schema.pop("items") | {"minLength": 1, "maxLength": PATTERN_LENGTH}
    schema["anyOf"] = [items, {"type": "array", "items": items, "minItems": 1}]


def noise(given: object) -> object:
    """The word ``none`` as no noise at all."""
    if given == "none":
        return None
    if not isinstance(given, dict):
        example = "{kind: zero-sum, scale: 0.3}"
        raise _refused(f"must be none, or a mapping such as {example}; got {got(given)}")
    return given


def noise_schema(schema: dict[str, Any]) -> None:
    """JSON Schema of :func:`noise`, in place: a word stands for what null is in Python."""
    schema["anyOf"] = [{"const": "none"}, *schema["anyOf"]]


def sizes(given: object) -> object:
    """The size of a kernel along every axis, or a list with one for each."""
    items = given if isinstance(given, list | tuple) else (given,)
    if not items:
        raise _refused("is empty; give one size, or one for each axis")
    for item in items:
        if type(item) is not int or not 1 <= item <= LARGEST_KERNEL:
            legal = f"a whole number from 1 to {LARGEST_KERNEL}, or a list with one for each axis"
            raise _refused(f"must be {legal}; got {got(item)}")
    return tuple(given) if isinstance(given, list) else given


def sizes_schema(schema: dict[str, Any]) -> None:
    """JSON Schema of :func:`sizes`, in place."""
    size = {"type": "integer", "minimum": 1, "maximum": LARGEST_KERNEL}
    schema["anyOf"] = [size, {"type": "array", "items": size, "minItems": 1}]


def amount(given: object) -> object:
    """A mapping, with an example of one where it is something else."""
    if isinstance(given, dict | BaseModel):
        return given
    raise _refused(f"must be a mapping such as {{by: 1}}; got {got(given)}")


def method(given: object) -> object:
    """The name of a method, where a verb might be expected."""
    if isinstance(given, str):
        return given
    raise _refused(f"must be the name of a method, since the step has a target; got {got(given)}")


def plain(given: object) -> object:
    """A copy of the options of an adapter, all of it known to be JSON without null."""
    return _plain(given, ())


def _plain(given: object, path: tuple[str | int, ...]) -> object:
    if len(path) > DEPTH:
        raise _refused(f"is nested more than {DEPTH} deep")
    match given:
        case bool() | int() | str():
            return given
        case float() if math.isfinite(given):
            return given
        case list() | tuple():
            return [_plain(item, (*path, index)) for index, item in enumerate(given)]
        case dict() if all(isinstance(key, str) for key in given):
            return {key: _plain(value, (*path, key)) for key, value in given.items()}
        case dict():
            raise _refused("has a key that is not text; quote it", path)
        case None:
            raise empty(path)
        case _:
            raise _refused(f"must be a value that JSON knows; got {got(given)}", path)


def empty(path: tuple[str | int, ...]) -> PydanticCustomError:
    """The error for a key without a value, at ``path`` from the value that is being checked."""
    return _refused("has no value; give it one, or remove the key", path)


def listed(given: object) -> object:
    """A list as the tuple a frozen model keeps, once it is known to hold something."""
    if isinstance(given, list | tuple):
        if not given:
            raise _refused("is empty; it needs at least one step")
        return tuple(given)
    return given


def version(known: int) -> Callable[[int], int]:
    """A check for the only version of the language that is known."""

    def check(given: int) -> int:
        if given != known:
            raise _refused(f"{got(given)} is not known; this ckgrow reads version {known}")
        return given

    return check


def exactly_one(**choices: object) -> None:
    """Refuses a step that gives none of the choices, or several."""
    at_most_one(**choices)
    if all(value is None for value in choices.values()):
        raise _refused(f"needs one of {enumerated(list(choices))}")


def at_most_one(**choices: object) -> None:
    """Refuses a step that gives several of the choices."""
    given = [key for key, value in choices.items() if value is not None]
    if len(given) > 1:
        raise _refused(f"has {enumerated(given)}, which exclude each other; keep one")


def one_of(*keys: str) -> dict[str, Any]:
    """JSON Schema of :func:`exactly_one`."""
    return {"oneOf": [{"required": [key]} for key in keys]}


def none_together(*choices: tuple[str, ...]) -> dict[str, Any]:
    """JSON Schema of :func:`at_most_one`, for pairs of keys."""
    return {"not": {"anyOf": [{"required": list(keys)} for keys in choices]}}


def without_null(schema: Any) -> Any:
    """A JSON Schema in which a key is left out, not null: null is how Python says absent."""
    if isinstance(schema, list):
        return [without_null(item) for item in schema if item != {"type": "null"}]
    if not isinstance(schema, dict):
        return schema
    kept = {
        key: without_null(value)
        for key, value in schema.items()
        if not (key == "default" and value is None)
    }
    if len(kept.get("anyOf", ())) == 1:
        return {**kept.pop("anyOf")[0], **kept}
    return kept


def enumerated(keys: Sequence[str]) -> str:
    """Two keys or more as a sentence lists them."""
    names = [quoted(key) for key in keys]
    return ", ".join(names[:-1]) + " and " + names[-1]


def _refused(message: str, path: tuple[str | int, ...] = ()) -> PydanticCustomError:
    """An error with this message, taken literally: pydantic's own messages are templates."""
    return PydanticCustomError("refused", "{message}", {"message": message, "path": path})
