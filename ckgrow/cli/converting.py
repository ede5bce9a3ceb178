"""The command that changes a checkpoint's format: convert."""

from __future__ import annotations

from typing import Annotated

import typer

from ckgrow.cli.shared import (
    Drop,
    Force,
    Json,
    ShardSize,
    Weights,
    Workers,
    reported,
    say,
    watching,
)


@reported
def convert(
    source: Annotated[str, typer.Argument(metavar="IN", help="Any checkpoint.")],
    output: Annotated[str, typer.Argument(metavar="OUT", help="Its suffix says the format.")],
    force: Force = False,
    shard_size: ShardSize = None,
    drop: Drop = None,
    weights: Weights = None,
    workers: Workers = None,
    json: Json = False,
) -> None:
    """Write the same tensors in another format, bit for bit.

    Example: ckgrow convert student.safetensors student.npz
    """
    from ckgrow.cli.sizes import byte_count
    from ckgrow.names import shown
    from ckgrow.public import convert as copy
    from ckgrow.reports.documents import to_json

    with watching() as watched:
        document = copy(
            source,
            output,
            workers=workers,
            force=force,
            weights=weights,
            shard_size=byte_count("--shard-size", shard_size),
            drop=drop or (),
            watching=watched,
        )
    if json:
        say(to_json(document))
        return
    say(
        f"wrote {document.output} ({document.format}): {document.tensors} tensors, "
        f"hash {document.hash[:12]}"
    )
    for name in document.dropped:
        say(f"left out: {shown(name)}")
