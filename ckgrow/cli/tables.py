"""A console that prints no control characters of others, and tables on it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from ckgrow.cli.shared import ignore_stdout, printable

_WIDE = 160
"""Columns of a table that is written to a file or a pipe."""


class _Console(Console):
    """Prints no control characters of others; a reader that has gone does not stop the work."""

    def print(self, *texts: Any, **settings: Any) -> None:
        """Texts come out as they are, but for control characters; tables have escaped cells."""
        super().print(*(printable(t) if isinstance(t, str) else t for t in texts), **settings)

    def on_broken_pipe(self) -> None:
        """Rich would end the process here, a run that is to write a file included."""
        ignore_stdout()


def console() -> Console:
    """Stdout without markup or colours that the texts did not ask for."""
    terminal = _Console(highlight=False, markup=False, soft_wrap=True)
    if terminal.is_terminal:
        return terminal
    return _Console(highlight=False, markup=False, width=_WIDE)


def show_assumptions(out: Console, assumptions: Iterable[object]) -> None:
    """What is assumed, and on whose word."""
    rows = [tuple(str(value) for value in vars(assumption).values()) for assumption in assumptions]
    if rows:
        table(out, ("assumed", "value", "source"), rows)


def table(out: Console, heads: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Rows under heads, cells as they are."""
    made = Table(box=None, pad_edge=False, header_style="dim")
    for head in heads:
        made.add_column(head, overflow="fold")
    for row in rows:
        made.add_row(*(Text(printable(cell)) for cell in row))
    out.print(made)
