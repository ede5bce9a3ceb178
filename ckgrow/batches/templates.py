"""Names of outputs, made of the names of a teacher and a spec."""

from __future__ import annotations

import os
from string import Formatter

from ckgrow.errors import SpecError
from ckgrow.names import guess, quoted, without_secrets
from ckgrow.places import is_remote, name_of
from ckgrow.registry import formats

FIELDS = ("stem", "name", "suffix", "parent", "spec")


def filled(template: str, teacher: str, spec: str, where: str) -> str:
    """``template`` with its fields in braces replaced; ``{{`` is a brace.

    Of the teacher, which is absolute, ``{name}`` is the file's name, ``{stem}`` that without its
    ``{suffix}``, and ``{parent}`` the name of its folder; ``{spec}`` is the spec's name without
    suffix. Raises SpecError, which begins with ``where``, for anything else in braces.
    """
    values = _values(teacher, spec)
    made = []
    try:
        for text, field, layout, conversion in Formatter().parse(template):
            made.append(text)
            if field is None:
                continue
            if field not in values or layout or conversion:
                unknown = "{" + field + "}"
                if unknown[:-1] not in without_secrets(template):  # it may be part of a secret
                    unknown = "{...}"
                raise SpecError(
                    f"{where}: output has the unknown field {quoted(unknown)}"
                    f"{guess(unknown[1:-1], FIELDS)}; known are {{{'}, {'.join(FIELDS)}}}"
                )
            made.append(values[field])
    except ValueError as failure:
        raise SpecError(
            f"{where}: output {quoted(without_secrets(template))} cannot be read ({failure}); "
            "write {{ for a brace"
        ) from None
    return "".join(made)


def _values(teacher: str, spec: str) -> dict[str, str]:
    name = name_of(teacher)
    suffix = _suffix(teacher, name)
    if is_remote(teacher):
        server, _, path = teacher.partition("://")[2].partition("?")[0].partition("/")
        host = server.rpartition("@")[2]  # what stands before it may be a password
        parent = f"{host}/{path}".rstrip("/").rpartition("/")[0].rpartition("/")[2]
    else:
        parent = os.path.basename(os.path.dirname(os.path.abspath(teacher)))
    return {
        "stem": name.removesuffix(suffix),
        "name": name,
        "suffix": suffix,
        "parent": parent,
        "spec": os.path.splitext(name_of(spec))[0],
    }


def _suffix(teacher: str, name: str) -> str:
    """The longest suffix that a format claims; else what stands behind the last dot of a file."""
    claimed = [
        suffix
        for each in formats().values()
        for suffix in each.suffixes
        if name.lower().endswith(suffix)
    ]
    if claimed:
        return name[-max(map(len, claimed)) :]
    if not is_remote(teacher) and os.path.isdir(teacher):
        return ""
    return os.path.splitext(name)[1]
