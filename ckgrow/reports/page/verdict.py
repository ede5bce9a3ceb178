"""The first screen: the verdict, what it says, and the figures that carry it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from ckgrow.reports.documents import VerifyDocument
from ckgrow.reports.page.evidence import Evidence
from ckgrow.reports.page.figures import amount, number, times
from ckgrow.reports.page.markup import Markup, joined, tag, text
from ckgrow.reports.page.sizes import Sizes
from ckgrow.verdict.comparison import OutputVerdict

Tone = Literal["good", "bad", "warn"]
_MANY = 10.0
"""From here on a difference is said to be so many tolerances, below it in percent of one."""
_SIGNS: dict[Tone, str] = {"good": "✓", "bad": "✗", "warn": "≈"}


@dataclass(frozen=True)
class Headline:
    """The verdict in a few words, and the sentence below it."""

    tone: Tone
    title: str
    says: str


def headline(document: VerifyDocument) -> Headline:
    """What is said first. A refuted student is none to trust, whatever the numbers say."""
    if document.proof == "refuted":
        return Headline("bad", "Refuted", "Weights violate an equation that growth keeps.")
    if document.proof == "not proven":
        return Headline("warn", "Not proven", "Something that the proof needs is missing.")
    if document.preserved:
        says = "The student computes the same as its teacher"
        proven = ", proven for every input" if document.proof == "proven" else ""
        return Headline("good", "Function preserved", f"{says}{proven}.")
    if document.expected:
        return Headline(
            "warn",
            "Not preserved, as the plan said",
            "The student was changed on purpose; without that it computes the same.",
        )
    return Headline("bad", "Not preserved", "The student does not compute what its teacher does.")


def first_screen(evidence: Evidence, costs: Sizes) -> Markup:
    """Badge, files, reason, figures."""
    document = evidence.document
    said = headline(document)
    badge = tag(
        "div",
        tag("span", _SIGNS[said.tone], class_="sign", aria_hidden="true"),
        tag("div", tag("h1", said.title), tag("p", said.says)),
        class_=f"badge {said.tone}",
    )
    files = tag(
        "p",
        tag("code", document.teacher),
        " → ",
        tag("code", document.student),
        class_="kicker",
    )
    reason = tag("p", _sentence(document.reason), class_="reason")
    tiles = tag("div", *_tiles(document, costs), class_="tiles")
    notes = [tag("p", _sentence(note), class_="note") for note in document.notes]
    return joined(files, badge, reason, *notes, tiles)


def _tiles(document: VerifyDocument, costs: Sizes) -> Iterator[Markup]:
    worst = _worst(document.outputs)
    if worst is not None:
        yield _tile(number(worst.max_abs), "largest difference in float32")
        yield _tile(_share(worst), joined(_of(worst), " tolerance, ", number(worst.tolerance)))
    if document.certificate is not None and document.proof == "proven":
        yield _tile(number(document.certificate.defect), "units of rounding at most")
    for what, each in (("parameters", costs.parameters), ("FLOPs", costs.flops)):
        before, after = amount(each.teacher), amount(each.student)
        yield _tile(times(each.teacher, each.student), joined(f"{what}: ", before, " → ", after))


def _tile(figure: str, says: str) -> Markup:
    return tag("div", tag("b", figure), tag("span", says), class_="tile")


def _worst(outputs: tuple[OutputVerdict, ...]) -> OutputVerdict | None:
    """The measured output that comes closest to its tolerance, or exceeds it most."""
    measured = [each for each in outputs if each.max_abs is not None and each.tolerance]
    return max(measured, key=_ratio, default=None)


def _ratio(output: OutputVerdict) -> float:
    return (output.max_abs or 0.0) / (output.tolerance or 1.0)


def _of(output: OutputVerdict) -> str:
    return "of the" if _ratio(output) < _MANY else "the"


def _share(output: OutputVerdict) -> Markup:
    ratio = _ratio(output)
    return text(f"{ratio:.0%}") if ratio < _MANY else joined(number(ratio), " ×")


def _sentence(reason: str) -> str:
    return f"{reason[:1].upper()}{reason[1:]}{'' if reason.endswith('.') else '.'}"
