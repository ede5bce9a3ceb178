"""The commands that compute: apply and verify."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ckgrow.cli.shared import (
    Address,
    Architecture,
    Drop,
    Force,
    Jobs,
    Json,
    Options,
    ShardSize,
    SpecPath,
    TeacherPlace,
    Weights,
    Workers,
    parsed_options,
    reported,
    say,
    watching,
)
from ckgrow.errors import SpecError

if TYPE_CHECKING:
    from ckgrow.spreading import Spread


@reported
def apply(
    teacher: TeacherPlace,
    spec: SpecPath,
    output: Annotated[str, typer.Option("-o", "--output", help="The student's file.")],
    force: Force = False,
    no_verify: Annotated[bool, typer.Option("--no-verify", help="Skip the verdict.")] = False,
    keep_failed: Annotated[
        bool, typer.Option("--keep-failed", help="Leave a failed student as STUDENT.failed.")
    ] = False,
    shard_size: ShardSize = None,
    drop: Drop = None,
    backend: Annotated[
        str | None,
        typer.Option(help="Make each file of several elsewhere: loky, threading, dask or ray."),
    ] = None,
    jobs: Jobs = None,
    address: Address = None,
    workers: Workers = None,
    weights: Weights = None,
    json: Json = False,
) -> None:
    """Grow a teacher by a spec, verify the student, write its file.

    Example: ckgrow apply teacher.safetensors spec.yaml -o student.safetensors
    """
    from ckgrow.cli.sizes import byte_count
    from ckgrow.public import apply as grow
    from ckgrow.reports.documents import PlanDocument, to_json

    def announce(plan: PlanDocument) -> None:
        if not json:
            from ckgrow.cli.show import show_short_plan

            show_short_plan(plan)

    with watching() as watched:
        document = grow(
            teacher,
            spec,
            output,
            workers=workers,
            force=force,
            keep_failed=keep_failed,
            check=not no_verify,
            weights=weights,
            shard_size=byte_count("--shard-size", shard_size),
            drop=drop or (),
            spreading=_spread(backend, jobs, address),
            watching=watched,
            announce=announce,
        )
    if json:
        say(to_json(document))
    else:
        from ckgrow.cli.show import show_applied

        show_applied(document, kept=keep_failed)
    if document.status == "failed":
        raise typer.Exit(1)


def _spread(backend: str | None, jobs: int | None, address: str | None) -> Spread | None:
    if backend is None:
        if (jobs, address) != (None, None):
            raise SpecError("--jobs and --address belong to --backend; add it, or leave them out")
        return None
    from ckgrow.spreading import Spread

    return Spread(backend, jobs, address)


@reported
def verify(
    teacher: TeacherPlace,
    student: Annotated[str, typer.Argument(metavar="STUDENT", help="The student's checkpoint.")],
    quick: Annotated[bool, typer.Option("--quick", help="Do without float64.")] = False,
    samples: Annotated[int, typer.Option(min=1, max=4096, help="Number of random inputs.")] = 16,
    seed: Annotated[int, typer.Option(min=0, help="Of the random inputs.")] = 0,
    inputs: Annotated[
        Path | None, typer.Option(help="Your own inputs: .npy, .npz or .safetensors.")
    ] = None,
    expect: Annotated[
        Path | None, typer.Option(help="What your framework computed for the teacher on --inputs.")
    ] = None,
    rtol: Annotated[
        float | None, typer.Option(help="Tolerance in parts of each output's scale.")
    ] = None,
    atol: Annotated[float | None, typer.Option(help="Tolerance, absolute.")] = None,
    proof: Annotated[
        bool, typer.Option("--proof", help="Prove it by the tensors alone; nothing is run.")
    ] = False,
    maps: Annotated[
        str | None,
        typer.Option(help="An earlier copy of a student that lost its record of growth."),
    ] = None,
    train_mode: Annotated[
        bool, typer.Option("--train-mode", help="Compare both in training mode as well.")
    ] = False,
    learn: Annotated[
        bool, typer.Option("--learn", help="Train copies for three steps: can the student learn?")
    ] = False,
    labels: Annotated[
        Path | None, typer.Option(help="For --learn: classes or targets that belong to --inputs.")
    ] = None,
    report: Annotated[
        Path | None, typer.Option(help="Write a page for a browser; replaces an earlier one.")
    ] = None,
    architecture: Architecture = None,
    option: Options = None,
    weights: Weights = None,
    workers: Workers = None,
    json: Json = False,
) -> None:
    """Say whether two checkpoints compute the same function; exit 1 if not.

    Example: ckgrow verify teacher.safetensors student.safetensors
    """
    from ckgrow.public import verify as compare
    from ckgrow.reports.documents import to_json

    with watching() as watched:
        document = compare(
            teacher,
            student,
            samples=samples,
            seed=seed,
            inputs=inputs,
            expect=expect,
            quick=quick,
            rtol=rtol,
            atol=atol,
            proof=proof,
            maps=maps,
            train_mode=train_mode,
            learn=learn,
            labels=labels,
            report=report,
            architecture=architecture,
            options=parsed_options(option),
            weights=weights,
            workers=workers,
            watching=watched,
        )
    if json:
        say(to_json(document))
    else:
        from ckgrow.cli.show_verdict import show_verdict

        show_verdict(document)
    if not document.preserved:
        raise typer.Exit(1)
