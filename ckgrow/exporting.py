"""A checkpoint's network as a file that other programs run."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import NoReturn

from ckgrow.checkpoint import Content, GraphFormat, Reader, Span
from ckgrow.converting import copy_checkpoint
from ckgrow.errors import CheckpointError, FileError, SpecError
from ckgrow.files import open_checkpoint
from ckgrow.loading import Opened, Wish, recognised
from ckgrow.names import shown, shown_path
from ckgrow.outputs import Output
from ckgrow.places import is_remote
from ckgrow.registry import formats
from ckgrow.reports.documents import ExportDocument
from ckgrow.shapes import infer_shapes
from ckgrow.watching import Watching

_EMBED = "or add --embed, which puts the weights into the model"


def export_checkpoint(
    source: Opened,
    wish: Wish,
    output: Output,
    *,
    embed: bool,
    force: bool,
    workers: int,
    watching: Watching,
) -> ExportDocument:
    """Writes the network of ``source`` as ``output``: with its weights where ``embed`` says so.

    Without, the model points to the tensors where they are, which has to be in its folder or below.
    Raises SpecError where the format holds no networks, FileError where the tensors are elsewhere
    or the output cannot be written. Nothing is left behind then.
    """
    loaded = recognised(source, wish)
    if not isinstance(output.format, GraphFormat):
        known = [each for each in formats().values() if isinstance(each, GraphFormat)]
        suffixes = ", ".join(suffix for each in known for suffix in each.suffixes)
        raise SpecError(
            f"{shown_path(output.place)}: {output.format.name} holds tensors without a network; "
            f"'ckgrow export' writes {suffixes}, 'ckgrow convert' the others"
        )
    graph = loaded.network.graph
    if embed:
        files = copy_checkpoint(
            source, output, force=force, workers=workers, watching=watching, graph=graph
        ).files
    else:
        content = Content(
            source.reader.header, source.reader.contents.metadata, graph, source.prefix
        )
        files = _link(source, output.format, content, output, force=force)
    shapes = infer_shapes(graph, loaded.header)
    return ExportDocument(
        source.label,
        shown_path(output.place),
        loaded.architecture.name,
        dict(graph.inputs),
        {name: shapes[name] for name in graph.outputs},
        len(source.reader.header),
        sum(spec.nbytes for spec in source.reader.header.values()),
        files,
    )


def _link(
    source: Opened, writing: GraphFormat, content: Content, output: Output, *, force: bool
) -> tuple[str, ...]:
    """Writes the model that points to the tensors, reads it back, and publishes it.

    Returns the names of the files that it points to, from its folder.
    """
    if is_remote(output.place):
        raise FileError(
            f"{shown_path(output.place)} is elsewhere than the weights; write the model beside "
            f"them, {_EMBED}"
        )
    with output.part(force=force) as part:
        part.require_free()
        folder = part.path.parent
        spans = _spans(source, folder, shown_path(output.place))
        writing.link(part, content, spans)
        with closing(open_checkpoint(part.opened())) as written:
            _require_same(written, content, spans, shown_path(output.place))
        if not source.reader.unchanged():
            raise FileError(
                f"{source.label} changed while it was read; run again when nothing writes to it"
            )
        part.publish()
    return tuple(sorted({os.path.relpath(span.path, folder) for span in spans.values()}))


def _spans(source: Opened, folder: Path, place: str) -> dict[str, Span]:
    """Where all but empty tensors stand in or below ``folder``, by paths that begin with it."""
    homes: dict[Path, Path] = {}
    spans = {}
    for name, spec in source.reader.header.items():
        if not spec.nbytes:
            continue
        span = source.reader.span(name)
        if span is None:
            _refuse(
                f"{source.label} does not store tensor {shown(name)} as it is in memory, in a file "
                "of this machine; convert it to .safetensors first"
            )
        if span.path not in homes:
            homes[span.path] = _pointed_at(span.path, folder, place)
        spans[name] = Span(homes[span.path], span.offset, span.size)
    return spans


def _pointed_at(path: Path, folder: Path, place: str) -> Path:
    """The file as the model is to name it, where that will be allowed."""
    home = path.parent.resolve() / path.name
    if not home.is_relative_to(folder):
        _refuse(
            f"{place} would point to {shown_path(path)}, which is not in its folder; write the "
            "model beside it"
        )
    if path.is_symlink():
        _refuse(
            f"{shown_path(path)} is a symbolic link, which ONNX models may not point to; export "
            "the file that it leads to"
        )
    if os.stat(path).st_nlink > 1:
        _refuse(
            f"{shown_path(path)} has another name elsewhere (a hard link), which ONNX models may "
            "not point to; export a copy"
        )
    return home


def _refuse(reason: str) -> NoReturn:
    raise FileError(f"{reason}, {_EMBED}")


def _require_same(written: Reader, content: Content, spans: Mapping[str, Span], place: str) -> None:
    found = {name: written.span(name) for name in spans}
    if dict(written.header) != dict(content.header) or found != spans:
        raise CheckpointError(
            f"{place} would not point to the tensors that were read; nothing was published, please "
            "report it"
        )
