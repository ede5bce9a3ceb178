"""The file of a report page: claimed before the long run begins, published whole at its end."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType

from ckgrow.errors import FileError
from ckgrow.names import shown_path
from ckgrow.publishing import PartFile
from ckgrow.reasons import unreadable, unwritable

START = b"<!doctype html>"


class ReportFile:
    """A report at ``path``, which takes the place of an earlier one.

    Entering the context shows whether it can be written: FileError where the folder is missing or
    closed, where a directory has that name, where another run writes it, and where it would take
    the place of anything but a page: ``sources``, the files it is about, are none either way. Until
    :meth:`publish` nothing changes.
    """

    def __init__(self, path: Path, sources: Iterable[Path | None] = ()) -> None:
        self._part = PartFile(path, force=True)
        for source in sources:
            if source is not None and self._part.taken and source.samefile(self._part.target):
                raise FileError(
                    f"{shown_path(path)} is one of the files that the report is about; name "
                    "another file for the report"
                )
        if self._part.taken and not _is_page(self._part.target):
            raise FileError(
                f"{shown_path(path)} exists and is no page that a report could replace; name "
                "another file for the report"
            )

    def __enter__(self) -> ReportFile:
        self._part.__enter__()
        return self

    def publish(self, page: str) -> None:
        """Writes the page and gives it its name."""
        try:
            with self._part.path.open("w", encoding="utf-8") as file:
                file.write(page)
                file.flush()
                os.fsync(file.fileno())
        except OSError as failure:
            raise FileError(
                f"{self._part.shown} cannot be written: {unwritable(failure)}"
            ) from None
        self._part.publish()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._part.__exit__(kind, error, traceback)


def _is_page(path: Path) -> bool:
    """Whether a file begins as a report does; an empty one may be replaced as well."""
    try:
        with path.open("rb") as file:
            start = file.read(len(START))
    except OSError as failure:
        raise FileError(f"{shown_path(path)} cannot be read: {unreadable(failure)}") from None
    return start in (START, b"")
