"""Every key of a step must have an effect: those that its method does not read are refused."""

from __future__ import annotations

from collections.abc import Iterable

from ckgrow.errors import SpecError
from ckgrow.methods import methods
from ckgrow.methods.method import Method
from ckgrow.names import quoted
from ckgrow.spec import Step


def refuse_unread(step: Step, common: Iterable[str], method: Method) -> None:
    """SpecError for a key that neither the verb (``common``) nor the method reads."""
    known = {*common, *method.options}
    for key in type(step).model_fields:  # in the order of the documentation
        if step.states(key) and key not in known:
            kin = (each for each in methods() if each.verb.startswith(step.verb))
            readers = dict.fromkeys(each.name for each in kin if key in each.options)
            meant = f", which is for {', '.join(readers)}" if readers else ""
            own = ", ".join(sorted(method.options))
            keys = f"its own keys are {own}" if own else "it has no keys of its own"
            raise SpecError(
                f"{step.where}: {method.name} does not read {quoted(key)}{meant}; {keys}"
            )
