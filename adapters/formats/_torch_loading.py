"""Turns a torch file into Python objects without running what is pickled in it.

``torch.load`` with ``weights_only=True`` rebuilds tensors and plain containers and refuses any
other class. Two more are let in, since training scripts save them beside the weights and neither
runs code: the settings of argparse, and numpy's single numbers. A file that needs more is an error.
"""

from __future__ import annotations

import argparse
import re
import warnings
import zipfile
from typing import Any

import numpy as np

from ckgrow.checkpoint import File
from ckgrow.errors import CheckpointError
from ckgrow.names import shown

ZIP_START = b"PK\x03\x04"

_EXPANSION = 4  # torch stores without compression; other tools may repack mildly
_SLACK = 1 << 20  # small archives of text compress better than that
_FOREIGN_CLASS = re.compile(r"GLOBAL (\S+) (?:was not an allowed global|whose module)")
_NO_MEMORY = re.compile(r"not enough memory|can't allocate memory")


def load(file: File) -> tuple[Any, int]:
    """What the file holds, and how many bytes of tensors it can hold at most.

    Raises CheckpointError.
    """
    try:
        capacity = _capacity(file)
        import torch

        # Warnings are about how the file was made, which its reader cannot change.
        plain = torch.serialization.safe_globals(_plain_classes())
        with warnings.catch_warnings(), plain, file.stream() as stream:
            warnings.simplefilter("ignore")
            loaded = torch.load(stream, map_location="cpu", weights_only=True, mmap=False)
    except CheckpointError:
        raise
    except Exception as failure:  # noqa: BLE001 - a forged file can make torch raise anything
        raise CheckpointError(_explained(failure, file.place)) from None
    return loaded, capacity


def _plain_classes() -> list[Any]:
    """What is let in besides: functions and classes, some under the name they had earlier."""
    scalar = np.float64(0).__reduce__()[0]
    kinds = {type(np.dtype(each)) for each in (*np.typecodes["AllInteger"], *"?efd")}
    return [
        argparse.Namespace,
        scalar,
        (scalar, "numpy.core.multiarray.scalar"),
        np.dtype,
        *sorted(kinds, key=lambda kind: kind.__name__),
    ]


def _capacity(file: File) -> int:
    """The file's size, or that of an archive's unpacked entries; refuses archives that explode."""
    if file.read(0, min(len(ZIP_START), file.size)) != ZIP_START:
        return file.size
    with file.stream() as stream, zipfile.ZipFile(stream) as archive:
        unpacked = sum(entry.file_size for entry in archive.infolist())
    if unpacked > _EXPANSION * file.size + _SLACK:
        raise CheckpointError(
            f"{file.place} is a compressed archive that expands from {file.size} to {unpacked} "
            "bytes; torch never writes such a file. If it is yours, save it again with torch.save"
        )
    return unpacked


def _explained(failure: Exception, place: str) -> str:
    """What went wrong; of torch's own text only the cause, never its advice to trust the file."""
    text = str(failure)
    foreign = _FOREIGN_CLASS.search(text)
    if foreign:
        return (
            f"{place} holds a pickled {shown(foreign.group(1))}, and unpickling such an object "
            "runs code from the file. ckgrow reads tensors only: where you trust the file, load "
            "it and save its tensors with torch.save(model.state_dict(), ...)"
        )
    if isinstance(failure, MemoryError) or _NO_MEMORY.search(text):
        return (
            f"{place} needs more memory than there is; torch files are loaded whole, so save the "
            "tensors as .safetensors, which is read piece by piece"
        )
    cause = "its pickle is not one that torch.save writes by default"
    if isinstance(failure, RuntimeError | zipfile.BadZipFile):
        cause = _first_line(text)
    return (
        f"{place} cannot be read as a torch file: {cause}. It is cut short, damaged or something "
        "else; fetch it again, or save it again with torch.save"
    )


def _first_line(text: str, longest: int = 120) -> str:
    """The first sentence of a library's message, which may quote the file."""
    line = text.partition("\n")[0].partition(". ")[0].rstrip(".")
    visible = "".join(each if each.isprintable() else "?" for each in line)
    return visible if len(visible) <= longest else visible[:longest] + "..."
