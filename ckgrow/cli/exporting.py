"""The command that makes a model for other programs: export."""

from __future__ import annotations

from typing import Annotated

import typer

from ckgrow.cli.shared import (
    Architecture,
    Force,
    Json,
    Options,
    Weights,
    Workers,
    parsed_options,
    reported,
    say,
    watching,
)


@reported
def export(
    checkpoint: Annotated[str, typer.Argument(metavar="CHECKPOINT", help="Any checkpoint.")],
    output: Annotated[str, typer.Option("-o", "--output", help="The model, an .onnx file.")],
    embed: Annotated[
        bool,
        typer.Option(
            "--embed", help="Put the weights in (over 256 MB: into OUTPUT.data), not a pointer."
        ),
    ] = False,
    force: Force = False,
    architecture: Architecture = None,
    option: Options = None,
    weights: Weights = None,
    workers: Workers = None,
    json: Json = False,
) -> None:
    """Write the network as an ONNX model that points to the weights beside it.

    Example: ckgrow export student.safetensors -o student.onnx
    """
    from ckgrow.names import by, shown
    from ckgrow.public import export as write
    from ckgrow.reports.documents import to_json

    with watching() as watched:
        document = write(
            checkpoint,
            output,
            embed=embed,
            workers=workers,
            force=force,
            architecture=architecture,
            options=parsed_options(option),
            weights=weights,
            watching=watched,
        )
    if json:
        say(to_json(document))
        return
    say(f"wrote {document.output} ({document.architecture}): {document.tensors} tensors")
    for name in document.files:
        say(f"its weights are in {shown(name)}; keep both together")
    for kind, shapes in (("input", document.inputs), ("output", document.outputs)):
        for name, shape in shapes.items():
            say(f"{kind}: {shown(name)}, {by(shape)}")
