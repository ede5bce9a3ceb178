"""From a teacher and a spec to a plan: everything decided before a tensor is read."""

from ckgrow.planning.plan import Plan, StepReport, make_plan

__all__ = ["Plan", "StepReport", "make_plan"]
