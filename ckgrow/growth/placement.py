"""Where new channels stand among the teacher's: behind them, around them, or between them."""

from __future__ import annotations

from typing import Literal

import numpy as np

from ckgrow.maps import ChannelMap

Placement = Literal["end", "center", "interleave"]


def placed(grown: ChannelMap, placement: Placement) -> ChannelMap:
    """``grown``, the identity followed by new channels, with those put in their places.

    ``center`` puts the first half of the new channels in front of the teacher's, ``interleave``
    each copy behind the channel that it copies, and other new channels at even distances.
    """
    if placement == "end":
        return grown
    return ChannelMap(grown.width, grown.sources[_order(grown, placement)])


def _order(grown: ChannelMap, placement: Literal["center", "interleave"]) -> np.ndarray:
    width, count = grown.width, len(grown)
    extra = count - width
    if placement == "center":
        places = np.arange(count)
        new, first = places[width:], extra // 2
        return np.concatenate([new[:first], places[:width], new[first:]])
    new = grown.sources[width:]
    behind = np.where(new >= 0, new, np.arange(extra) * width // max(extra, 1))
    return np.argsort(np.concatenate([np.arange(width), behind]), kind="stable")
