"""Tables, of cells and of any document: dataclasses become rows, their fields the columns."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ckgrow.names import shown
from ckgrow.reports.page.figures import number
from ckgrow.reports.page.markup import Markup, tag, text


def table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> Markup:
    """A table that scrolls inside its own box where the page is too narrow for it."""
    head = tag("tr", *(tag("th", each, scope="col") for each in heads))
    body = (tag("tr", *(tag("td", cell) for cell in row)) for row in rows)
    whole = tag("table", tag("thead", head), tag("tbody", *body))
    return tag("div", whole, class_="scroll", tabindex="0")


def pairs(rows: Iterable[tuple[str, str]]) -> Markup:
    """Terms and what they are."""
    return tag("dl", *(tag("div", tag("dt", term), tag("dd", said)) for term, said in rows))


def folded(summary: str, *content: str) -> Markup:
    """What is shown when it is asked for."""
    return tag("details", tag("summary", summary), *content)


def rows_table(rows: Sequence[Any]) -> Markup:
    """Dataclasses of one kind as a table, a column per field."""
    heads = [each.name for each in dataclasses.fields(rows[0])]
    return table(
        [_words(head) for head in heads],
        ([anything(getattr(row, head)) for head in heads] for row in rows),
    )


def anything(value: Any) -> Markup:
    """Any part of a document: numbers, names, lists, dataclasses."""
    if value is None:
        return text("–")
    if isinstance(value, bool):
        return text("yes" if value else "no")
    if isinstance(value, int | float):
        return number(value)
    if isinstance(value, str):
        return text(value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = (each.name for each in dataclasses.fields(value))
        return pairs((_words(each), anything(getattr(value, each))) for each in fields)
    if isinstance(value, Mapping):
        return pairs((shown(str(key)), anything(each)) for key, each in value.items())
    values = list(value)
    if values and all(dataclasses.is_dataclass(each) for each in values):
        return rows_table(values)
    return tag("span", *_between([anything(each) for each in values])) if values else text("none")


def _between(parts: Sequence[str]) -> Iterable[str]:
    for index, part in enumerate(parts):
        yield ", " if index else ""
        yield part


def _words(field: str) -> str:
    return field.replace("_", " ")
