"""From a teacher and a spec to a plan: everything decided before a tensor is read."""

from ckgrow.planning.plan import Plan, make_plan
from ckgrow.planning.report import StepReport

__all__ = ["Plan", "StepReport", "make_plan"]
