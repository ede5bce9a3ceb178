"""What a convnet's keys do not hold: strides, padding, pooling, its head, the size of its input.

Each comes from the first of these that says it: the spec; torchvision's class, where the keys are
those of one; the indices of an ``nn.Sequential`` (a module left behind an activation is a pool);
a default. By default kernels keep the map's size and have stride 1, and pools are 2 x 2 maxima.
Where indices do not show whether a convolution has a pool, all such convolutions get one, or as
many of the first of them as the input's size allows.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import isqrt
from typing import Any

from ckgrow.architecture import Assumption, Source
from ckgrow.errors import SpecError
from ckgrow.names import shown

from ._chain import Chain, Step
from ._convnet_torchvision import Convention
from ._options import Options
from ._window import (
    HALVING,
    Pair,
    Pool,
    Window,
    per_conv,
    smallest_input,
    stated_pools,
    through,
)

DEFAULT_SIDE = 32  # of an input behind which any map is averaged to one position
Pools = Mapping[str, Pool]


@dataclass(frozen=True)
class Layout:
    """Everything beside keys and shapes.

    ``average`` is 0 for a plain flatten, else the side of the map that an adaptive average leaves;
    ``input`` is (channels, height, width).
    """

    strides: Mapping[str, Pair]
    paddings: Mapping[str, Pair]
    pools: Pools
    average: int
    input: tuple[int, int, int]


@dataclass(frozen=True)
class _Fit:
    pools: Pools
    average: int
    sizes: Pair


class _Question:
    """What has to fit: the stated size and head, and the map that the first Linear reads."""

    def __init__(self, chain: Chain, options: Options, convention: Convention | None) -> None:
        convs = {step.layer.name: step.layer.shape[2:] for step in chain.convs}
        same = {name: (height // 2, width // 2) for name, (height, width) in convs.items()}
        ones = dict.fromkeys(convs, (1, 1))
        self.strides = per_conv(
            options, "stride", ones | dict(convention.strides if convention else {})
        )
        self.paddings = per_conv(
            options, "padding", same | dict(convention.paddings if convention else {})
        )
        self.kernels = convs
        self.linear = chain.linears[0].layer
        self.channels = chain.convs[-1].layer.outputs
        self.positions = self.linear.inputs // self.channels
        self.last = chain.convs[-1]
        self.head = _head(options, convention)
        self.sizes = _sizes(options, chain, convention)

    def windows(self, pools: Pools) -> list[Window]:
        """All windows in order."""
        windows = []
        for name, (height, width) in self.kernels.items():
            windows.append(Window((height, width), self.strides[name], self.paddings[name]))
            if name in pools:
                windows.append(pools[name].window)
        return windows

    def fit(self, pools: Pools) -> _Fit | None:
        """Head and input with which ``pools`` leave what the first Linear reads."""
        windows = self.windows(pools)
        average = self.head
        if self.sizes is not None:
            left = through(windows, self.sizes)
            if left is None:
                return None
            if average is None:
                average = 1 if self.positions == 1 and left != (1, 1) else 0
            wanted = average**2 if average else left[0] * left[1]
            fits = wanted == self.positions and self._has_room(pools, average)
            return _Fit(pools, average, self.sizes) if fits else None
        if average is None:
            average = 1 if self.positions == 1 else 0
        side = isqrt(self.positions)
        found = smallest_input(windows, (average or side, average or side))
        if found is None or side**2 != self.positions or average not in (0, side):
            return None
        if average:
            found = max(found[0], DEFAULT_SIDE), max(found[1], DEFAULT_SIDE)
        return _Fit(pools, average, found) if self._has_room(pools, average) else None

    def _has_room(self, pools: Pools, average: int) -> bool:
        """Whether pool and average behind the last convolution have indices before the flatten."""
        needed = (self.last.layer.name in pools) + (average > 0)
        return not self.last.counted or needed <= max(len(self.last.rest) - 1, 0)

    def problem(self, pools: Pools) -> str:
        """Why nothing fits, and what to state."""
        linear, first = shown(self.linear.name), shown(next(iter(self.kernels)))
        reads = (
            f"{linear} reads {self.linear.inputs} features, {self.positions} for each of "
            f"{self.channels} channels"
        )
        if self.sizes is None:
            found = "no square input leaves so many"
        else:
            left = through(self.windows(pools), self.sizes)
            found = f"an input of {self.sizes[0]} x {self.sizes[1]} leaves " + (
                f"{left[0]} x {left[1]} positions" if left else "nothing"
            )
            found += f" with {described(pools)}" if pools else " without pools"
        return (
            f"{reads}, but {found}; state the option pool (as in pool: {{{first}: max 2}}), "
            "padding, stride, head or input: [channels, height, width]"
        )


def layout(
    chain: Chain, options: Options, convention: Convention | None
) -> tuple[Layout, tuple[Assumption, ...]]:
    """The layout, and a fact with its source for each part. Raises SpecError when none fits."""
    question = _Question(chain, options, convention)
    stated = stated_pools(options, list(question.kernels))
    if stated is not None:
        candidates = [stated]
    else:
        candidates = [convention.pools] if convention else list(_candidates(chain))
    fit = next(filter(None, map(question.fit, candidates)), None)
    if fit is None:
        raise SpecError(question.problem(candidates[-1]))
    channels = _channels(options, chain)
    found = Layout(
        question.strides, question.paddings, fit.pools, fit.average, (channels, *fit.sizes)
    )
    return found, _facts(chain, options, convention, found)


def described(pools: Pools) -> str:
    """Pools as a spec states them."""
    return ", ".join(f"{shown(name)}: {pool}" for name, pool in pools.items())


def _candidates(chain: Chain) -> Iterator[Pools]:
    """Placements of 2 x 2 pools, the likeliest first (see the module's docstring)."""
    open_ones = [step.layer.name for step in chain.convs if _is_open(step, chain)]
    seen = {step.layer.name for step in chain.convs if step.layer.name not in open_ones}
    placed = {step.layer.name for step in chain.convs if step.layer.name in seen and step.rest}
    placed.discard(chain.convs[-1].layer.name)
    for count in range(len(open_ones), -1, -1):
        pooled = placed | set(open_ones[:count])
        yield {step.layer.name: HALVING for step in chain.convs if step.layer.name in pooled}


def _is_open(step: Step, chain: Chain) -> bool:
    """Whether indices leave it open that a pool follows; behind the last one a flatten does."""
    return not step.counted or (step is chain.convs[-1] and len(step.rest) > 1)


def _head(options: Options, convention: Convention | None) -> int | None:
    """The side of the averaged map, 0 for a plain flatten, None when nothing says it."""
    stated = options.value("head")
    if stated is None:
        return convention.average if convention else None
    words = str(stated).split()
    if words in (["flatten"], ["global-average"]):
        return 0 if words == ["flatten"] else 1
    if len(words) == 2 and words[0] == "average" and words[1].isdecimal() and len(words[1]) < 5:
        side = int(words[1])
        if side:
            return side
    raise SpecError(
        f"option 'head' is {shown(str(stated))}; write flatten, global-average or 'average 7' "
        "(an adaptive average that leaves 7 x 7)"
    )


def _sizes(options: Options, chain: Chain, convention: Convention | None) -> Pair | None:
    if options.value("input") is not None:
        return options.image("input", _channels(options, chain), 0)[1:]
    return (convention.side, convention.side) if convention else None


def _channels(options: Options, chain: Chain) -> int:
    """Channels of the input: as stated where the first convolution may be grouped."""
    first = chain.convs[0].layer
    stated: Any = options.value("input")
    whole = isinstance(stated, list | tuple) and stated and isinstance(stated[0], int)
    return int(stated[0]) if whole and first.reads(stated[0]) else first.inputs


def _facts(
    chain: Chain, options: Options, convention: Convention | None, found: Layout
) -> tuple[Assumption, ...]:
    otherwise: Source = "architecture" if convention else "default"
    pools = described(found.pools) or "none"
    seen = not found.pools and not any(_is_open(step, chain) for step in chain.convs)
    head = "flatten" if not found.average else f"average {found.average} x {found.average}, flatten"
    # a stated input that leaves just what the first Linear reads rules an average out
    read = not found.average and options.value("input") is not None
    return (
        Assumption("input", str(list(found.input)), options.source("input", otherwise)),
        Assumption("stride", _each(found.strides), options.source("stride", otherwise)),
        Assumption("padding", _each(found.paddings), options.source("padding", otherwise)),
        Assumption("pool", pools, options.source("pool", "checkpoint" if seen else otherwise)),
        Assumption("head", head, options.source("head", "checkpoint" if read else otherwise)),
    )


def _each(pairs: Mapping[str, Pair]) -> str:
    texts = {
        name: str(height) if height == width else f"{height} x {width}"
        for name, (height, width) in pairs.items()
    }
    if len(set(texts.values())) == 1:
        return next(iter(texts.values()))
    return ", ".join(f"{shown(name)}: {text}" for name, text in texts.items())
