"""The same tensors in another format, bit for bit."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass

from ckgrow.checkpoint import (
    ComparingFormat,
    ContainerReader,
    ContainerWriter,
    Content,
    Reader,
    Sink,
)
from ckgrow.errors import CheckpointError, CkgrowError, FileError
from ckgrow.execute import content_hash, execute, hash_content
from ckgrow.files import open_checkpoint
from ckgrow.graph import Graph
from ckgrow.loading import Opened, Wish, recognised
from ckgrow.names import shown_path
from ckgrow.outputs import Output
from ckgrow.recipes import Recipe, Stored
from ckgrow.reports.documents import ConvertDocument
from ckgrow.watching import Watching


@dataclass(frozen=True)
class Copied:
    """A copy that was published: the content hash, and the names of its files but the main one."""

    hash: str
    files: tuple[str, ...]


def convert_checkpoint(
    source: Opened,
    output: Output,
    *,
    force: bool,
    workers: int,
    watching: Watching,
) -> ConvertDocument:
    """Writes what ``source`` holds as ``output``, and says what that was; see the next function."""
    copied = copy_checkpoint(
        source, output, force=force, workers=workers, watching=watching, graph=_graph(source)
    )
    header = source.reader.header
    return ConvertDocument(
        source.label,
        shown_path(output.place),
        output.format.name,
        len(header),
        sum(spec.nbytes for spec in header.values()),
        copied.hash,
        output.left_behind(source.reader.contents),
    )


def copy_checkpoint(
    source: Opened,
    output: Output,
    *,
    force: bool,
    workers: int,
    watching: Watching,
    graph: Graph | None,
) -> Copied:
    """Writes what ``source`` holds as ``output``, reads it back, and publishes it.

    ``graph`` is its network, None where that is unknown. Raises CheckpointError for what the format
    cannot hold, and where what was written is not what was read; FileError where it cannot be
    written. Nothing is left behind then.
    """
    contents = source.reader.contents
    with output.part(force=force) as part:
        part.require_free()
        content = _content(source, output, graph)
        total = sum(spec.nbytes for spec in content.header.values())
        watching.begin("converting", total * (1 + len(output.twins(contents))))
        writer = output.format.create(part, content)
        try:
            digest = _copied(source.reader, writer, workers, watching.advance)
            twins = {}
            if isinstance(writer, ContainerWriter) and isinstance(source.reader, ContainerReader):
                for name in output.twins(contents):
                    twin = source.reader.twin(name)
                    sink = writer.twin(name, twin.header, twin.contents.ties)
                    twins[name] = _copied(twin, sink, workers, watching.advance)
            writer.finish({})
        except BaseException:
            writer.abandon()
            raise
        watching.begin("reading it back", 0)
        with closing(open_checkpoint(part.opened(), output.weights(contents))) as written:
            if not (
                _holds(written, output, content)
                and hash_content(written, workers) == digest
                and _hashes(written, workers) == twins
            ):
                raise CheckpointError(
                    f"{shown_path(output.place)} would not hold what was read: something else "
                    "wrote to it, or the disk is at fault; nothing was published, run again"
                )
            files = tuple(file.name for file in written.files()[1:])
        if not source.reader.unchanged():
            raise FileError(
                f"{source.label} changed while it was read; run again when nothing writes to it"
            )
        part.publish()
    return Copied(digest, files)


def _content(source: Opened, output: Output, graph: Graph | None) -> Content:
    """Everything of the source that a format may want to hold."""
    contents = source.reader.contents
    return Content(
        source.reader.header,
        contents.metadata,
        graph,
        source.prefix,
        contents.ties,
        contents.container,
        output.drop,
        output.shard_size,
    )


def _graph(source: Opened) -> Graph | None:
    """The network of the tensors, where it is known; formats hold tensors without one as well."""
    try:
        return recognised(source, Wish()).network.graph
    except CkgrowError:
        return None


def _copied(reader: Reader, sink: Sink, workers: int, advance: Callable[[int], None]) -> str:
    """Writes all tensors of ``reader``; their content hash."""
    copies: Mapping[str, Recipe] = {
        name: Stored(spec, name) for name, spec in reader.header.items()
    }
    return content_hash(reader.header, execute(copies, reader.read, sink, workers, advance))


def _holds(written: Reader, output: Output, content: Content) -> bool:
    writing = output.format
    return not isinstance(writing, ComparingFormat) or writing.holds(written, content)


def _hashes(written: Reader, workers: int) -> dict[str, str]:
    """The content hashes of all state dicts but the weights, by name."""
    if not isinstance(written, ContainerReader):
        return {}
    return {name: hash_content(written.twin(name), workers) for name in written.contents.twins}
