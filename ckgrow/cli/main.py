"""The command ``ckgrow``: parses, calls, prints."""

from __future__ import annotations

import sys
from io import TextIOWrapper
from pathlib import Path
from typing import Annotated

import typer

from ckgrow.cli.shared import (
    INTERRUPTED,
    Architecture,
    Json,
    Options,
    SpecPath,
    TeacherPath,
    Weights,
    Workers,
    parsed_options,
    reported,
    say,
    set_debugging,
    watching,
)
from ckgrow.errors import FileError
from ckgrow.version import VERSION

app = typer.Typer(
    name="ckgrow",
    help="Grows trained neural networks: a teacher and a spec in, a bigger student out, and proof.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


def _version(wanted: bool) -> None:
    if wanted:
        say(f"ckgrow {VERSION}")
        raise typer.Exit


@app.callback()
def main(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_version, is_eager=True, help="Print the version."),
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks of failures.")] = False,
) -> None:
    """Grows trained neural networks."""
    set_debugging(debug)


@app.command()
@reported
def apply(
    teacher: TeacherPath,
    spec: SpecPath,
    output: Annotated[Path, typer.Option("-o", "--output", help="The student's file.")],
    force: Annotated[bool, typer.Option("--force", help="Replace an existing file.")] = False,
    no_verify: Annotated[bool, typer.Option("--no-verify", help="Skip the verdict.")] = False,
    keep_failed: Annotated[
        bool, typer.Option("--keep-failed", help="Leave a failed student as STUDENT.failed.")
    ] = False,
    workers: Workers = None,
    weights: Weights = None,
    json: Json = False,
) -> None:
    """Grow a teacher by a spec, verify the student, write its file.

    Example: ckgrow apply teacher.safetensors spec.yaml -o student.safetensors
    """
    from ckgrow.documents import PlanDocument, to_json
    from ckgrow.public import apply as grow

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


@app.command()
@reported
def verify(
    teacher: TeacherPath,
    student: Annotated[Path, typer.Argument(metavar="STUDENT", help="The student's checkpoint.")],
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
    architecture: Architecture = None,
    option: Options = None,
    weights: Weights = None,
    workers: Workers = None,
    json: Json = False,
) -> None:
    """Say whether two checkpoints compute the same function; exit 1 if not.

    Example: ckgrow verify teacher.safetensors student.safetensors
    """
    from ckgrow.documents import to_json
    from ckgrow.public import verify as compare

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
            architecture=architecture,
            options=parsed_options(option),
            weights=weights,
            workers=workers,
            watching=watched,
        )
    if json:
        say(to_json(document))
    else:
        from ckgrow.cli.show import show_verdict

        show_verdict(document)
    if not document.preserved:
        raise typer.Exit(1)


@app.command()
@reported
def plan(teacher: TeacherPath, spec: SpecPath, weights: Weights = None, json: Json = False) -> None:
    """Show what apply would do, tensor by tensor, without reading one.

    Example: ckgrow plan teacher.safetensors spec.yaml
    """
    from ckgrow.documents import to_json
    from ckgrow.public import plan as make

    document = make(teacher, spec, weights=weights)
    if json:
        say(to_json(document))
    else:
        from ckgrow.cli.show import show_plan

        show_plan(document)


@app.command()
@reported
def inspect(
    checkpoint: Annotated[Path, typer.Argument(metavar="CHECKPOINT", help="Any checkpoint.")],
    architecture: Architecture = None,
    option: Options = None,
    weights: Weights = None,
    new_tensors: Annotated[
        bool, typer.Option("--new-tensors", help="Only the names of new tensors, one per line.")
    ] = False,
    json: Json = False,
) -> None:
    """Say what a checkpoint is, and what can grow in it.

    Example: ckgrow inspect teacher.safetensors
    """
    from ckgrow.documents import to_json
    from ckgrow.names import shown
    from ckgrow.public import inspect as look

    document = look(
        checkpoint, architecture=architecture, options=parsed_options(option), weights=weights
    )
    if json:
        say(to_json(document))
    elif new_tensors:
        for name in document.new_tensors:
            say(shown(name))
    else:
        from ckgrow.cli.show import show_checkpoint

        show_checkpoint(document)


@app.command()
@reported
def init(
    teacher: TeacherPath,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="Where to write it; stdout if not given.")
    ] = None,
    architecture: Architecture = None,
    option: Options = None,
    weights: Weights = None,
    json: Json = False,
) -> None:
    """Write a first, commented spec for this very checkpoint.

    Example: ckgrow init teacher.safetensors -o spec.yaml
    """
    from ckgrow.public import inspect as look
    from ckgrow.starting import first_spec, write_new

    document = look(
        teacher, architecture=architecture, options=parsed_options(option), weights=weights
    )
    text = first_spec(document)
    if output is not None:
        write_new(output, text)
    if json:
        from ckgrow.documents import to_json

        written = None if output is None else str(output)
        say(to_json({"schema": "ckgrow.init/1", "spec": text, "written": written}))
    elif output is None:
        say(text, end="")
    else:
        say(f"wrote {output}; try: ckgrow plan {teacher} {output}")


@app.command()
@reported
def schema(
    json: Annotated[bool, typer.Option("--json", help="The schema is JSON in any case.")] = True,
) -> None:
    """Print the JSON Schema of specs, for editors.

    Example: ckgrow schema > ckgrow.schema.json
    """
    from ckgrow.documents import to_json
    from ckgrow.spec import json_schema

    say(to_json(json_schema()))


@app.command()
@reported
def adapters(json: Json = False) -> None:
    """List what is installed: architectures with their options, formats, growth methods.

    Example: ckgrow adapters
    """
    from ckgrow.documents import to_json
    from ckgrow.listing import list_adapters

    document = list_adapters()
    if json:
        say(to_json(document))
        return
    for architecture in document.architectures:
        say(f"architecture {architecture.name}: {architecture.summary}")
        for each in architecture.options:
            say(f"    {each.name} (default {each.default}): {each.help}")
    for form in document.formats:
        access = "read and written" if form.writable else "read"
        say(f"format {form.name} ({' '.join(form.suffixes)}): {access}")
    for method in document.methods:
        say(f"method {method.name}: to {method.verb} by; {method.summary}")


def run() -> None:
    """The entry point of the installed command."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):  # what the terminal's encoding lacks is escaped
            stream.reconfigure(errors="backslashreplace")
    try:
        app()
    except KeyboardInterrupt:  # before a command has begun
        raise SystemExit(INTERRUPTED) from None
    except OSError as failure:  # the same: a help text that cannot be printed
        typer.echo(f"error: {failure.strerror}", err=True)
        raise SystemExit(FileError.exit_code) from None
