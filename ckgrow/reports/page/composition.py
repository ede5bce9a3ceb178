"""The whole page: one file, no script, nothing to fetch."""

from __future__ import annotations

from collections.abc import Iterator

from ckgrow.reports.page.bars import deviations
from ckgrow.reports.page.evidence import Evidence
from ckgrow.reports.page.layers import changes
from ckgrow.reports.page.markup import Markup, joined, tag
from ckgrow.reports.page.sections import architecture, conditions, heat_map_section, outputs
from ckgrow.reports.page.sizes import Sizes, sizes
from ckgrow.reports.page.story import story
from ckgrow.reports.page.style import STYLE
from ckgrow.reports.page.tables import anything
from ckgrow.reports.page.verdict import first_screen, headline
from ckgrow.version import VERSION

_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
"""The browser itself sees to it that the page runs nothing and fetches nothing."""


def page(evidence: Evidence) -> str:
    """The verdict as an HTML document. Equal evidence makes equal pages."""
    costs = sizes(evidence)
    sections = list(_sections(evidence, costs))
    contents = tag("nav", *(tag("a", title, href=f"#{_anchor(title)}") for title, _ in sections))
    top = tag("section", first_screen(evidence, costs), contents, class_="verdict")
    body = (
        tag("section", tag("h2", title), content, id=_anchor(title)) for title, content in sections
    )
    return f"<!doctype html>\n{_html(evidence, joined(top, *body))}\n"


def _sections(evidence: Evidence, costs: Sizes) -> Iterator[tuple[str, Markup]]:
    document = evidence.document
    changed = changes(evidence)
    yield from _asked("Where it breaks", document.localisation)
    yield from _asked("Proof", document.certificate)
    yield "Before and after", architecture(changed, costs)
    if document.outputs:
        yield "Outputs", outputs(evidence)
    yield from _asked("Against what was expected", document.expectations or None)
    if evidence.deviations:
        yield "Layers", deviations(evidence.deviations)
    yield "Weights", heat_map_section(evidence, changed)
    yield from _asked("Training mode", document.train_mode)
    yield from _asked("Learning", document.learning)
    yield "What it rests on", conditions(evidence)
    yield "How it was made", story(evidence)


def _asked(title: str, part: object) -> Iterator[tuple[str, Markup]]:
    """A part of the document that is null unless somebody asked for it."""
    if part is not None:
        yield title, anything(part)


def _html(evidence: Evidence, content: Markup) -> Markup:
    document = evidence.document
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", http_equiv="Content-Security-Policy", content=_POLICY),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name="color-scheme", content="light dark"),
        tag("title", f"{headline(document).title}: {document.student}"),
        tag("style", Markup(STYLE)),
    )
    foot = tag("footer", f"ckgrow {VERSION}, {document.schema}")
    return tag("html", head, tag("body", tag("main", content), foot), lang="en")


def _anchor(title: str) -> str:
    return title.lower().replace(" ", "-")
