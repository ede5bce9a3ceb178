"""``groups: N``: which grouped convolutions have to be taken by whole groups together.

A convolution that gets more groups reads more channels, in units of a group's. Another grouped
convolution of the same channels has to see the same units: if it grew inside each of its groups
instead, new channels would have to stand in all of them at once.
"""

from __future__ import annotations

from dataclasses import replace

from ckgrow.drafts.draft import Draft
from ckgrow.graph import Node
from ckgrow.planning.targets import match_names
from ckgrow.spec import WidenStep


def taken_by_groups(draft: Draft, step: WidenStep) -> Draft:
    """The draft whose grouping takes the convolutions that ``step`` names by whole groups.

    So it does all that share channels with one of them, at either end.
    """
    names = match_names(step.widen, draft.grouping.layers, step.where, "layer")
    grouped = {
        node.name: _groups_around(draft, node)
        for node in draft.graph.nodes
        if node.op == "Conv" and node.get("group", 1) > 1
        if draft.shapes[node.inputs[1]][1] != 1
    }
    taken = {name for name in names if name in grouped}
    reached = {group for name in taken for group in grouped[name]}
    waiting = dict(grouped)
    while near := [name for name, groups in waiting.items() if groups & reached]:
        taken.update(near)
        for name in near:
            reached |= waiting.pop(name)
    return replace(draft, by_groups=frozenset(taken))


def _groups_around(draft: Draft, node: Node) -> set[str]:
    """The groups of the channels that a node reads and makes."""
    grouping = draft.grouping
    return {
        group.name
        for group in grouping.groups.values()
        if grouping.holds(node.inputs[0], group) or grouping.holds(node.output, group)
    }
