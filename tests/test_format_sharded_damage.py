"""Sharded safetensors that are damaged or forged: every kind is refused, by name."""

from __future__ import annotations

import os

import pytest
import safetensors
import safetensors.numpy
import safetensors.torch
from sharded_files import (
    ARRAYS,
    FORMAT,
    INDEX,
    PARTS,
    index_of,
    rewritten,
    shards,
)

from ckgrow.errors import CheckpointError, CkgrowError, FileError, SpecError
from ckgrow.files import open_checkpoint


def refused(folder, kind, said):
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(kind) as failure:
        open_checkpoint(folder / INDEX)
    assert said in str(failure.value)
    assert "\n" not in str(failure.value)
    assert INDEX in str(failure.value)
    assert len(os.listdir("/proc/self/fd")) == before


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{"metadata": {}', "it is not JSON, or cut short"),
        ('{"weight_map": {}} {}', "it is not JSON"),
        ('{"metadata": \xff}', "it is not JSON"),
        ("[]", "it is no JSON object"),
        ("1", "it is no JSON object"),
        ('{"weight_map": {}, "n": ' + "1" * 5000 + "}", "a damaged one"),
        ('{"metadata": {}}', "it has no weight_map"),
        ('{"weight_map": []}', "it has no weight_map"),
        ('{"weight_map": {}, "metadata": []}', "its metadata is no JSON object"),
        ('{"weight_map": {"a": 1}}', "something that is no name"),
        ('{"weight_map": {"a": "x.safetensors", "a": "x.safetensors"}}', "it names a twice"),
        ('{"weight_map": {"\\ud800": "x.safetensors"}}', "is no valid Unicode"),
        ('{"weight_map": {}, "metadata": {"a": "\\udc00"}}', "is no valid Unicode"),
        ('{"weight_map": ' + "[" * 100_000, "it is not JSON"),
        ('{"weight_map": {"a": "model.bin"}}', "which is no safetensors file"),
        ('{"weight_map": {"a": ""}}', "which is no safetensors file"),
        ('{"weight_map": {"a": ".."}}', "which is no safetensors file"),
        ('{"weight_map": {"a": "\\u001b[31m.safetensors"}}', r"'\x1b[31m.safetensors' beside it"),
        ('{"weight_map": {"a": "../x.safetensors"}}', "named without folders"),
        ('{"weight_map": {"a": "below/x.safetensors"}}', "named without folders"),
        ('{"weight_map": {"a": "/etc/x.safetensors"}}', "named without folders"),
        ('{"weight_map": {"a": "b\\\\x.safetensors"}}', "named without folders"),
        ('{"weight_map": {"a": "b\\u0000x.safetensors"}}', "named without folders"),
        ('{"weight_map": {"a": "' + "n" * 300 + '.safetensors"}}', "which is missing"),
        ('{"weight_map": {"a": "\\ud800.safetensors"}}', "which is missing"),
    ],
)
def test_damaged_index(tmp_path, text, said):
    (tmp_path / INDEX).write_bytes(text.encode("latin-1"))
    refused(tmp_path, CkgrowError, said)


def test_an_index_too_large_to_be_one(tmp_path):
    (tmp_path / INDEX).write_text('{"metadata": {}')
    os.truncate(tmp_path / INDEX, 1 << 40)
    refused(tmp_path, CheckpointError, "an index of shards has at most")


def test_weights_cannot_be_chosen(tmp_path):
    shards(tmp_path)
    with pytest.raises(SpecError, match="holds one set of weights"):
        open_checkpoint(tmp_path / INDEX, "state_dict")


def test_missing_shard(tmp_path):
    shards(tmp_path)
    (tmp_path / PARTS[1]).unlink()
    refused(tmp_path, FileError, f"needs the file {PARTS[1]} beside it, which is missing")


def test_tensor_that_is_not_in_its_shard(tmp_path):
    shards(tmp_path)
    rewritten(tmp_path, weight_map={**index_of(tmp_path)["weight_map"], "more": PARTS[0]})
    refused(tmp_path, CheckpointError, f"says that tensor more is in {PARTS[0]}, which does not")


def test_tensor_that_the_index_does_not_name(tmp_path):
    shards(tmp_path)
    weight_map = index_of(tmp_path)["weight_map"]
    del weight_map["a.weight"]
    rewritten(tmp_path, weight_map=weight_map)
    refused(tmp_path, CheckpointError, "does not name tensor a.weight, which is in")


def test_tensor_in_two_shards(tmp_path):
    shards(tmp_path)
    held = safetensors.numpy.load_file(tmp_path / PARTS[2])
    safetensors.numpy.save_file({**held, "b.weight": ARRAYS["b.weight"]}, tmp_path / PARTS[2])
    refused(tmp_path, CheckpointError, f"b.weight is in {PARTS[0]}, as the index says, and in")


@pytest.mark.parametrize("length", [0, 4, 60, -1])
def test_shard_cut_short(tmp_path, length):
    shards(tmp_path)
    data = (tmp_path / PARTS[0]).read_bytes()
    (tmp_path / PARTS[0]).write_bytes(data[:length])
    with pytest.raises(CheckpointError, match=PARTS[0]):
        open_checkpoint(tmp_path)


def test_other_indexes_are_told_apart(tmp_path):
    (tmp_path / "pytorch_model.bin.index.json").write_text(
        '{"metadata": {}, "weight_map": {"a": "pytorch_model-00001-of-00001.bin"}}'
    )
    with pytest.raises(CheckpointError, match="save the checkpoint again as safetensors"):
        open_checkpoint(tmp_path / "pytorch_model.bin.index.json")


@pytest.mark.parametrize(
    "text",
    ['{"weight_map":{"a":"x"}}', '{\n    "metadata": {}, "weight_map": {}}', ' {"weight_map": 1}'],
)
def test_recognised_whatever_it_is_called(text):
    assert FORMAT.recognises(None, text.encode()[:16])
    assert not FORMAT.recognises(None, b'{"tensors": {}}')
    assert not FORMAT.recognises(None, b"{")


def test_a_link_out_of_the_folder_is_refused(tmp_path):
    elsewhere, folder = tmp_path / "elsewhere", tmp_path / "folder"
    elsewhere.mkdir()
    folder.mkdir()
    shards(folder)
    (folder / PARTS[0]).rename(elsewhere / PARTS[0])
    (folder / PARTS[0]).symlink_to(elsewhere / PARTS[0])
    refused(folder, CheckpointError, "a link that leads out of its folder")
