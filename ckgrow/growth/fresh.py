"""What new channels start from: fresh rows of weights, and entries of per-channel tensors.

One vocabulary for every method (``ckgrow.drafts.filling``). All channels of one source get the
same values, since they are drawn once for each fresh unit.
"""

from __future__ import annotations

from ckgrow.drafts.filling import deviation, fresh_entries, fresh_weight
from ckgrow.growth.axis import Growing, GrownAxis
from ckgrow.maps import ChannelMap
from ckgrow.recipes import Drawn, Placed, Recipe


def fresh_rows(source: Recipe, axis: GrownAxis, at: Growing) -> Recipe | None:
    """Rows for the fresh units of ``axis``, by the step's ``fill``; None where they are zero."""
    if not axis.map.fresh_count or at.step.fill == "zeros":
        return None
    if at.step.fill == "copy":
        return modelled(source, axis, at.dim)
    spec = source.spec.resized(at.dim, axis.map.fresh_count)
    return fresh_weight(spec, at.stream("fresh"), source, at.tensor, at.step.fill, at.dim)


def fresh_columns(
    source: Recipe, maps: tuple[ChannelMap, ...], at: Growing, scale: float = 1.0
) -> Recipe | None:
    """Columns for fresh units, ``scale`` deviations large; None where there are none."""
    count = max(grown.fresh_count for grown in maps)
    if not count:
        return None
    spec = source.spec.resized(at.dim, count)
    return Drawn(spec, at.stream("columns"), deviation(source, at.tensor, "match-std"), scale)


def with_fresh_entries(source: Recipe, axis: GrownAxis, at: Growing) -> Recipe:
    """A tensor with one entry per channel: copies follow, new entries as the op's rule says."""
    grown = axis.map
    if grown.fresh_count and at.step.fill == "copy" and not grown.has_zeros:
        return Placed(source, at.dim, (grown,), modelled(source, axis, at.dim))
    if not grown.fresh_count and not grown.has_zeros:
        return Placed(source, at.dim, (grown,))
    everything_new = grown.with_zeros_as_fresh()
    spec = source.spec.resized(at.dim, everything_new.fresh_count)
    new = fresh_entries(spec, at.node, at.position, source, at.tensor)
    return Placed(source, at.dim, (everything_new,), new)


def modelled(source: Recipe, axis: GrownAxis, dim: int) -> Recipe:
    """For each fresh unit of ``axis`` the entry of the teacher's channel that it imitates."""
    return Placed(source, dim, (ChannelMap(axis.map.width, axis.fresh_models),))
