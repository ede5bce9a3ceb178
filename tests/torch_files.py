"""torch files for tests: read back by torch itself, and written again by the format."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from written_files import Here, opened

from ckgrow.checkpoint import Content
from ckgrow.registry import formats

FORMAT = formats()["torch"]


def loaded(path: Path) -> Any:
    return torch.load(path, weights_only=True)


def raw(tensor: torch.Tensor) -> bytes:
    return tensor.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()


def resaved(path: Path, to: Path, metadata: Any = None, weights: Any = None, **more: Any) -> Any:
    """What comes of a torch file that is read and written again, twins and all."""
    reader = opened(FORMAT, path, weights)
    contents = reader.contents
    metadata = contents.metadata if metadata is None else metadata
    content = Content(
        reader.header, metadata, ties=contents.ties, container=contents.container, **more
    )
    writer = FORMAT.create(Here(to), content)
    copied(reader, writer)
    for name in contents.twins:
        if name not in content.drop:
            twin = reader.twin(name)
            copied(twin, writer.twin(name, twin.header, twin.contents.ties))
    writer.finish({})
    reader.close()
    return loaded(to)


def copied(reader: Any, sink: Any) -> None:
    for name, spec in reader.header.items():
        sink.write(name, 0, reader.read(name, 0, spec.shape[0] if spec.shape else 1))
