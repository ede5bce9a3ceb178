"""Tensors that are one parameter in the teacher stay one in the student.

The coupling has them grow together (``ckgrow.coupling``): their channels are the same, and follow
the same maps. What is left apart is what was drawn for each of them; any of these draws is sound
for all, so the first one's tensor is taken.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ckgrow.drafts.draft import Draft
from ckgrow.errors import SpecError
from ckgrow.names import shown
from ckgrow.random import Stream
from ckgrow.recipes import Recipe, Statistic, Stored


def tied(draft: Draft) -> Draft:
    """The draft in which tied tensors are made alike.

    Raises SpecError, naming them, where the steps make different tensors of them.
    """
    alike = _Alike({name: first for first, *others in draft.ties for name in others})
    recipes = dict(draft.recipes)
    for first, *others in draft.current_ties:
        for name in others:
            if not alike.are(recipes[first], recipes[name]):
                raise SpecError(
                    f"{shown(first)} and {shown(name)} are one tensor in the teacher and would "
                    "become two; grow their layers together, or untie them (save the teacher with "
                    "a clone() of one)"
                )
            recipes[name] = recipes[first]
    return replace(draft, recipes=recipes) if draft.ties else draft


@dataclass(frozen=True)
class _Alike:
    """Compares recipes; ``same`` leads from each tied tensor of the teacher to the first one."""

    same: Mapping[str, str]

    def are(self, left: Any, right: Any) -> bool:
        """Whether two recipes are built alike, up to random streams and which of tied tensors."""
        if left is right or (isinstance(left, Stream) and isinstance(right, Stream)):
            return True
        if type(left) is not type(right):
            return False
        if isinstance(left, Stored):
            return self.same.get(left.name, left.name) == self.same.get(right.name, right.name)
        if isinstance(left, np.ndarray):
            return np.array_equal(left, right)
        if isinstance(left, str | bytes):
            return bool(left == right)
        if isinstance(left, Sequence):
            return len(left) == len(right) and all(map(self.are, left, right))
        if isinstance(left, Recipe | Statistic) or dataclasses.is_dataclass(left):
            return all(self.are(*pair) for pair in _fields(left, right))
        return bool(left == right)


def _fields(left: Any, right: Any) -> Iterator[tuple[Any, Any]]:
    """Pairs of what two of a kind are made of; what a statistic is called says nothing."""
    for each in dataclasses.fields(left):
        if not (isinstance(left, Statistic) and each.name == "label"):
            yield getattr(left, each.name), getattr(right, each.name)
