"""Turns what pydantic found wrong with a spec into sentences: file, line, key, what is legal."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from ckgrow.names import nearest, quoted, shown
from ckgrow.spec.steps import verbs_in
from ckgrow.spec.values import enumerated, got
from ckgrow.spec.yamlfile import Document, Key

MOST_PROBLEMS = 5
"""Most problems that one message lists."""

_STEPS = "steps"
_LEGAL = {
    "int_type": "must be a whole number",
    "float_type": "must be a number",
    "finite_number": "must be a finite number",
    "bool_type": "must be true or false",
    "string_type": "must be text",
    "tuple_type": "must be a list",
    "dict_type": "must be a mapping",
    "model_type": "must be a mapping",
    "model_attributes_type": "must be a mapping",
    "greater_than": "must be greater than {gt:g}",
    "greater_than_equal": "must be at least {ge:g}",
    "less_than": "must be less than {lt}",
    "less_than_equal": "must be at most {le:.0f}",
    "literal_error": "must be {expected}",
    "invalid_key": "is a key that is not text",
}


def explained(
    failure: ValidationError,
    document: Document,
    root: type[BaseModel],
    verbs: Mapping[str, type[BaseModel]],
) -> str:
    """One line for every problem, in the order of the file, up to :data:`MOST_PROBLEMS`.

    ``root`` is the model of the whole document, ``verbs`` the models of its steps.
    """
    problems: list[tuple[int, str]] = []
    for error in failure.errors(include_url=False):
        path = _path(error)
        text = _sentence(error, path, root, verbs)
        problems.append((document.line(path), f"{document.where(path)}: {text}"))
    problems.sort(key=lambda problem: problem[0])
    lines = [text for _, text in problems[:MOST_PROBLEMS]]
    if len(problems) > MOST_PROBLEMS:
        lines.append(f"... and {len(problems) - MOST_PROBLEMS} more problems")
    return "\n".join(lines)


def _path(error: ErrorDetails) -> tuple[Key, ...]:
    """The keys that lead to the problem; pydantic's path names the kind of a step as well."""
    location = error["loc"]
    path = location[:2] + location[3:] if location[:1] == (_STEPS,) else location
    return (*path, *error.get("ctx", {}).get("path", ()))


def _sentence(
    error: ErrorDetails,
    path: tuple[Key, ...],
    root: type[BaseModel],
    verbs: Mapping[str, type[BaseModel]],
) -> str:
    subject = _subject(path)
    match error["type"]:
        case "extra_forbidden":
            legal = _model_at(error["loc"][:-1], root, verbs).model_fields
            place = _subject(path[:-1])
            return f"unknown key {quoted(str(path[-1]))} in {place}; {_guess(str(path[-1]), legal)}"
        case "missing":
            return f"{subject} is missing"
        case "refused":
            return f"{subject} {error['msg']}"
        case "union_tag_not_found":
            return f"{subject} {_verb_problem(error['input'], verbs)}"
    context = error.get("ctx", {})
    legal_text = _LEGAL.get(error["type"], error["msg"]).format(**context)
    sentence = f"{subject} {legal_text}; got {got(error['input'])}"
    if error["type"] == "literal_error" and isinstance(error["input"], str):
        close = nearest(error["input"], re.findall(r"'([^']*)'", context["expected"]), 1)
        sentence += f"; did you mean {quoted(close[0])}?" if close else ""
    return sentence


def _verb_problem(step: object, verbs: Mapping[str, type[BaseModel]]) -> str:
    if not isinstance(step, dict):
        return f"must be a mapping with a verb ({', '.join(verbs)}); got {got(step)}"
    present = verbs_in(step)
    if present:
        return f"has several verbs, {enumerated(present)}; make a step of each"
    known = {key for verb in verbs.values() for key in verb.model_fields}
    for key in map(str, step):
        if key not in known and nearest(key, verbs, 1):
            return f"has no verb but the unknown key {quoted(key)}; {_guess(key, verbs)}"
    keys = ", ".join(quoted(str(key)) for key in step) or "none"
    return f"has no verb; its keys are {keys}; the verbs are {', '.join(verbs)}"


def _guess(word: str, legal: Mapping[str, Any]) -> str:
    close = nearest(word, legal, 1)
    return f"did you mean {quoted(close[0])}?" if close else f"known are {', '.join(legal)}"


def _subject(path: tuple[Key, ...]) -> str:
    """What is at ``path``, in words: ``noise.scale in step 1``."""
    if path[:1] == (_STEPS,) and len(path) > 1:
        step = f"step {int(path[1]) + 1}"
        return f"{_dotted(path[2:])} in {step}" if len(path) > 2 else step
    return _dotted(path) if path else "the spec"


def _dotted(path: tuple[Key, ...]) -> str:
    return ".".join(shown(str(part)) for part in path)


def _model_at(
    location: tuple[Key, ...], root: type[BaseModel], verbs: Mapping[str, type[BaseModel]]
) -> type[BaseModel]:
    """The model that a pydantic location leads to."""
    model = root
    for index, part in enumerate(location):
        if index == 2 and location[0] == _STEPS:
            model = verbs[str(part)]
        elif part in model.model_fields:
            annotation = model.model_fields[str(part)].annotation
            for choice in (annotation, *get_args(annotation)):
                if isinstance(choice, type) and issubclass(choice, BaseModel):
                    model = choice
    return model
