"""Which architecture a header belongs to: every adapter explains what it can, the best one wins."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from ckgrow.architecture import Architecture, Explanation, Network
from ckgrow.errors import SpecError, UnrecognisedError
from ckgrow.header import FLOAT_DTYPES, Header
from ckgrow.names import first_few, guess, shown
from ckgrow.naming import in_grown
from ckgrow.registry import architectures

_SHOWN = 6


def recognise(header: Header, wanted: str | None, where: str) -> Architecture:
    """The adapter of a checkpoint, by name where the spec states one.

    Raises UnrecognisedError naming the keys that fit nothing and the nearest architecture,
    SpecError for a name that does not exist or when several adapters explain everything.
    """
    known = architectures()
    if wanted is not None:
        if wanted not in known:
            raise SpecError(
                f"there is no architecture {shown(wanted)}, only {', '.join(known)}"
                f"{guess(wanted, known)}"
            )
        explanation = known[wanted].explain(header)
        if not explanation.complete:
            said = f"{where} is no {wanted}, which was asked for"
            raise UnrecognisedError("; ".join([said, *_departures(header, explanation)]))
        return known[wanted]
    explanations = {name: adapter.explain(header) for name, adapter in known.items()}
    complete = [name for name, explanation in explanations.items() if explanation.complete]
    if len(complete) == 1:
        return known[complete[0]]
    if complete:
        raise SpecError(
            f"{where} fits {' and '.join(complete)}; say which one with "
            "'teacher: {architecture: ...}' in the spec, or --architecture"
        )
    raise UnrecognisedError(_refusal(header, explanations, where))


def build(adapter: Architecture, header: Header, options: Mapping[str, Any], where: str) -> Network:
    """The network of a header, after checking that the adapter has these options."""
    known = [option.name for option in adapter.options]
    for name in options:
        if name not in known:
            raise SpecError(
                f"{where}: {adapter.name} has no option {shown(name)}; "
                f"it has {', '.join(known)}{guess(name, known)}"
            )
    return adapter.build(header, options)


def _refusal(header: Header, explanations: Mapping[str, Explanation], where: str) -> str:
    if not header:
        return f"{where} holds no tensors; save it again, with its weights"
    partial = {name: each for name, each in explanations.items() if each.explained}
    if not partial:
        said = [f"{where}: no architecture explains its keys ({_named(header)})"]
        return "; ".join([*said, *_strange(header, tuple(header)), "see 'ckgrow adapters'"])
    name = min(partial, key=lambda name: _distance(partial[name]))
    said = [f"{where} is no network ckgrow knows; the nearest architecture is {name}"]
    return "; ".join([*said, *_departures(header, partial[name])])


def _distance(explanation: Explanation) -> int:
    """How many keys and shapes would have to be others; places count as much as keys."""
    return sum(map(len, (explanation.unexplained, explanation.missing, explanation.problems)))


def _departures(header: Header, explanation: Explanation) -> list[str]:
    said = []
    if explanation.unexplained:
        said.append(f"keys that fit nothing there: {_named(explanation.unexplained)}")
        said.extend(_strange(header, explanation.unexplained))
    if explanation.missing:
        said.append(f"keys that are missing: {_named(explanation.missing)}")
    said.extend(explanation.problems[:_SHOWN])
    return said


def _strange(header: Header, names: tuple[str, ...]) -> list[str]:
    """Why a tensor of the right name may be no weight, for the first that is not."""
    for name in names:
        spec = header[name]
        if in_grown(name):
            return [
                "names with '_grown' are ckgrow's, and the entry 'ckgrow' in the file's metadata, "
                "which tells where they belong, is gone: use a copy that still has it"
            ]
        if not spec.size:
            return [f"{shown(name)} is empty (shape {list(spec.shape)})"]
        if name.endswith(".weight") and not spec.is_number:
            return [
                f"{shown(name)} is {spec.dtype}, and weights are {', '.join(sorted(FLOAT_DTYPES))} "
                "or float8; convert a quantized checkpoint back first"
            ]
    return []


def _named(names: Iterable[str]) -> str:
    return first_few([shown(name) for name in names])
