"""The command that grows many."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ckgrow.cli.shared import Json, reported, say


@reported
def batch(
    manifest: Annotated[
        Path, typer.Argument(metavar="MANIFEST", help="The jobs: YAML, or JSON Lines (.jsonl).")
    ],
    results: Annotated[
        Path | None,
        typer.Option(help="Where records go; MANIFEST's name with .results.jsonl if not given."),
    ] = None,
    backend: Annotated[
        str, typer.Option(help="Who runs the jobs: loky, threading, dask or ray.")
    ] = "loky",
    jobs: Annotated[
        int | None, typer.Option(min=1, help="Jobs at once; one per core if not given.")
    ] = None,
    address: Annotated[
        str | None, typer.Option(help="Of a Dask scheduler or a Ray cluster that runs already.")
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Repeat jobs that are done, replace existing files.")
    ] = False,
    fail_fast: Annotated[
        bool, typer.Option("--fail-fast", help="Begin no job after one has failed.")
    ] = False,
    json: Json = False,
) -> None:
    """Grow many teachers; exit 1 if a job failed.

    Example: ckgrow batch jobs.yaml --jobs 4
    """
    from ckgrow.batches import batch as grow_all
    from ckgrow.cli.batch_progress import watching_batch
    from ckgrow.reports.documents import to_json

    with watching_batch() as watched:
        document = grow_all(
            manifest,
            results=results,
            backend=backend,
            jobs=jobs,
            address=address,
            force=force,
            fail_fast=fail_fast,
            watching=watched,
        )
    if json:
        say(to_json(document))
    else:
        from ckgrow.cli.show_batch import show_batch

        show_batch(document)
    if document.failed:
        raise typer.Exit(1)
