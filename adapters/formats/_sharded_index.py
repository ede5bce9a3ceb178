"""The index of a checkpoint in several safetensors files: which tensor stands in which of them.

The format is that of Hugging Face's libraries
(https://huggingface.co/docs/transformers/big_models): a JSON object with ``metadata``, of which
``total_size`` is the number of bytes of all tensors, and ``weight_map``, tensors to file names.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from ckgrow.checkpoint import File
from ckgrow.errors import CheckpointError
from ckgrow.header import Header
from ckgrow.names import quoted, shown
from ckgrow.pairs import once

from ._safetensors_layout import require_text

SUFFIX = ".safetensors.index.json"
SHARD_SUFFIX = ".safetensors"

LARGEST = 100_000_000
"""In bytes; as much as the header of one safetensors file may have."""

_TOTAL = "total_size"


@dataclass(frozen=True)
class Index:
    """``weight_map`` is file names by tensor, ``metadata`` the index's own string entries."""

    weight_map: Mapping[str, str]
    metadata: Mapping[str, str]

    def text(self, total: int) -> bytes:
        """As it is written; ``total`` is the number of bytes of all tensors."""
        document = {"metadata": {**self.metadata, _TOTAL: total}, "weight_map": {**self.weight_map}}
        return json.dumps(document, indent=2, sort_keys=True).encode() + b"\n"


def read_index(file: File) -> Index:
    """The index that ``file`` holds; CheckpointError when it is none, or damaged."""
    if file.size > LARGEST:
        raise CheckpointError(
            f"{file.place} has {file.size} bytes; an index of shards has at most {LARGEST}"
        )
    try:
        document = json.loads(file.read(0, file.size).decode(), object_pairs_hook=once)
    except (UnicodeDecodeError, json.JSONDecodeError, RecursionError):
        raise CheckpointError(
            f"{file.place} is no index of shards: it is not JSON, or cut short; fetch it again"
        ) from None
    except ValueError as damage:
        raise _damaged(file, str(damage)) from None
    if not isinstance(document, dict):
        raise _damaged(file, "it is no JSON object")
    weight_map, metadata = document.get("weight_map"), document.get("metadata", {})
    if not isinstance(weight_map, dict):
        raise _damaged(file, "it has no weight_map that says which tensor is in which file")
    if not isinstance(metadata, dict):
        raise _damaged(file, "its metadata is no JSON object")
    for tensor, name in weight_map.items():
        _require_bare(file, tensor, name)
    texts = {key: text for key, text in metadata.items() if isinstance(text, str) and key != _TOTAL}
    require_text((*weight_map, *texts, *texts.values()), file.place)
    return Index(weight_map, texts)


def stem_of(name: str) -> str:
    """What the shards of the index ``name`` begin with."""
    return name[: -len(SUFFIX)] if name.lower().endswith(SUFFIX) else name


def shard_name(stem: str, number: int, count: int) -> str:
    """The name of a shard, of which ``number`` counts from 1."""
    return f"{stem}-{number:05d}-of-{count:05d}{SHARD_SUFFIX}"


def index_of(name: str) -> str | None:
    """The index of which a file ``name`` may be a shard; None for one that is not called so."""
    found = re.fullmatch(rf"(.*)-\d{{5,}}-of-\d{{5,}}{SHARD_SUFFIX}", name, re.DOTALL)
    return None if found is None else f"{found[1]}{SUFFIX}"


def is_shard_of(stem: str, name: str) -> bool:
    """Whether a file is called as the shards are that begin with ``stem``."""
    return re.fullmatch(rf"{re.escape(stem)}-\d{{5,}}-of-\d{{5,}}{SHARD_SUFFIX}", name) is not None


def cut(header: Header, size: int) -> Iterator[Header]:
    """Tensors in their order, at most ``size`` bytes of them together; a larger one is alone."""
    names: list[str] = []
    total = 0
    for name, spec in header.items():
        if names and total + spec.nbytes > size:
            yield Header({each: header[each] for each in names})
            names, total = [], 0
        names.append(name)
        total += spec.nbytes
    if names:
        yield Header({each: header[each] for each in names})


def _require_bare(file: File, tensor: str, name: Any) -> None:
    if not isinstance(name, str) or {"/", "\\", "\0"} & set(name):
        said = quoted(name) if isinstance(name, str) else "something that is no name"
        raise CheckpointError(
            f"{file.place}: tensor {shown(tensor)} is said to be in {said}; a shard is a file "
            "beside the index, named without folders"
        )
    if not name.lower().endswith(SHARD_SUFFIX):
        raise CheckpointError(
            f"{file.place}: tensor {shown(tensor)} is in {quoted(name)}, which is no safetensors "
            "file; save the checkpoint again as safetensors"
        )


def _damaged(file: File, reason: str) -> CheckpointError:
    return CheckpointError(
        f"{file.place} is no index of shards, or a damaged one: {reason}; fetch it again"
    )
