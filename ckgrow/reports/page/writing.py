"""The file of a report page: claimed before the long run begins, published whole at its end."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType

from ckgrow.errors import FileError
from ckgrow.names import shown_path
from ckgrow.publishing import PartFile


class ReportFile:
    """A report at ``path``, which takes the place of an earlier one.

    Entering the context shows whether it can be written: FileError where the folder is missing or
    closed, where a directory has that name, where another run writes it, and where it would take
    the place of one of ``sources``, the files it is about. Until :meth:`publish` nothing changes.
    """

    def __init__(self, path: Path, sources: Iterable[Path | None] = ()) -> None:
        self._part = PartFile(path, force=True)
        for source in sources:
            if source is not None and self._part.taken and source.samefile(self._part.target):
                raise FileError(
                    f"{shown_path(path)} is one of the files that the report is about; name "
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
                f"{self._part.shown} cannot be written: {failure.strerror}; choose another place"
            ) from None
        self._part.publish()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._part.__exit__(kind, error, traceback)
