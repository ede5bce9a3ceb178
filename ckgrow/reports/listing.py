"""What is installed, as a document."""

from __future__ import annotations

from dataclasses import dataclass

from ckgrow.architecture import Option
from ckgrow.methods import methods
from ckgrow.registry import architectures, formats


@dataclass(frozen=True)
class ArchitectureRow:
    """One architecture; ``targets`` are names for a step ``target``."""

    name: str
    summary: str
    options: tuple[Option, ...]
    targets: tuple[str, ...]


@dataclass(frozen=True)
class FormatRow:
    """One file format."""

    name: str
    suffixes: tuple[str, ...]
    writable: bool


@dataclass(frozen=True)
class MethodRow:
    """One growth method; ``verb`` says what it does to what."""

    name: str
    verb: str
    summary: str


@dataclass(frozen=True)
class AdaptersDocument:
    """Architectures, formats and methods."""

    architectures: tuple[ArchitectureRow, ...]
    formats: tuple[FormatRow, ...]
    methods: tuple[MethodRow, ...]
    schema: str = "ckgrow.adapters/1"


def list_adapters() -> AdaptersDocument:
    """Everything that the registry and the methods folder offer."""
    return AdaptersDocument(
        tuple(
            ArchitectureRow(each.name, each.summary, each.options, tuple(each.targets))
            for each in architectures().values()
        ),
        tuple(FormatRow(each.name, each.suffixes, each.writable) for each in formats().values()),
        tuple(
            MethodRow(each.name, each.verb, (type(each).__doc__ or "").strip().splitlines()[0])
            for each in methods()
        ),
    )
