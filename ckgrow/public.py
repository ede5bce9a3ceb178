"""The functions of ``import ckgrow``: paths or tensors in, documents out.

A teacher or student is a path, a URL, or a mapping of names to numpy arrays or torch tensors. A
spec is a path to a YAML file, or a mapping. Errors are :class:`ckgrow.errors.CkgrowError`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from ckgrow import spec as spec_language
from ckgrow.applying import Run, Spreading, write_student
from ckgrow.converting import convert_checkpoint
from ckgrow.errors import SpecError
from ckgrow.exporting import export_checkpoint
from ckgrow.loading import Loaded, Tensors, Wish, load, open_source
from ckgrow.outputs import output_of
from ckgrow.pairing import open_pair
from ckgrow.places import Place
from ckgrow.planning import make_plan
from ckgrow.reports.describing import describe_checkpoint, describe_plan
from ckgrow.reports.documents import (
    ApplyDocument,
    ConvertDocument,
    ExportDocument,
    InspectDocument,
    PlanDocument,
    VerifyDocument,
)
from ckgrow.spec import Spec
from ckgrow.verifying import (
    DEFAULT_SAMPLES,
    Checks,
    Verified,
    compare_checkpoints,
    hash_checkpoint,
)
from ckgrow.watching import Unwatched, Watching

Source = Place | Tensors
SpecSource = str | Path | Mapping[str, Any]


def inspect(
    checkpoint: Source,
    *,
    architecture: str | None = None,
    options: Mapping[str, Any] | None = None,
    weights: str | None = None,
) -> InspectDocument:
    """What a checkpoint is, and what can grow in it."""
    with load(checkpoint, Wish(architecture, options or {}, weights)) as loaded:
        return describe_checkpoint(loaded)


def plan(teacher: Source, spec: SpecSource, *, weights: str | None = None) -> PlanDocument:
    """What ``apply`` would do, tensor by tensor."""
    read = _spec(spec)
    with load(teacher, _wish(read, weights)) as loaded:
        return describe_plan(make_plan(loaded, read))


def apply(
    teacher: Source,
    spec: SpecSource,
    output: Place,
    *,
    workers: int | None = None,
    force: bool = False,
    keep_failed: bool = False,
    check: bool = True,
    weights: str | None = None,
    shard_size: int | None = None,
    drop: Sequence[str] = (),
    spreading: Spreading | None = None,
    watching: Watching | None = None,
    announce: Callable[[PlanDocument], None] | None = None,
) -> ApplyDocument:
    """Grows ``teacher`` by ``spec`` into the file ``output``, and verifies it unless told not to.

    ``shard_size`` in bytes asks for a checkpoint in parts. ``drop`` names entries of a torch
    container that cannot be grown and are to be left out. ``spreading`` makes the parts of a
    checkpoint in parts elsewhere: a :class:`ckgrow.Spread`.
    ``announce`` is told the plan before anything is written. The document's ``status`` is
    ``failed``, and no file is left, when the verdict is no.
    """
    read = _spec(spec)
    checks = Checks(samples=read.verify.samples, quick=True) if check else None
    run = Run(workers or os.cpu_count() or 1, force, keep_failed, checks, spreading)
    with load(teacher, _wish(read, weights)) as loaded:
        writing = output_of(loaded, output, shard_size=shard_size, drop=drop)
        made = make_plan(loaded, read)
        if announce is not None:
            announce(describe_plan(made))
        return write_student(made, writing, run, watching or Unwatched())


def convert(
    source: Source,
    output: Place,
    *,
    workers: int | None = None,
    force: bool = False,
    weights: str | None = None,
    shard_size: int | None = None,
    drop: Sequence[str] = (),
    watching: Watching | None = None,
) -> ConvertDocument:
    """Writes the tensors of ``source`` in the format that ``output`` names, bit for bit.

    Arguments are those of ``apply``.
    """
    opened = open_source(source, weights)
    with closing(opened.reader):
        return convert_checkpoint(
            opened,
            output_of(opened, output, shard_size=shard_size, drop=drop, grows=False),
            force=force,
            workers=workers or os.cpu_count() or 1,
            watching=watching or Unwatched(),
        )


def export(
    source: Place,
    output: Place,
    *,
    embed: bool = False,
    workers: int | None = None,
    force: bool = False,
    architecture: str | None = None,
    options: Mapping[str, Any] | None = None,
    weights: str | None = None,
    watching: Watching | None = None,
) -> ExportDocument:
    """Writes the network of ``source`` as an ONNX model that points to its weights beside it.

    ``embed`` puts the weights into the model instead.
    """
    opened = open_source(source, weights)
    with closing(opened.reader):
        return export_checkpoint(
            opened,
            Wish(architecture, options or {}),
            output_of(opened, output),
            embed=embed,
            force=force,
            workers=workers or os.cpu_count() or 1,
            watching=watching or Unwatched(),
        )


def verify(
    teacher: Source,
    student: Source,
    *,
    samples: int = DEFAULT_SAMPLES,
    seed: int = 0,
    inputs: str | Path | None = None,
    expect: str | Path | None = None,
    quick: bool = False,
    rtol: float | None = None,
    atol: float | None = None,
    proof: bool = False,
    maps: Place | None = None,
    train_mode: bool = False,
    learn: bool = False,
    labels: str | Path | None = None,
    report: str | Path | None = None,
    architecture: str | None = None,
    options: Mapping[str, Any] | None = None,
    weights: str | None = None,
    workers: int | None = None,
    watching: Watching | None = None,
) -> VerifyDocument:
    """Whether two checkpoints compute the same function.

    ``proof`` reads the tensors instead of running the networks. ``maps`` is an earlier copy of a
    student that has lost its record of growth since. ``train_mode`` and ``learn`` look at what the
    verdict does not say. ``report`` is the file of an HTML page, which replaces an earlier one.
    """
    if expect is not None and inputs is None:
        raise SpecError("expected outputs belong to inputs of yours; give those too (--inputs)")
    if labels is not None and not (learn and inputs is not None):
        raise SpecError("labels belong to inputs of yours and to --learn; give those too")
    running = expect is not None or quick or (rtol, atol) != (None, None)
    if proof and (running or (inputs is not None and not (learn or train_mode))):
        raise SpecError(
            "--proof runs nothing, so there is nothing that --inputs, --expect, --quick, --rtol or "
            "--atol could be about; leave them out, or verify without --proof"
        )
    checks = Checks(
        samples,
        seed,
        _path(inputs),
        _path(expect),
        quick,
        rtol,
        atol,
        proof,
        train_mode,
        learn,
        _path(labels),
        every_layer=report is not None,
    )
    watched = watching or Unwatched()
    stated = Wish(architecture, options or {})
    pair = open_pair(teacher, student, stated, weights=weights, maps=maps)
    with pair as (before, after), _page(report, before, after, checks, maps) as publish:
        watched.begin("reading both files", 0)
        threads = workers or os.cpu_count() or 1
        hashes = {
            "teacher": hash_checkpoint(before, threads),
            "student": hash_checkpoint(after, threads),
        }
        found = compare_checkpoints(
            before, after, checks, hashes=hashes, progress=lambda what: watched.begin(what, 0)
        )
        publish(found)
        return found.document


@contextmanager
def _page(
    path: str | Path | None, teacher: Loaded, student: Loaded, checks: Checks, maps: Place | None
) -> Iterator[Callable[[Verified], None]]:
    """What publishes a report, if one is wanted; whether it can be written shows at once."""
    if path is None:
        yield lambda _: None
        return
    from ckgrow.reports.page.composition import page
    from ckgrow.reports.page.evidence import Evidence, LayerDeviation
    from ckgrow.reports.page.writing import ReportFile

    read = (teacher.path, student.path, checks.inputs, checks.expect, checks.labels, _path(maps))
    with ReportFile(Path(path), read) as file:

        def publish(found: Verified) -> None:
            layers = tuple(
                LayerDeviation(
                    each.name, each.deviation, each.tolerance, each.deviation > each.tolerance
                )
                for each in found.nodes
            )
            pairs = found.pairs, found.double_pairs
            file.publish(page(Evidence(found.document, teacher, student, *pairs, layers)))

        yield publish


def _path(given: str | Path | None) -> Path | None:
    return None if given is None else Path(given)


def _spec(source: SpecSource) -> Spec:
    if isinstance(source, Mapping):
        return spec_language.from_dict(source)
    return spec_language.parse(source)


def _wish(spec: Spec, weights: str | None) -> Wish:
    return Wish(spec.teacher.architecture, spec.teacher.options, weights)
