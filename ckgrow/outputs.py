"""What is to be written, and in which format: as the name of the output says."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from ckgrow.checkpoint import Contents, File, Format, Target
from ckgrow.errors import SpecError
from ckgrow.files import Stamps, require_other
from ckgrow.loading import Loaded, Opened
from ckgrow.names import first_few, guess, shown, shown_path
from ckgrow.places import Place, beside, inside, is_remote, local, name_of
from ckgrow.publishing import PartFile
from ckgrow.registry import format_named, formats
from ckgrow.uploading import UploadedPart

SHARD_SIZE = 5_000_000_000
"""Bytes of tensors in a file of a checkpoint in parts, unless stated; what others write."""


class Part(Target, Protocol):
    """A checkpoint in the making, which is published as a whole or not at all."""

    @property
    def taken(self) -> bool:
        """Whether a file bears the name already."""
        ...

    def require_free(self) -> None:
        """FileError when a file bears the name already and may not be replaced."""
        ...

    def opened(self) -> File:
        """The main file as it stands, under the name that it will have, to be closed again."""
        ...

    def stamps(self) -> Stamps:
        """Of the files as they are written, by the paths that they will have on this machine."""
        ...

    def publish(self) -> None:
        """Gives the files their names; FileError when something took the name meanwhile."""
        ...

    def keep_failed(self) -> Path:
        """Leaves the files as ``<name>.failed``, for whoever wants to look at them."""
        ...


@dataclass(frozen=True)
class Output:
    """A checkpoint to be written: its main file, its format, and what is not to be carried over.

    A file of a checkpoint in parts has at most ``shard_size`` bytes of tensors. The files ``keep``
    are the teacher's, and none of them is replaced.
    """

    place: Place
    format: Format
    drop: tuple[str, ...] = ()
    shard_size: int = SHARD_SIZE
    keep: tuple[File, ...] = ()

    def weights(self, source: Contents) -> str | None:
        """What the weights of ``source`` are called in the output; None where they are all."""
        return source.weights if self.format.containers else None

    def twins(self, source: Contents) -> tuple[str, ...]:
        """The other state dicts of ``source`` that the output has too."""
        carried = source.twins if self.format.containers else ()
        return tuple(name for name in carried if name not in self.drop)

    def left_behind(self, source: Contents) -> tuple[str, ...]:
        """What ``source`` holds and the output does not."""
        return self.drop if self.format.containers else source.dropped

    def part(self, *, force: bool) -> AbstractContextManager[Part]:
        """What is written first, here or elsewhere; nothing of it is left when it ends."""
        if is_remote(self.place):
            return UploadedPart(str(self.place), force=force, keep=self.keep)
        return PartFile(self.place, force=force, keep=self.keep)


def output_of(
    source: Loaded | Opened,
    place: Place,
    *,
    shard_size: int | None = None,
    drop: Sequence[str] = (),
    grows: bool = True,
) -> Output:
    """The output that ``place`` names, for what comes out of ``source``.

    A folder, or a shard size, asks for a checkpoint in parts. What is merely copied does not
    ``grow``. Raises SpecError where ckgrow does not write it so, or would have to leave out what
    ``source`` holds; FileError where the output is the source itself, or part of it.
    """
    main = _main_file(place, in_parts=shard_size is not None)
    files = source.reader.files()
    require_other(main, files)
    writing = _format_for(main)
    if shard_size is not None and shard_size < 1:
        raise SpecError("--shard-size: a file holds at least one byte of tensors")
    _require_beside_weights(source.reader.contents, drop)
    if writing.containers and grows:
        _require_all_grown(source.reader.contents, main, drop)
    return Output(main, writing, tuple(drop), shard_size or SHARD_SIZE, files)


def _main_file(place: Place, *, in_parts: bool) -> Place:
    """The file that stands for all: the index of a checkpoint in parts."""
    parts = next((each for each in formats().values() if each.shards and each.writable), None)
    if _is_folder(place) and parts is not None:
        return inside(place, f"model{parts.suffixes[0]}")
    if not in_parts:
        return place
    name = name_of(place)
    for each in formats().values():
        if each.shards and name.lower().endswith(each.suffixes):
            return place
        if each.shards and name.lower().endswith(each.shards):
            return beside(place, name[: -len(each.shards)] + each.suffixes[0])
    known = ", ".join(each.shards for each in formats().values() if each.shards)
    raise SpecError(
        f"{shown_path(place)}: --shard-size is for checkpoints in several files, {known} or a "
        "folder; leave it out, or write such a one"
    )


def _is_folder(place: Place) -> bool:
    if place == "":  # nothing was named; as a path it would be the folder that one is in
        return False
    return str(place).endswith("/") or (not is_remote(place) and os.path.isdir(local(place)))


def _format_for(place: Place) -> Format:
    found = format_named(name_of(place))
    if found is not None and found.writable:
        return found
    writable = ", ".join(
        suffix for each in formats().values() if each.writable for suffix in each.suffixes
    )
    suffix = local(name_of(place)).suffix
    raise SpecError(
        f"{shown_path(place)}: the suffix says which format to write, and ckgrow does not write "
        f"{shown_path(suffix) if suffix else 'files without one'}; it writes {writable}"
    )


def _require_beside_weights(contents: Contents, drop: Iterable[str]) -> None:
    """What is to be left out is there, and is not the weights."""
    beside_weights = (*contents.twins, *contents.ungrown, *contents.dropped)
    for name in drop:
        if name == contents.weights:
            raise SpecError(
                f"--drop {shown(name)}: these are the weights that are read; choose others with "
                "--weights to leave them out"
            )
        if name not in beside_weights:
            raise SpecError(
                f"--drop {shown(name)}: there is no such entry beside the weights"
                f"{guess(name, beside_weights)}"
            )


def _require_all_grown(contents: Contents, output: Place, drop: Iterable[str]) -> None:
    """A training checkpoint is written with everything in it, or what is left out was named."""
    left = [name for name in contents.ungrown if name not in drop]
    if left:
        named = " ".join(f"--drop {shown(name)}" for name in left)
        raise SpecError(
            f"{shown_path(output)}: {first_few([shown(name) for name in left])} cannot be grown "
            f"with the weights; leave that out with {named}, or write .safetensors"
        )
