"""What each verb of a spec does, one file each; a new one is entered in :data:`VERBS`.

A verb takes the draft of the network so far and makes the next one, with a report of what it did.
It works from names and shapes alone, and raises SpecError where the step cannot be done.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ckgrow.drafts.draft import Draft
from ckgrow.loading import Loaded
from ckgrow.planning.report import StepReport
from ckgrow.planning.verbs.branch import branch_step
from ckgrow.planning.verbs.deepen import deepen_step
from ckgrow.planning.verbs.interface import classes_step, inputs_step
from ckgrow.planning.verbs.kernel import kernel_step
from ckgrow.planning.verbs.target import target_step
from ckgrow.planning.verbs.widen import widen_step
from ckgrow.random import Draw

Verb = Callable[[Draft, Any, Draw, Loaded], tuple[Draft, StepReport]]

VERBS: Mapping[str, Verb] = {
    "widen": widen_step,
    "deepen": deepen_step,
    "kernel": kernel_step,
    "branch": branch_step,
    "inputs": inputs_step,
    "classes": classes_step,
    "target": target_step,
}

__all__ = ["VERBS", "Verb"]
