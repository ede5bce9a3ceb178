"""The parts of a report page below its first screen."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from ckgrow.reports.page.diagram import WORDS, diagram, facts, legend
from ckgrow.reports.page.evidence import Evidence
from ckgrow.reports.page.figures import name, number, plural, times
from ckgrow.reports.page.heatmap import heat_maps
from ckgrow.reports.page.histogram import Marks, histogram
from ckgrow.reports.page.layers import Change, Kind
from ckgrow.reports.page.markup import Markup, joined, tag, text
from ckgrow.reports.page.sizes import Sizes
from ckgrow.reports.page.stages import stages
from ckgrow.reports.page.tables import folded, pairs, table
from ckgrow.reports.page.weights import Shown, chosen
from ckgrow.verdict.comparison import OutputVerdict

_IN_SIGHT = 4
"""Outputs whose histograms are not folded."""
_BECAME: dict[Kind, str] = {
    "wider": "wider",
    "new": "new",
    "kernel": "with a larger kernel",
    "other": "narrower",
    "gone": "of the teacher's not there",
}
_EDGES = (
    ("kept", "the teacher's channel"),
    ("copy", "one more copy"),
    ("fresh", "fresh unit"),
    ("zero", "zero"),
)


def architecture(changes: Sequence[Change], costs: Sizes) -> Markup:
    """Before and after, and what both cost."""
    layers = (
        (
            name(each.layer.name),
            each.layer.op,
            facts(each.teacher),
            facts(each.student),
            WORDS[each.kind],
        )
        for each in changes
    )
    amounts = (
        (what, f"{each.teacher:,}", f"{each.student:,}", times(each.teacher, each.student))
        for what, each in (
            ("parameters", costs.parameters),
            ("bytes", costs.bytes),
            ("FLOPs per sample", costs.flops),
        )
    )
    return joined(
        tag("p", _grown(changes)),
        legend(changes),
        diagram(stages(changes)),
        folded(
            f"Every layer ({len(changes):,})",
            table(("layer", "op", "teacher", "student", ""), layers),
        ),
        table(("", "teacher", "student", ""), amounts),
    )


def outputs(evidence: Evidence) -> Markup:
    """Every output: numbers, and histograms of what was computed."""
    found = evidence.document.outputs
    heads = ("output", "in", "difference", "tolerance", "would pass at", "of scale")
    rows = [row for each in found for row in _numbers(each)]
    drawings = [_histograms(evidence, each) for each in found]
    hidden = drawings[_IN_SIGHT:]
    return joined(
        tag("p", *_reasons(found)),
        table((*heads, "yardstick", "yardsticks", "top-1"), rows),
        *drawings[:_IN_SIGHT],
        folded(f"{len(hidden)} more", *hidden) if hidden else "",
    )


def heat_map_section(evidence: Evidence, changes: Sequence[Change]) -> Markup:
    """The chosen weights, with what the colours mean."""
    pictures = [_picture(each) for each in chosen(evidence, changes)]
    if not pictures:
        return tag("p", "No layer of the student is new, wider, or has another kernel.")
    keys = [("negative", "negative"), ("positive", "positive")]
    on_edges = [*_EDGES] if evidence.record else []
    return joined(
        tag(
            "p",
            "Rows are output channels, columns input channels; what is exactly zero is left "
            "blank. Colours mean the same size in both pictures of a pair.",
            " The strips along the edges say what each of the student's channels is."
            if on_edges
            else "",
        ),
        tag("p", *(_key(*each) for each in (*keys, *on_edges)), class_="legend"),
        *pictures,
    )


def conditions(evidence: Evidence) -> Markup:
    """What the verdict rests on."""
    document = evidence.document
    hashes = [(f"{who}'s tensors", tag("code", digest)) for who, digest in document.hashes.items()]
    assumed = (
        (text(each.fact), text(each.value), text(each.source)) for each in document.assumptions
    )
    return joined(
        pairs(
            (
                ("inputs", text(document.inputs)),
                ("runtimes", text(", ".join(document.runtimes) or "none: nothing was run")),
                ("tolerance", text(document.tolerance or "none: nothing was compared")),
                *hashes,
            )
        ),
        tag("h3", "Assumptions"),
        tag(
            "p",
            "Facts that keys and shapes do not hold, and where they were taken from. Both files "
            "are read alike: a wrong one does not show in the comparison.",
        )
        if document.assumptions
        else tag("p", "None: the checkpoint says everything."),
        table(("fact", "value", "source"), assumed) if document.assumptions else "",
    )


def _numbers(output: OutputVerdict) -> Iterator[Sequence[str]]:
    """What was measured of an output, a row for each precision it was computed in."""
    yield (
        name(output.name),
        "float32",
        number(output.max_abs),
        number(output.tolerance),
        number(output.passing),
        number(output.max_rel),
        number(output.yardstick),
        number(output.ratio),
        "" if output.top1 is None else f"{output.top1:.1%}",
    )
    if output.float64_max_abs is not None:
        measured = (number(output.float64_max_abs), number(output.float64_tolerance))
        yield (name(output.name), "float64", *measured, *("",) * 5)


def _grown(changes: Sequence[Change]) -> str:
    """What became of the layers, in a sentence."""
    counts = {kind: sum(each.kind == kind for each in changes) for kind in WORDS}
    said = [
        f"{plural(counts[kind], 'layer')} {words}"
        for kind, words in _BECAME.items()
        if counts[kind]
    ]
    same = f"{plural(counts['same'], 'layer')} as wide as before"
    return f"{', '.join(said)}; {same}." if said else f"Nothing grew: {same}."


def _reasons(found: Sequence[OutputVerdict]) -> Iterator[str]:
    failing = [each for each in found if not each.preserved]
    for each in failing:
        yield joined(name(each.name), f": {each.reason}. ")
    if not failing:
        yield (
            "The yardstick of an output is how much rounding alone moves it, measured on both "
            "networks. Differences within the tolerance are rounding."
        )


def _histograms(evidence: Evidence, output: OutputVerdict) -> Markup:
    drawings = []
    if output.name in evidence.pairs and output.tolerance is not None:
        marks = Marks(output.tolerance, output.yardstick)
        drawings.append(histogram(evidence.pairs[output.name], marks, "float32"))
    if output.name in evidence.double_pairs and output.float64_tolerance is not None:
        marks = Marks(output.float64_tolerance)
        drawings.append(histogram(evidence.double_pairs[output.name], marks, "float64"))
    if not drawings:
        return text("")
    return joined(tag("h3", name(output.name)), tag("div", *drawings, class_="histograms"))


def _picture(each: Shown) -> Markup:
    def caption(who: str, shape: tuple[int, ...]) -> str:
        return f"{who}, {shape[0]} x {shape[1]}"

    sides = [(caption("student", each.student.cells.shape), each.student)]
    if each.teacher is not None:
        sides.insert(0, (caption("teacher", each.teacher.cells.shape), each.teacher))
    return joined(
        tag("h3", name(each.layer.weight)),
        tag("p", f"{each.why}; {each.how}", class_="note"),
        heat_maps(sides),
    )


def _key(kind: str, words: str) -> Markup:
    return tag("span", tag("span", class_=f"swatch {kind}"), words, class_="key")
