"""Steps must not rest on what was merely guessed of the teacher."""

from __future__ import annotations

from ckgrow.errors import SpecError
from ckgrow.loading import Loaded

EVERY_STEP_RESTS_ON = ("order", "BatchNorm of each layer")
"""Facts without which it is not even known what reads what."""


def refuse_defaults(facts: tuple[str, ...], teacher: Loaded, method: str, where: str) -> None:
    """A step must not rest on what was merely guessed."""
    for assumption in teacher.network.assumptions:
        rests = assumption.fact in (*EVERY_STEP_RESTS_ON, *facts)
        if rests and assumption.source == "default":
            raise SpecError(
                f"{where}: {method} is exact only if the {assumption.fact} is "
                f"{assumption.value}, which is a guess; state what is true in the spec, under "
                f"'teacher: options:' (for instance 'options: {{{assumption.fact}: ...}}')"
            )
