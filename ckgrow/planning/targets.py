"""Which layers a step means, and how wide each group becomes.

A step's number is about a layer's whole output. The layer's own groups (``Grouping.own_groups``)
take what is new; groups it inherits from earlier layers keep what those were given. So widening
every stage of a ResNet with zero-padded shortcuts widens the early stage in the middle and the
edges around it, and each stage comes out as wide as asked.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fractions import Fraction

from ckgrow.drafts.renaming import is_inside
from ckgrow.errors import SpecError
from ckgrow.groups import Group, Grouping, Layer
from ckgrow.names import Pattern, first_few, nearest, shown
from ckgrow.spec import WidenStep

MOST_CHANNELS = 1 << 20
"""Of one layer: a slip of the pen in a spec should not fill the memory with maps."""


@dataclass(frozen=True)
class Widths:
    """New widths of groups by name, the layers that were meant, and those passed over."""

    targets: Mapping[str, int]
    matched: tuple[str, ...]
    skipped: Mapping[str, str]
    warnings: tuple[str, ...]


def match_names(patterns: Iterable[str], names: Iterable[str], where: str, what: str) -> list[str]:
    """Names that any pattern matches, in their order; SpecError for a pattern without a match."""
    known = list(names)
    found: set[str] = set()
    for text in patterns:
        pattern = Pattern(text)
        matches = [name for name in known if pattern.matches(name)]
        if not matches:
            inside = [name for name in known if is_inside(name, text)]
            near = first_few([shown(name) for name in inside or nearest(text, known) or known])
            hint = f"; its layers are {near}" if inside else f"; the nearest are {near}"
            raise SpecError(f"{where}: {shown(text)} matches no {what}{hint}")
        found.update(matches)
    return [name for name in known if name in found]


def new_widths(
    grouping: Grouping, step: WidenStep, names: Iterable[str], barred: Mapping[str, str]
) -> Widths:
    """The width of every group that ``step`` is about.

    ``names`` are the layers that its patterns match, ``barred`` says why some of them cannot grow.

    Raises SpecError for a layer named outright that cannot grow, for widths that are smaller or
    do not divide among convolution groups, and for two layers that want one group differently.
    """
    literal = {text for text in step.widen if Pattern(text).is_literal}
    layers: list[Layer] = []
    skipped: dict[str, str] = {}
    for name in names:
        layer = grouping.layers[name]
        held = [grouping.groups[own] for own in grouping.own_groups(layer)]
        reasons = [barred[name]] if name in barred else []
        reasons += [group.reason for group in held if group.reason is not None]
        if step.groups is not None and name not in grouping.coupled.by_groups:
            reasons = [_ungrouped(grouping, layer)]
        if not reasons:
            layers.append(layer)
        elif name in literal:
            raise SpecError(f"{step.where}: {name} cannot be widened: {reasons[0]}")
        else:
            skipped[name] = reasons[0]
    if not layers:
        said = "; ".join(f"{name}: {reason}" for name, reason in list(skipped.items())[:3])
        raise SpecError(f"{step.where}: nothing that the pattern matches can be widened ({said})")
    targets = _resolve(grouping, layers, step)
    same = [name for name, width in targets.items() if width == grouping.groups[name].width]
    warnings = tuple(f"{name} has {targets[name]} channels already: nothing to do" for name in same)
    grown = {name: width for name, width in targets.items() if name not in same}
    return Widths(grown, tuple(layer.name for layer in layers), skipped, warnings)


def _resolve(grouping: Grouping, layers: list[Layer], step: WidenStep) -> dict[str, int]:
    targets: dict[str, int] = {}
    wanted_by: dict[str, str] = {}
    for layer in sorted(layers, key=lambda each: len(each.groups)):
        total = _total(grouping, layer, step)
        own = [grouping.groups[name] for name in grouping.own_groups(layer)]
        inherited = sum(
            group.in_run(targets.get(name, group.width)) * _entries_of_one(layer, group)
            for name in layer.groups
            if (group := grouping.groups[name]) not in own
        )
        for group, width in _shared_out(total - inherited, own, layer, step).items():
            if targets.setdefault(group.name, width) != width:
                raise SpecError(
                    f"{step.where}: {layer.name} and {wanted_by[group.name]} share the channels "
                    f"of {group.name}, but want {width} and {targets[group.name]} of them; "
                    "give them one target"
                )
            wanted_by.setdefault(group.name, layer.name)
    return targets


def _ungrouped(grouping: Grouping, layer: Layer) -> str:
    """Why a layer cannot have more groups."""
    if layer.blocks == 1:
        return f"it is a {layer.op} without groups; say 'to', 'by' or 'factor'"
    followed = grouping.groups[layer.groups[0]].layers[0]
    return f"it has a group for each channel that it reads; widen {followed}, and it follows"


def _entries_of_one(layer: Layer, group: Group) -> int:
    """How many channels of a layer's output one unit in each run of a group makes."""
    return sum(part.inner for part in layer.axis if part.atom in group.atoms)


def _total(grouping: Grouping, layer: Layer, step: WidenStep) -> int:
    """The new width of a layer's whole output, in channels."""
    if step.factor is not None:
        total = sum(
            _half_up(grouping.coupled.counts[part.atom], step.factor) * part.inner
            for part in layer.axis
        )
    elif step.to is not None:
        total = step.to
    elif step.groups is not None:
        total = layer.width // layer.blocks * step.groups
    else:
        assert step.by is not None  # the spec has exactly one of the four
        total = layer.width + step.by
    if step.multiple_of:
        own = (grouping.groups[name] for name in grouping.own_groups(layer))
        unit = math.lcm(step.multiple_of, *(_entries_of_one(layer, group) for group in own))
        total = -(-total // unit) * unit
    if total < layer.width:
        has = f"{layer.width} channels" if step.groups is None else f"{layer.blocks} groups"
        wanted = total if step.groups is None else step.groups
        raise SpecError(
            f"{step.where}: {layer.name} has {has} and cannot shrink to {wanted}; ckgrow only grows"
        )
    if total > MOST_CHANNELS:
        raise SpecError(
            f"{step.where}: {layer.name} would have {total} channels; "
            f"ckgrow grows a layer to {MOST_CHANNELS} at most"
        )
    return total


def _half_up(count: int, factor: float) -> int:
    """count * factor rounded half up, without the rounding of a float product."""
    return math.floor(count * Fraction(repr(factor)) + Fraction(1, 2))


def _shared_out(total: int, own: list[Group], layer: Layer, step: WidenStep) -> dict[Group, int]:
    """``total`` channels among a layer's own groups, in proportion to their widths."""
    widths: dict[Group, int] = {}
    entries = {group: _entries_of_one(layer, group) for group in own}
    left = total
    weight = sum(group.in_run(group.width) * entries[group] for group in own)
    for group in own:
        run = group.in_run(group.width)
        grown = math.floor(Fraction(left * run, max(weight, 1)) + Fraction(1, 2))
        if group is own[-1]:
            grown, rest = divmod(left, entries[group])
            if rest:
                raise SpecError(_uneven(layer, total, entries[group], step))
        whole = grown * group.runs * group.unit
        if grown < run:
            raise SpecError(
                f"{step.where}: {layer.name} would leave {whole} of the "
                f"{group.width} channels of {group.name}; ckgrow only grows"
            )
        widths[group] = whole
        left -= grown * entries[group]
        weight -= run * entries[group]
    return widths


def _uneven(layer: Layer, total: int, step_size: int, step: WidenStep) -> str:
    what = "channels"
    if step.groups is not None:
        size = layer.width // layer.blocks
        what, total, step_size = "groups", total // size, step_size // size
    below = total // step_size * step_size
    together = max(part.inner for part in layer.axis)
    how = f"in {step_size} equal parts" if together == 1 else f"{step_size} {what} at a time"
    return (
        f"{step.where}: {layer.name} grows {how}, and {total} {what} do not "
        f"divide by {step_size}; the nearest that do are {below} and {below + step_size}"
    )
