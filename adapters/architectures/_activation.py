"""Activations between the layers of a chain: how an option names one, and which nodes it is.

Keys and shapes say nothing of them. Parameters are torch's defaults unless a number follows the
name: ``leaky_relu 0.2``, ``elu 0.5``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ckgrow.architecture import Assumption, Option, Source
from ckgrow.building import Builder
from ckgrow.errors import SpecError
from ckgrow.names import nearest, shown

from ._chain import Step
from ._options import Options

OPTION = "activation"

OPS: Mapping[str, str] = {
    "relu": "Relu",
    "selu": "Selu",
    "gelu": "Gelu",
    "tanh": "Tanh",
    "sigmoid": "Sigmoid",
    "softplus": "Softplus",
    "hardswish": "HardSwish",
    "mish": "Mish",
    "identity": "Identity",
}
WITH_ALPHA: Mapping[str, tuple[str, float]] = {
    "leaky_relu": ("LeakyRelu", 0.01),
    "elu": ("Elu", 1.0),
}
NAMES = (*OPS, *WITH_ALPHA, "relu6", "silu")
MAXOUT = "maxout"


def option(*, maxout: bool = False) -> Option:
    """The adapter's option."""
    units = "{maxout: k} for the largest of every k outputs; " if maxout else ""
    return Option(
        OPTION,
        "relu",
        f"{', '.join(NAMES)}; leaky_relu and elu may be followed by a number (leaky_relu 0.2); "
        f"{units}or a mapping from every layer that has one to its own",
    )


@dataclass(frozen=True)
class Activation:
    """One activation; ``alpha`` is the parameter of those that have one, ``pieces`` maxout's."""

    name: str
    alpha: float | None = None
    pieces: int = 1

    def __str__(self) -> str:
        number = self.alpha if self.pieces == 1 else self.pieces
        return self.name if number is None else f"{self.name} {number:g}"

    def emit(self, builder: Builder, path: str, x: str) -> str:
        """The value behind the activation; its last node is called ``path``.

        Maxout's units stand one after the other, each with its pieces in a row.
        """
        if self.name == MAXOUT:
            shape = builder.constant(f"{path}/shape", (0, -1, self.pieces))
            apart = builder.node("Reshape", f"{path}/pieces", [x, shape])
            axes = builder.constant(f"{path}/axes", (2,))
            return builder.node("ReduceMax", path, [apart, axes], keepdims=0)
        if self.name == "silu":
            return builder.node("Mul", path, [x, builder.node("Sigmoid", f"{path}/sigmoid", [x])])
        if self.name == "relu6":
            bounds = [
                builder.constant(f"{path}/{name}", value, "float32")
                for name, value in (("low", 0.0), ("high", 6.0))
            ]
            return builder.node("Clip", path, [x, *bounds])
        if self.alpha is not None:
            return builder.node(WITH_ALPHA[self.name][0], path, [x], alpha=self.alpha)
        return builder.node(OPS[self.name], path, [x])


def activations(
    options: Options,
    steps: Sequence[Step],
    otherwise: Source = "default",
    *,
    maxout: bool = False,
) -> tuple[Mapping[str, Activation], tuple[Assumption, ...]]:
    """The activation behind each of ``steps`` by layer, and the fact to list (none without steps).

    ``otherwise`` is where it is known from when the spec does not state it, ``maxout`` whether that
    is an activation here.

    Raises SpecError for a name that is no activation, and for a mapping that leaves out a layer or
    names one that has no activation behind it.
    """
    names = [step.layer.name for step in steps]
    stated = options.value(OPTION)
    if isinstance(stated, Mapping) and not _is_maxout(stated, names):
        stated = {str(name): text for name, text in stated.items()}  # YAML's 0 is a number
        unknown = [name for name in stated if name not in names]
        if unknown:
            close = nearest(unknown[0], names) or names
            raise SpecError(
                f"option {OPTION!r} names {shown(unknown[0])}, which has no activation behind it; "
                f"layers that have: {', '.join(map(shown, close))}"
            )
        missing = [name for name in names if name not in stated]
        if missing:
            raise SpecError(f"option {OPTION!r} says nothing of {shown(missing[0])}; add it")
        chosen = {name: _parse(stated[name]) for name in names}
        text = ", ".join(f"{shown(name)}: {activation}" for name, activation in chosen.items())
    else:
        common = _parse(stated)
        chosen = dict.fromkeys(names, common)
        text = str(common)
    if not maxout and any(activation.name == MAXOUT for activation in chosen.values()):
        raise SpecError(f"option {OPTION!r}: maxout is known in chains of Linear layers only (mlp)")
    fact = Assumption(OPTION, text, options.source(OPTION, otherwise))
    return chosen, (fact,) if steps else ()


def stated_pieces(options: Options, names: Sequence[str]) -> dict[str, int]:
    """The pieces of maxout units by layer; ``names`` have them where one activation is for all."""
    stated = options.value(OPTION)
    if not isinstance(stated, Mapping):
        return {}
    if _is_maxout(stated, names):
        return dict.fromkeys(names, _parse(stated).pieces)
    return {
        str(name): _parse(each).pieces for name, each in stated.items() if isinstance(each, Mapping)
    }


def _is_maxout(stated: Mapping[Any, Any], names: Sequence[str]) -> bool:
    """Whether a mapping states maxout, rather than the activations of layers."""
    return set(stated) == {MAXOUT} and MAXOUT not in names


def _maxout(stated: Any) -> Activation:
    if isinstance(stated, Mapping) and set(stated) == {MAXOUT}:
        pieces = stated[MAXOUT]
        if isinstance(pieces, int) and pieces > 1:
            return Activation(MAXOUT, pieces=pieces)
    raise SpecError(
        f"option {OPTION!r} is {shown(str(stated))}; write {{maxout: k}}, k being the number "
        "of outputs of which each unit takes the largest, 2 or more"
    )


def _parse(text: Any) -> Activation:
    name, *numbers = str(text).split()[:3] or [""]
    if isinstance(text, Mapping) or name == MAXOUT:
        return _maxout(text)
    if name not in NAMES:
        close = nearest(name, NAMES, 1)
        hint = f"did you mean {close[0]!r}? " if close else ""
        raise SpecError(
            f"option {OPTION!r} is {shown(str(text))}; {hint}choices: {', '.join(NAMES)}"
        )
    if name not in WITH_ALPHA:
        if numbers:
            raise SpecError(f"option {OPTION!r} is {shown(str(text))}; {name} takes no number")
        return Activation(name)
    if not numbers:
        return Activation(name, WITH_ALPHA[name][1])
    try:
        alpha = float(" ".join(numbers))
    except ValueError:
        alpha = math.nan
    if not math.isfinite(alpha):
        raise SpecError(
            f"option {OPTION!r} is {shown(str(text))}; write one number behind {name}, "
            f"as in '{name} {WITH_ALPHA[name][1]:g}'"
        )
    return Activation(name, alpha)
