"""The end of a batch as people read it in a terminal."""

from __future__ import annotations

from ckgrow.batches import BatchDocument
from ckgrow.cli.tables import console, table
from ckgrow.names import shown_path

MOST_FAILURES = 20
"""Most failures that are listed; all of them stand in the results."""


def show_batch(document: BatchDocument) -> None:
    """What failed and why, how many jobs ended how, and where the records are."""
    out = console()
    failures = document.failures[:MOST_FAILURES]
    if failures:
        rows = [(shown_path(each.output), each.error or "") for each in failures]
        table(out, ("failed", "error"), rows)
    if len(document.failures) > len(failures):
        out.print(f"... and {len(document.failures) - len(failures)} more")
    counts = (document.jobs, document.done, document.skipped, document.failed, document.not_run)
    heads = ("jobs", "done", "skipped", "failed", "not run", "seconds")
    table(out, heads, [(*map(str, counts), f"{document.seconds:.1f}")])
    out.print(f"records: {document.results}")
