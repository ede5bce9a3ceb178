"""Which cells of the matrix must be refused, written by hand from the mathematics.

Each reason says which cells it holds for and what the message must tell. A cell that no reason
holds for must preserve.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from method_matrix import Cell


@dataclass(frozen=True)
class Reason:
    """Why the mathematics does not allow a step."""

    why: str
    holds: Callable[[Cell], bool]
    says: str


def chain(cell: Cell) -> bool:
    return cell.network.startswith("mlp") or cell.network == "convnet"


def branched(cell: Cell) -> bool:
    return cell.network in ("googlenet", "inception_v3")


REASONS = (
    Reason(
        "pairs U, U / V, -V add an even number of channels, and conv3 of the convnet has 5",
        lambda cell: (
            cell.verb == "widen"
            and cell.method == "r2wider"
            and cell.network == "convnet"
            and cell.place in ("flatten", "all")
        ),
        "adds pairs, so an even number",
    ),
    Reason(
        "a path of 4 channels beside a convolution of 4 groups leaves 1 in each: no pair",
        lambda cell: (
            cell.verb == "branch" and cell.method == "r2deeper" and cell.place == "grouped"
        ),
        "multiples of 8",
    ),
    Reason(
        "act(act(x)) = act(x) fails for tanh, Hardswish and sigmoid, so a second activation behind "
        "an identity (or, quietly, behind a random layer) changes the function",
        lambda cell: (
            cell.verb == "deepen"
            and cell.method in ("net2deeper", "random-pad")
            and cell.network in ("mlp tanh", "mlp hardswish", "mlp sigmoid")
        ),
        "is not idempotent",
    ),
    Reason(
        "sigmoid(0) = 1/2, so that a unit of zeros is not zero behind it, and columns that read it "
        "at random add a constant",
        lambda cell: cell.method == "netmorph zero: in" and cell.network == "mlp sigmoid",
        "makes something else of zero",
    ),
    Reason(
        "x + xL - xR needs a shortcut: a volume that no identity adds to anything has none",
        lambda cell: (
            cell.method == "fold"
            and (chain(cell) or branched(cell) or cell.place in ("inner", "grouped"))
        ),
        "residual",
    ),
    Reason(
        "a dense layer has no kernel",
        lambda cell: cell.verb == "kernel" and cell.network.startswith("mlp"),
        "has no kernel",
    ),
    Reason(
        "a branch is appended to a concatenation, and these networks have none",
        lambda cell: cell.verb == "branch at: concat" and not branched(cell),
        "concatenation",
    ),
    Reason(
        "a block adds a branch to what it was given, and these networks have no such blocks",
        lambda cell: cell.verb == "deepen stage" and (chain(cell) or branched(cell)),
        "no stages",
    ),
)


def expected(cell: Cell) -> Reason | None:
    """The reason for which a cell must be refused; None for one that must preserve."""
    return next((reason for reason in REASONS if reason.holds(cell)), None)
