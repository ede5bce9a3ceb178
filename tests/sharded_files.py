"""Checkpoints in parts as others write and read them."""

from __future__ import annotations

import json

import ml_dtypes
import numpy as np
import safetensors
from written_files import write

from ckgrow.registry import formats

FORMAT = formats()["sharded"]
INDEX = "model.safetensors.index.json"
PARTS = [f"model-{number:05d}-of-00003.safetensors" for number in (1, 2, 3)]

ARRAYS = {
    "b.weight": np.arange(12, dtype="f4").reshape(3, 4),
    "a.weight": np.arange(4, dtype=ml_dtypes.bfloat16).reshape(2, 2),
    "a.bias": np.array(7, np.int64),
    "empty": np.zeros((0, 5), "f8"),
    "c": np.array([True, False]),
}


def shards(folder, arrays=ARRAYS, size=16, metadata=None):
    write(FORMAT, folder / INDEX, arrays, metadata, shard_size=size)
    return sorted(each.name for each in folder.glob("*.safetensors"))


def index_of(folder):
    return json.loads((folder / INDEX).read_text())


def rewritten(folder, **entries):
    (folder / INDEX).write_text(json.dumps({**index_of(folder), **entries}))


def loaded_as_others_do(folder, load):
    """As transformers and diffusers: the index, then every shard that it names, whole."""
    index = index_of(folder)
    loaded = {}
    for name in sorted(set(index["weight_map"].values())):
        with safetensors.safe_open(folder / name, framework="np") as shard:
            assert shard.metadata().get("format") in ("pt", "tf", "flax", "mlx")
        loaded.update(load(folder / name))
    assert set(loaded) == set(index["weight_map"])
    return loaded
