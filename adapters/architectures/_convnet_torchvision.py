"""VGG and AlexNet as torchvision lays them out, recognised by names and kernels, not by widths.

Very Deep Convolutional Networks (Simonyan and Zisserman, 2014), table 1; One weird trick for
parallelizing convolutional neural networks (Krizhevsky, 2014). Widths are read only to tell which
of torchvision's constructors a checkpoint belongs to.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ._chain import Chain, Step, split
from ._window import HALVING, Pair, Pool

# Channels of each convolution, a dash for a max-pool.
VGG = {
    "vgg11": "64 - 128 - 256 256 - 512 512 - 512 512 -",
    "vgg13": "64 64 - 128 128 - 256 256 - 512 512 - 512 512 -",
    "vgg16": "64 64 - 128 128 - 256 256 256 - 512 512 512 - 512 512 512 -",
    "vgg19": "64 64 - 128 128 - 256 256 256 256 - 512 512 512 512 - 512 512 512 512 -",
}
ALEXNET = "64 - 192 - 384 256 256 -"
HIDDEN = 4096


@dataclass(frozen=True)
class Convention:
    """What torchvision's class adds to the keys.

    ``average`` is the side of the map that its adaptive pooling leaves. Modules of the classifier
    without keys and without another role are Dropout.
    """

    name: str
    pools: Mapping[str, Pool]
    strides: Mapping[str, Pair]
    paddings: Mapping[str, Pair]
    average: int
    side: int = 224


def convention(chain: Chain) -> Convention | None:
    """VGG's or AlexNet's convention; None for any other network."""
    kernels = [step.layer.shape[2:] for step in chain.convs]
    if not _named(chain) or not chain.linears:
        return None
    first = split(chain.linears[0].layer.name)[1]
    positions = chain.linears[0].layer.inputs / chain.convs[-1].layer.outputs
    if set(kernels) == {(3, 3)} and first == 0 and positions == 49:
        return Convention("vgg", _pools(chain, HALVING), {}, {}, 7)
    if kernels[0] == (11, 11) and first == 1 and positions == 36:
        stem = chain.convs[0].layer.name
        pools = _pools(chain, Pool("max", 3, 2))
        return Convention("alexnet", pools, {stem: (4, 4)}, {stem: (2, 2)}, 6)
    return None


def constructor(chain: Chain) -> str | None:
    """The constructor whose model has exactly these layers, whatever the number of classes."""
    found = convention(chain)
    if found is None:
        return None
    rows = [step.layer.outputs for step in chain.linears]
    places = [split(step.layer.name)[1] for step in chain.linears]
    if rows[:-1] != [HIDDEN, HIDDEN]:
        return None
    layout = _layout(chain, found)
    if found.name == "alexnet":
        plain = layout == ALEXNET and places == [1, 4, 6] and not _norms(chain)
        return "alexnet" if plain else None
    if places != [0, 3, 6]:
        return None
    suffix = "_bn" if _norms(chain) else ""
    return next((f"{name}{suffix}" for name, stock in VGG.items() if layout == stock), None)


def _named(chain: Chain) -> bool:
    """Whether all keys are ``features.N`` and ``classifier.N`` in torchvision's pattern."""
    convs = chain.convs
    names = [split(step.layer.name) for step in chain.steps]
    homes = [home for home, index in names if index is not None]
    expected = ["features"] * len(convs) + ["classifier"] * len(chain.linears)
    normalised = {step.norm is not None and not step.between for step in convs}
    return (
        homes == expected
        and names[0][1] == 0
        and len(normalised) == 1
        and not any(step.norm for step in chain.linears)
        and all(len(step.rest) <= 1 for step in convs if step.counted)
        and not any(step.between for step in convs)
    )


def _pools(chain: Chain, pool: Pool) -> Mapping[str, Pool]:
    """One where an index is left behind the activation, and one behind the last convolution."""
    return {step.layer.name: pool for step in chain.convs if step.rest or not step.counted}


def _layout(chain: Chain, found: Convention) -> str:
    def described(step: Step) -> str:
        return f"{step.layer.outputs}{' -' if step.layer.name in found.pools else ''}"

    return " ".join(described(step) for step in chain.convs)


def _norms(chain: Chain) -> bool:
    return any(step.norm is not None for step in chain.steps)
