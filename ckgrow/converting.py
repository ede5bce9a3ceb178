"""The same tensors in another format, bit for bit."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from ckgrow.checkpoint import ContainerReader, ContainerWriter, Content, Reader, Sink
from ckgrow.errors import CheckpointError, CkgrowError, FileError
from ckgrow.execute import content_hash, execute, hash_tensors
from ckgrow.files import open_checkpoint
from ckgrow.graph import Graph
from ckgrow.header import Header
from ckgrow.loading import Opened, Wish, recognised
from ckgrow.measuring import Read
from ckgrow.names import shown_path
from ckgrow.outputs import Output
from ckgrow.recipes import Recipe, Stored
from ckgrow.reports.documents import ConvertDocument
from ckgrow.watching import Watching


def convert_checkpoint(
    source: Opened,
    output: Output,
    *,
    force: bool,
    workers: int,
    watching: Watching,
    graph: Graph | None = None,
) -> ConvertDocument:
    """Writes what ``source`` holds as ``output``, reads it back, and publishes it.

    ``graph`` is its network, where the caller knows it; otherwise it is looked for.
    Raises CheckpointError for what the format cannot hold, and where the written tensors are not
    those that were read; FileError where it cannot be written. Nothing is left behind then.
    """
    header, contents = source.reader.header, source.reader.contents
    total = sum(spec.nbytes for spec in header.values())
    with output.part(force=force) as part:
        part.require_free()
        watching.begin("converting", total)
        writer = output.format.create(part, _content(source, output, graph or _graph(source)))
        try:
            digest = content_hash(
                header, _copied(header, source.reader.read, writer, workers, watching.advance)
            )
            if isinstance(writer, ContainerWriter) and isinstance(source.reader, ContainerReader):
                for name in output.twins(contents):
                    twin = source.reader.twin(name)
                    sink = writer.twin(name, twin.header, twin.contents.ties)
                    _copied(twin.header, twin.read, sink, workers, watching.advance)
            writer.finish({})
        except BaseException:
            writer.abandon()
            raise
        watching.begin("reading it back", 0)
        written = open_checkpoint(part.opened(), output.weights(contents))
        _require_same(written, digest, workers, shown_path(output.place))
        if not source.reader.unchanged():
            raise FileError(
                f"{source.label} changed while it was read; run again when nothing writes to it"
            )
        part.publish()
    return ConvertDocument(
        source.label,
        shown_path(output.place),
        output.format.name,
        len(header),
        total,
        digest,
        output.left_behind(contents),
    )


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


def _copied(
    header: Header, read: Read, sink: Sink, workers: int, advance: Callable[[int], None]
) -> dict[str, str]:
    copies: Mapping[str, Recipe] = {name: Stored(spec, name) for name, spec in header.items()}
    return execute(copies, read, sink, workers, advance)


def _require_same(written: Reader, digest: str, workers: int, place: str) -> None:
    try:
        found = content_hash(written.header, hash_tensors(written.header, written.read, workers))
    finally:
        written.close()
    if found != digest:
        raise CheckpointError(
            f"{place} would not hold the tensors that were read: something else wrote to it, or "
            "the disk is at fault; nothing was published, run again"
        )
