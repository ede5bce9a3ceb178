"""Where a test has a format write its files: beside each other in a folder, under their names."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ckgrow.checkpoint import Content, Format, Reader
from ckgrow.files import RegularFile
from ckgrow.header import Header, TensorSpec


@dataclass(frozen=True)
class Here:
    """A target whose companions have their last names already."""

    path: Path

    @property
    def name(self) -> str:
        return self.path.name

    def companion(self, name: str) -> Path:
        return self.path.with_name(name)

    def replaced(self) -> None:
        """Nothing is."""

    def outdate(self, name: str) -> None:
        """The file goes at once."""
        self.path.with_name(name).unlink(missing_ok=True)


def opened(form: Format, path, weights=None) -> Reader:
    file = RegularFile(path)
    try:
        return form.open(file, weights)
    except BaseException:
        file.close()
        raise


def created(form: Format, path, header, metadata=None, **more):
    return form.create(Here(Path(path)), Content(header, metadata or {}, **more))


def write(form: Format, path, tensors, metadata=None, **more) -> None:
    """Whole arrays by name, written as a student is."""
    specs = {name: TensorSpec(each.dtype.name, each.shape) for name, each in tensors.items()}
    writer = created(form, path, Header(specs), metadata, **more)
    for name, each in tensors.items():
        writer.write(name, 0, np.atleast_1d(each))
    writer.finish({})
