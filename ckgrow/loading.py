"""Opens a checkpoint and makes a network of it: format, prefix, provenance, architecture."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from ckgrow.architecture import Architecture, Network
from ckgrow.checkpoint import PROVENANCE_KEY, ContainerReader, File, Reader
from ckgrow.errors import CheckpointError, CkgrowError, SpecError, UnrecognisedError
from ckgrow.files import open_checkpoint
from ckgrow.header import Header, common_prefix
from ckgrow.memory import MemoryReader
from ckgrow.names import shown, shown_path
from ckgrow.places import Place, is_remote, local
from ckgrow.provenance import UNPLACED, Provenance, most_recorded
from ckgrow.recognition import build, recognise
from ckgrow.registry import architectures
from ckgrow.shapes import infer_shapes
from ckgrow.verdict.running import Side

Tensors = Mapping[str, Any]
Source = Place | File | Tensors
"""Where a checkpoint comes from: a place, a file that is open already, or tensors in memory."""


@dataclass(frozen=True)
class Opened:
    """An open checkpoint whose network is not known yet.

    ``place`` is where it is, as it was given, which may hold secrets; messages say ``label``. It
    is None for tensors in memory. ``header`` has names without the wrapper ``prefix`` that all keys
    of the file share; ``provenance`` is that of a student of an earlier run, and ``lender`` the
    file that it was taken from where the checkpoint's own is lost.
    """

    label: str
    place: Place | None = field(repr=False)
    reader: Reader
    prefix: str
    header: Header
    provenance: Provenance | None
    lender: str = ""


@dataclass(frozen=True)
class Loaded:
    """An open checkpoint with its network; the rest is as in :class:`Opened`."""

    label: str
    place: Place | None = field(repr=False)
    reader: Reader
    prefix: str
    header: Header
    architecture: Architecture
    network: Network
    provenance: Provenance | None
    lender: str = ""

    def read(self, name: str, start: int, stop: int) -> np.ndarray:
        """Rows of a tensor by its name without prefix."""
        return self.reader.read(self.prefix + name, start, stop)

    def tensor(self, name: str) -> np.ndarray:
        """A whole tensor in its stored dtype and shape."""
        shape = self.header.shape(name)
        return self.read(name, 0, shape[0] if shape else 1).reshape(shape)

    @property
    def path(self) -> Path | None:
        """Where this machine has it; None where it has not."""
        return None if self.place is None or is_remote(self.place) else local(self.place)

    @property
    def ties(self) -> tuple[tuple[str, ...], ...]:
        """Tensors that are one parameter, by their names without prefix."""
        tied = self.reader.contents.ties
        return tuple(tuple(name[len(self.prefix) :] for name in each) for each in tied)

    @property
    def side(self) -> Side:
        """As the runtimes take it."""
        return Side(self.label, self.network.graph, self.header, self.tensor)

    @cached_property
    def defects(self) -> Mapping[str, float]:
        """How far its record says rounded nodes are off, as far as that can be."""
        known = self.provenance.defects if self.provenance else {}
        return {name: min(defect, self._most_off(name)) for name, defect in known.items()}

    def _most_off(self, node: str) -> float:
        """Of one node, or of all together where it is not known which."""
        nodes = (each for each in self.network.graph.nodes if node in (each.name, UNPLACED))
        specs = (self.header.get(each.input(1)) for each in nodes)
        dtypes = (spec.dtype for spec in specs if spec is not None and spec.is_float)
        return sum(map(most_recorded, dtypes))

    def __enter__(self) -> Loaded:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.reader.close()


@dataclass(frozen=True)
class Wish:
    """What is stated about a checkpoint; None and {} leave it to inference.

    A wish that is not ``binding`` gives way to a student's own provenance, and to the keys and
    shapes of a checkpoint that it does not fit.
    """

    architecture: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    weights: str | None = None
    binding: bool = True


def load(source: Source, wish: Wish) -> Loaded:
    """Opens ``source`` and recognises its network.

    Raises FileError, CheckpointError or SpecError; the file is closed again then.
    """
    opened = open_source(source, wish.weights)
    try:
        return recognised(opened, wish)
    except BaseException:
        opened.reader.close()
        raise


def open_source(source: Source, weights: str | None = None) -> Opened:
    """Opens ``source`` and reads what it says of itself; ``weights`` as in :class:`Wish`."""
    place: Place | None = None
    reader: Reader
    if isinstance(source, Mapping):
        label, reader = "the given tensors", MemoryReader(source)
    elif isinstance(source, str | Path):
        place, label, reader = source, shown_path(source), open_checkpoint(source, weights)
    else:
        place, label, reader = source.path, source.place, open_checkpoint(source, weights)
    try:
        return _opened(label, place, reader)
    except BaseException:
        reader.close()
        raise


def twin(loaded: Loaded, name: str, wish: Wish) -> Loaded:
    """Another state dict of the same container, with its network; the file stays ``loaded``'s."""
    if not isinstance(loaded.reader, ContainerReader):
        raise TypeError(f"{loaded.label} is no container")
    label = f"{shown(name)} of {loaded.label}"
    return recognised(_opened(label, loaded.place, loaded.reader.twin(name)), wish)


def _opened(label: str, place: Place | None, reader: Reader) -> Opened:
    prefix = common_prefix(reader.header)
    header = Header({name[len(prefix) :]: spec for name, spec in reader.header.items()})
    text = reader.contents.metadata.get(PROVENANCE_KEY)
    provenance = Provenance.from_json(text, label) if text is not None else None
    return Opened(label, place, reader, prefix, header, provenance)


def recognised(opened: Opened, wish: Wish) -> Loaded:
    """The checkpoint with its network: by its provenance, or by its keys and shapes.

    Where all keys stand under one module (``model.``, as a training framework's own module holds
    the network), and make sense only without it, that module's name is a prefix too. Raises
    CheckpointError or SpecError; the file stays open.
    """
    try:
        return _recognised(opened, wish)
    except UnrecognisedError:
        inner = _without_outer_module(opened)
        if inner is not None:
            with suppress(UnrecognisedError):
                return recognised(inner, wish)
        raise


def _without_outer_module(opened: Opened) -> Opened | None:
    first = next(iter(opened.header), "").partition(".")
    outer = first[0] + first[1]
    if not first[2] or not all(name.startswith(outer) for name in opened.header):
        return None
    header = Header({name[len(outer) :]: spec for name, spec in opened.header.items()})
    return replace(opened, prefix=opened.prefix + outer, header=header)


def _recognised(opened: Opened, wish: Wish) -> Loaded:
    header, label, provenance = opened.header, opened.label, opened.provenance
    restored = None
    if provenance is not None:
        wish = wish if wish.binding else Wish()
        restored = _restored(header, provenance, wish, label)
    adapter, network = restored or _by_keys_and_shapes(header, wish, label)
    return Loaded(
        label,
        opened.place,
        opened.reader,
        opened.prefix,
        header,
        adapter,
        network,
        provenance,
        opened.lender,
    )


def _by_keys_and_shapes(header: Header, wish: Wish, label: str) -> tuple[Architecture, Network]:
    if not (wish.binding or _fits(header, wish.architecture)):
        wish = Wish()
    adapter = recognise(header, wish.architecture, label)
    try:
        network = build(adapter, header, wish.options, label)
    except SpecError:
        if wish.binding:
            raise
        network = build(adapter, header, {}, label)
    infer_shapes(network.graph, header)
    return adapter, network


def _fits(header: Header, architecture: str | None) -> bool:
    adapter = architectures().get(architecture or "")
    return adapter is not None and adapter.explain(header).complete


def _restored(
    header: Header, provenance: Provenance, wish: Wish, label: str
) -> tuple[Architecture, Network] | None:
    """The network as its provenance tells it; None when the tensors are no longer those."""
    adapter = architectures().get(provenance.architecture)
    if adapter is None or wish.architecture not in (None, provenance.architecture):
        return None
    options = {**provenance.options, **wish.options}
    if provenance.graph is None:
        if not adapter.explain(header).complete:
            return None
        network = build(adapter, header, options, label)
        infer_shapes(network.graph, header)
        return adapter, network
    if options != dict(provenance.options):
        raise SpecError(
            f"{label} carries its own graph, which options cannot change; leave them out of the "
            "spec ('teacher: options:') and of the command (--option)"
        )
    try:
        infer_shapes(provenance.graph, header)
    except CkgrowError:
        return None
    except Exception as damage:  # noqa: BLE001 - attributes from a file may be of any type
        raise CheckpointError(
            f"{label}: the graph in its ckgrow entry is damaged ({type(damage).__name__}); "
            "remove the entry 'ckgrow' from the file's metadata to read it as it is"
        ) from None
    read = set(provenance.graph.parameters())
    spare = tuple(name for name in header if name not in read)
    return adapter, Network(provenance.graph, provenance.assumptions, spare, provenance.options)
