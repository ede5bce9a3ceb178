"""A checkpoint in parts, made by many processes: every part is a task of its own."""

from ckgrow.spreading.spread import Spread

__all__ = ["Spread"]
