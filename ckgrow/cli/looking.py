"""The commands that only look: plan, inspect, init, schema, adapters."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ckgrow.cli.shared import (
    Architecture,
    Json,
    Options,
    SpecPath,
    TeacherPlace,
    Weights,
    parsed_options,
    reported,
    say,
)


@reported
def plan(
    teacher: TeacherPlace, spec: SpecPath, weights: Weights = None, json: Json = False
) -> None:
    """Show what apply would do, tensor by tensor, without reading one.

    Example: ckgrow plan teacher.safetensors spec.yaml
    """
    from ckgrow.public import plan as make
    from ckgrow.reports.documents import to_json

    document = make(teacher, spec, weights=weights)
    if json:
        say(to_json(document))
    else:
        from ckgrow.cli.show import show_plan

        show_plan(document)


@reported
def inspect(
    checkpoint: Annotated[str, typer.Argument(metavar="CHECKPOINT", help="Any checkpoint.")],
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
    from ckgrow.names import shown
    from ckgrow.public import inspect as look
    from ckgrow.reports.documents import to_json

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


@reported
def init(
    teacher: TeacherPlace,
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
    from ckgrow.reports.starting import first_spec, write_new

    document = look(
        teacher, architecture=architecture, options=parsed_options(option), weights=weights
    )
    text = first_spec(document)
    if output is not None:
        write_new(output, text)
    if json:
        from ckgrow.reports.documents import to_json

        written = None if output is None else str(output)
        say(to_json({"schema": "ckgrow.init/1", "spec": text, "written": written}))
    elif output is None:
        say(text, end="")
    else:
        say(f"wrote {output}; try: ckgrow plan {teacher} {output}")


@reported
def schema(
    json: Annotated[bool, typer.Option("--json", help="The schema is JSON in any case.")] = True,
) -> None:
    """Print the JSON Schema of specs, for editors.

    Example: ckgrow schema > ckgrow.schema.json
    """
    from ckgrow.reports.documents import to_json
    from ckgrow.spec import json_schema

    say(to_json(json_schema()))


@reported
def adapters(json: Json = False) -> None:
    """List what is installed: architectures with options and targets, formats, growth methods.

    Example: ckgrow adapters
    """
    from ckgrow.reports.documents import to_json
    from ckgrow.reports.listing import list_adapters

    document = list_adapters()
    if json:
        say(to_json(document))
        return
    for architecture in document.architectures:
        say(f"architecture {architecture.name}: {architecture.summary}")
        for each in architecture.options:
            say(f"    {each.name} (default {each.default}): {each.help}")
        for name in architecture.targets:
            say(f"    target {name}")
    for form in document.formats:
        access = "read and written" if form.writable else "read"
        say(f"format {form.name} ({' '.join(form.suffixes)}): {access}")
    for method in document.methods:
        say(f"method {method.name}: to {method.verb} by; {method.summary}")
