"""How single values of a spec are read and described, beyond what their types say.

Every check raises pydantic's own kind of error, with a message that continues the name of the
value: "factor in step 1" + "must be ...".
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from pydantic_core import PydanticCustomError

from ckgrow.errors import SpecError
from ckgrow.names import Pattern, quoted, shown
from ckgrow.spec.yamlfile import DEPTH

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
    items = schema.pop("items")
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
    schema["default"] = "none"


def sizes(given: object) -> object:
    """One size, or a list of them as a tuple."""
    if isinstance(given, list | tuple):
        if not given:
            raise _refused("is empty; give one size, or one for each axis")
        return tuple(given)
    return given


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
        raise _refused(f"needs one of {_enumerated(list(choices))}")


def at_most_one(**choices: object) -> None:
    """Refuses a step that gives several of the choices."""
    given = [key for key, value in choices.items() if value is not None]
    if len(given) > 1:
        raise _refused(f"has {_enumerated(given)}, which exclude each other; keep one")


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


def _enumerated(keys: list[str]) -> str:
    names = [quoted(key) for key in keys]
    return ", ".join(names[:-1]) + " and " + names[-1]


def _refused(message: str, path: tuple[str | int, ...] = ()) -> PydanticCustomError:
    """An error with this message, taken literally: pydantic's own messages are templates."""
    return PydanticCustomError("refused", "{message}", {"message": message, "path": path})
