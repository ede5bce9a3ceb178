"""Sliding windows of a plain convolutional stack, and the words with which a spec states them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from ckgrow.errors import SpecError
from ckgrow.names import nearest, shown

from ._options import Options

Pair = tuple[int, int]

POOL = re.compile(r"(max|average) (\d{1,4})(?: stride (\d{1,4}))?(?: padding (\d{1,4}))?")
LARGEST = 4096  # a larger input, in pixels per side, is never inferred


@dataclass(frozen=True)
class Window:
    """A kernel with stride and padding, each (vertical, horizontal)."""

    kernel: Pair
    stride: Pair
    padding: Pair

    def over(self, sizes: Pair) -> Pair:
        """The size of the map it makes of one of ``sizes``; below 1 when nothing is left."""
        each = zip(sizes, self.kernel, self.stride, self.padding, strict=True)
        height, width = (
            (size + 2 * padding - kernel) // stride + 1 for size, kernel, stride, padding in each
        )
        return height, width

    def under(self, sizes: Pair) -> Pair:
        """The smallest map of which it makes one of ``sizes``."""
        each = zip(sizes, self.kernel, self.stride, self.padding, strict=True)
        height, width = (
            max((size - 1) * stride + kernel - 2 * padding, 1)
            for size, kernel, stride, padding in each
        )
        return height, width


@dataclass(frozen=True)
class Pool:
    """A square pooling window: ``max 2``, ``average 3 stride 2 padding 1``."""

    kind: Literal["max", "average"]
    kernel: int
    stride: int
    padding: int = 0

    def __str__(self) -> str:
        stride = f" stride {self.stride}" if self.stride != self.kernel else ""
        padding = f" padding {self.padding}" if self.padding else ""
        return f"{self.kind} {self.kernel}{stride}{padding}"

    @property
    def window(self) -> Window:
        """The window in both directions."""
        kernel, stride, padding = self.kernel, self.stride, self.padding
        return Window((kernel, kernel), (stride, stride), (padding, padding))


HALVING = Pool("max", 2, 2)


def through(windows: Sequence[Window], sizes: Pair) -> Pair | None:
    """The map behind all windows; None when nothing is left on the way."""
    for window in windows:
        sizes = window.over(sizes)
        if min(sizes) < 1:
            return None
    return sizes


def smallest_input(windows: Sequence[Window], sizes: Pair) -> Pair | None:
    """The smallest map that leaves ``sizes`` behind all windows; None when there is none."""
    wanted = sizes
    for window in reversed(windows):
        sizes = window.under(sizes)
        if max(sizes) > LARGEST:
            return None
    return sizes if through(windows, sizes) == wanted else None


def stated_pools(options: Options, convs: Sequence[str]) -> Mapping[str, Pool] | None:
    """The option ``pool`` as pools by convolution; None when it is not stated."""
    stated = options.value("pool")
    if stated is None:
        return None
    if not isinstance(stated, Mapping):
        raise SpecError(
            f"option 'pool' is {shown(str(stated))}; write a mapping from the convolutions with "
            f"pooling behind them, as in {{{shown(convs[0])}: max 2}}, or {{}} for none"
        )
    return {_conv("pool", name, convs): _pool(text) for name, text in stated.items()}


def per_conv(options: Options, name: str, convs: Mapping[str, Pair]) -> Mapping[str, Pair]:
    """The option ``stride`` or ``padding`` for each convolution; ``convs`` holds the defaults.

    It is a whole number or [vertical, horizontal] for all, or a mapping from some of them to that.
    """
    stated = options.value(name)
    if stated is None or stated == "same":
        return convs
    least = 1 if name == "stride" else 0
    if not isinstance(stated, Mapping):
        return dict.fromkeys(convs, _pair(name, stated, least))
    return {
        **convs,
        **{_conv(name, conv, convs): _pair(name, value, least) for conv, value in stated.items()},
    }


def _conv(option: str, name: Any, convs: Sequence[str] | Mapping[str, Any]) -> str:
    conv = str(name)  # the 0 of an nn.Sequential is a number in YAML
    if conv in convs:
        return conv
    close = nearest(conv, convs, 1) or list(convs)[:1]
    raise SpecError(
        f"option {option!r} names {shown(conv)}, which is no convolution of the checkpoint; "
        f"the nearest is {shown(close[0])}"
    )


def _pool(text: Any) -> Pool:
    words = POOL.fullmatch(" ".join(str(text).split()))
    kernel = int(words[2]) if words else 0
    stride = int(words[3] or kernel) if words else 0
    padding = int(words[4] or 0) if words else 0
    if words is None or not kernel or not stride or 2 * padding > kernel:
        raise SpecError(
            f"option 'pool' says {shown(str(text))}; write 'max 2', 'average 2' or "
            "'max 3 stride 2 padding 1' (the stride is the kernel unless stated, the padding at "
            "most half of it)"
        )
    return Pool("max" if words[1] == "max" else "average", kernel, stride, padding)


def _pair(option: str, value: Any, least: int) -> Pair:
    sides = list(value) if isinstance(value, list | tuple) else [value, value]
    whole = all(isinstance(side, int) and not isinstance(side, bool) for side in sides)
    if len(sides) != 2 or not whole or not all(least <= side <= LARGEST for side in sides):
        raise SpecError(
            f"option {option!r} says {shown(str(value))}; write a whole number from {least} on, or "
            "two of them: [vertical, horizontal]"
        )
    return int(sides[0]), int(sides[1])
