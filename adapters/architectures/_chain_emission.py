"""What the emission of every chain has in common: a BatchNorm and an activation behind a layer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from ckgrow.architecture import Assumption, Option, Source
from ckgrow.building import Builder
from ckgrow.errors import SpecError
from ckgrow.header import Header
from ckgrow.names import nearest, shown
from ckgrow.naming import in_grown

from ._activation import Activation
from ._chain import Chain, Step
from ._chain_modules import Layer, Norm
from ._chain_order import Ordering
from ._options import Options

EPSILON = Option("epsilon", 1e-5, "epsilon of BatchNorm")
NORM = Option(
    "normalization",
    "before",
    "where a BatchNorm stands: before or after its layer's activation",
    ("before", "after"),
)
OUTPUT = "logits"
ORDER = Option("order", None, "the names of all layers in the order of the forward pass")


@dataclass(frozen=True)
class Tail:
    """How a layer goes on."""

    activations: Mapping[str, Activation]
    norm_first: bool
    epsilon: float

    def emit(self, builder: Builder, step: Step, x: str) -> str:
        """The value behind the layer's BatchNorm and activation, where it has them."""
        activation = self.activations.get(step.layer.name)
        if step.norm is None:
            return x if activation is None else self._activate(builder, step, activation, x)
        if activation is None:
            return builder.batch_norm(step.norm.name, x, epsilon=self.epsilon)
        if self.norm_first and not step.between:
            x = builder.batch_norm(step.norm.name, x, epsilon=self.epsilon)
            return self._activate(builder, step, activation, x)
        x = self._activate(builder, step, activation, x)
        return builder.batch_norm(step.norm.name, x, epsilon=self.epsilon)

    def _activate(self, builder: Builder, step: Step, activation: Activation, x: str) -> str:
        path = step.path(step.between or step.after, activation.name)
        return activation.emit(builder, path, x)


def emit_linears(
    builder: Builder, steps: Sequence[Step], tail: Tail, x: str, *, dropout: bool = False
) -> str:
    """The output behind a run of Linear layers.

    ``dropout`` says that modules without keys behind an activation are Dropout.
    """
    last = steps[-1]
    for step in steps[:-1]:
        x = tail.emit(builder, step, builder.linear(step.layer.name, x))
        for path in step.rest if dropout and step.counted else ():
            x = builder.node("Dropout", path, [x])
    if last.norm is None:
        return builder.linear(last.layer.name, x, output=OUTPUT)
    x = tail.emit(builder, last, builder.linear(last.layer.name, x))
    return builder.node("Identity", f"{last.norm.name}/{OUTPUT}", [x], output=OUTPUT)


def norm_assumptions(
    options: Options, chain: Chain, otherwise: Source = "default"
) -> tuple[Assumption, ...]:
    """Facts about BatchNorms: whose they are, where they stand, their epsilon.

    ``otherwise`` is where the last two are known from when neither spec nor indices tell.
    """
    steps = [step for step in chain.steps if step.norm is not None]
    if not steps and chain.first is None:
        return ()
    facts = [
        Assumption(
            "epsilon", f"{options.positive('epsilon'):g}", options.source("epsilon", otherwise)
        )
    ]
    if steps:
        facts.append(Assumption("BatchNorm of each layer", _owners(steps), chain.norms_known))
    inner = [step for step in steps if step is not chain.steps[-1] and step.activated]
    if inner:
        facts.append(_placement(options, inner, otherwise))
    return tuple(facts)


def _placement(options: Options, steps: Sequence[Step], otherwise: Source) -> Assumption:
    seen = all(step.between or (step.counted and step.after) for step in steps)
    stands = {bool(step.between) or options.value(NORM.name) == "after" for step in steps}
    where = {True: "after", False: "before"}
    value = " and ".join(f"{where[after]} the activation" for after in sorted(stands))
    source = "checkpoint" if seen else options.source(NORM.name, otherwise)
    return Assumption(NORM.name, value, source)


def _owners(steps: Sequence[Step]) -> str:
    return ", ".join(
        f"{shown(step.layer.name)}: {shown(step.norm.name)}" for step in steps if step.norm
    )


def stated_order(options: Options, found: Sequence[Layer]) -> Ordering | None:
    """The order that a spec states; None when it states none.

    Raises SpecError when it is not a list of exactly the layers there are.
    """
    names = options.value(ORDER.name)
    if names is None:
        return None
    by_name = {layer.name: layer for layer in found}
    if not isinstance(names, list | tuple):
        raise SpecError(f"option {ORDER.name!r} must be a list of layer names")
    names = [str(name) for name in names]  # the 0 of an nn.Sequential is a number in YAML
    for name in names:
        if name not in by_name:
            close = nearest(name, by_name, 1) or list(by_name)[:1]
            raise SpecError(
                f"option {ORDER.name!r} names {shown(name)}, which is no layer; "
                f"the nearest is {shown(close[0])}"
            )
    left = [name for name in by_name if name not in names]
    if left or len(set(names)) != len(names):
        problem = f"leaves out {shown(left[0])}" if left else "names a layer twice"
        raise SpecError(f"option {ORDER.name!r} {problem}; it must list every layer once")
    layers = tuple(by_name[name] for name in names)
    for before, after in pairwise(layers):
        if before.is_conv == after.is_conv and not after.reads(before.passed):
            raise SpecError(
                f"option {ORDER.name!r} puts {shown(after.name)} behind {shown(before.name)}, "
                f"but it reads {after.inputs} channels and {before.passed} arrive"
            )
    return Ordering(layers, "spec")


def order_problem(layers: Sequence[Layer]) -> str:
    """Why no order of ``layers`` is a chain, in one sentence."""
    shown_few = [f"{shown(layer.name)} {layer.inputs} to {layer.passed}" for layer in layers[:6]]
    more = ", ..." if len(layers) > 6 else ""
    return (
        f"in no order does each of the {len(layers)} layers read what the one before it makes "
        f"({', '.join(shown_few)}{more})"
    )


def loose_norms(norms: Sequence[Norm]) -> list[str]:
    """A sentence for each BatchNorm that has no layer."""
    return [
        f"{shown(norm.name)} has {norm.channels} channels and fits behind no layer"
        for norm in norms
    ]


def grown(header: Header) -> bool:
    """Whether ckgrow has inserted layers under names of its own."""
    return any(map(in_grown, header))
