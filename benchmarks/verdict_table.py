"""The tables of benchmarks/verdict.py, and the list of what the checks said wrongly."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from verdict_faults import KINDS
from verdict_students import DTYPES, SUBJECTS
from verdict_trial import Broken, Trial

PROVABLE = ("exact", "rounded", "eval")
LOCATED = 0.95
"""The part of the faults found in float64 whose layer has to be named."""

SOUND_HEADS = ("students", "methods", *DTYPES, "float64 alarms", "--quick alarms", "not proven")
BROKEN_HEADS = (
    *("faults", "violate an equation", "refuted", "refuted besides"),
    *("float64 must find", "found", "--quick must find", "found"),
    *("float64 found in all", "right layer named", "and no other"),
)


def table(trials: Sequence[Trial]) -> str:
    """Sound students by network, faults by kind and by network, and what went wrong."""
    broken = [each for trial in trials for each in trial.broken]
    sections = [
        _section("sound students", SOUND_HEADS, _sound(trials)),
        _section("faults by kind", BROKEN_HEADS, _rows(broken, KINDS)),
        _section("faults by network", BROKEN_HEADS, _by_network(trials)),
    ]
    for title, lines in (("other layers named", misplaced(trials)), ("wrong", errors(trials))):
        sections.append("\n".join([f"{title}:", *lines]) if lines else f"{title}: none")
    return "\n\n".join(sections) + "\n"


def errors(trials: Iterable[Trial]) -> list[str]:
    """Every false alarm and every fault that a check had to find and did not, in a line each."""
    return [line for trial in trials for line in _wrong(trial)]


def misplaced(trials: Iterable[Trial]) -> list[str]:
    """Every fault found in float64 whose layer was not named, in a line each."""
    return [
        f"{_who(trial)}, {each.kind} in {each.place}: {', '.join(each.said.located) or 'nothing'}"
        for trial in trials
        for each in trial.broken
        if not each.said.preserved and each.layer not in each.said.located
    ]


def located_enough(trials: Iterable[Trial]) -> bool:
    """Whether the right layers are named often enough."""
    found = [e for trial in trials for e in trial.broken if not e.said.preserved]
    return sum(each.layer in each.said.located for each in found) >= LOCATED * len(found)


def _who(trial: Trial) -> str:
    case = trial.case
    return f"{case.network} {case.recipe} {case.dtype} seed {case.spec_seed}"


def _wrong(trial: Trial) -> Iterable[str]:
    who, sound = _who(trial), trial.sound
    if not sound.preserved:
        yield f"{who}: false alarm in float64"
    if not sound.quick:
        yield f"{who}: false alarm with --quick"
    if trial.promised not in PROVABLE or sound.proof != "proven":
        yield f"{who}: {trial.promised}, {sound.proof}"
    for each in trial.broken:
        said, what = each.said, f"{who}, {each.kind} in {each.place}"
        if each.violates != (said.proof == "refuted"):
            yield f"{what}: {'violates' if each.violates else 'holds'}, but {said.proof}"
        if each.visible and said.preserved:
            yield f"{what}: missed in float64 at {said.effect / said.tolerance:.1f} tolerances"
        if each.visible_quickly and said.quick:
            far = said.effect / said.quick_tolerance
            yield f"{what}: missed with --quick at {far:.1f} tolerances"


Row = tuple[str, ...]


def _sound(trials: Sequence[Trial]) -> Iterable[Row]:
    for name in (*SUBJECTS, "all"):
        own = [trial for trial in trials if name in (trial.case.network, "all")]
        yield (
            name,
            str(len(own)),
            str(len({trial.case.recipe for trial in own})),
            *(str(sum(trial.case.dtype == dtype for trial in own)) for dtype in DTYPES),
            str(sum(not trial.sound.preserved for trial in own)),
            str(sum(not trial.sound.quick for trial in own)),
            str(sum(trial.sound.proof != "proven" for trial in own)),
        )


def _by_network(trials: Sequence[Trial]) -> Iterable[Row]:
    for name in SUBJECTS:
        yield _row(name, [e for t in trials if t.case.network == name for e in t.broken])


def _rows(broken: Sequence[Broken], kinds: Iterable[str]) -> Iterable[Row]:
    for kind in kinds:
        yield _row(kind, [each for each in broken if each.kind == kind])
    yield _row("all", broken)


def _row(name: str, broken: Sequence[Broken]) -> Row:
    refuted = [each for each in broken if each.said.proof == "refuted"]
    visible = [each for each in broken if each.visible]
    quickly = [each for each in broken if each.visible_quickly]
    found = [each for each in broken if not each.said.preserved]
    named = [each for each in found if each.layer in each.said.located]
    counts = (
        *(len(broken), sum(each.violates for each in broken)),
        *(sum(each.violates for each in refuted), sum(not each.violates for each in refuted)),
        *(len(visible), sum(not each.said.preserved for each in visible)),
        *(len(quickly), sum(not each.said.quick for each in quickly)),
        *(len(found), len(named), sum(each.said.located == (each.layer,) for each in named)),
    )
    return (name, *map(str, counts))


def _section(title: str, heads: Row, rows: Iterable[Row]) -> str:
    lines = [(title, *heads), *rows]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join([line[0].ljust(widths[0]), *map(str.rjust, line[1:], widths[1:])])
        for line in lines
    )
