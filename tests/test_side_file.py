"""The side file of a format without room for metadata."""

from __future__ import annotations

import json

import numpy as np
import pytest
from torch_files import FORMAT, loaded
from written_files import created, opened, write

from ckgrow.errors import CheckpointError
from ckgrow.header import Header, TensorSpec


def test_metadata_of_a_bare_state_dict_stands_beside_it(tmp_path):
    path = tmp_path / "a.pt"
    header = Header({"w": TensorSpec("float32", (1,))})
    writer = created(FORMAT, path, header, {"ckgrow": "the <hash>", "format": "pt"})
    writer.write("w", 0, np.ones(1, np.float32))
    for wrong in ({"<no>": "text"}, {"<hash>": "too long"}):
        with pytest.raises(ValueError, match="cannot be replaced"):
            writer.finish(wrong)
    writer.finish({"<hash>": "012345"})
    assert list(loaded(path)) == ["w"]
    assert json.loads((tmp_path / "a.pt.ckgrow.json").read_text()) == {
        "schema": "ckgrow.side/1",
        "metadata": {"ckgrow": "the 012345", "format": "pt"},
        "dtypes": {},
    }
    assert opened(FORMAT, path).contents.metadata == {"ckgrow": "the 012345", "format": "pt"}


def test_a_side_file_of_another_student_does_not_stay(tmp_path):
    path = tmp_path / "a.pt"
    write(FORMAT, path, {"w": np.ones(1)}, {"ckgrow": "old"})
    write(FORMAT, path, {"w": np.ones(1)})
    assert opened(FORMAT, path).contents.metadata == {}


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "[" * 100_000,
        '"ckgrow.side/1"',
        '{"schema": "ckgrow.side/2", "metadata": {}, "dtypes": {}}',
        '{"schema": "ckgrow.side/1", "metadata": {}}',
        '{"schema": "ckgrow.side/1", "metadata": {}, "dtypes": {}, "more": 1}',
        '{"schema": "ckgrow.side/1", "metadata": {"a": 1}, "dtypes": {}}',
        '{"schema": "ckgrow.side/1", "metadata": [], "dtypes": {}}',
        '{"schema": "ckgrow.side/1", "metadata": {"a": "1", "a": "2"}, "dtypes": {}}',
        '{"schema": "ckgrow.side/1", "metadata": {}, "dtypes": {}}\xe9',
    ],
)
def test_damaged_side_files(text, tmp_path):
    write(FORMAT, tmp_path / "a.pt", {"w": np.ones(1)})
    (tmp_path / "a.pt.ckgrow.json").write_text(text, encoding="latin-1")
    with pytest.raises(CheckpointError, match=r"a\.pt\.ckgrow\.json is damaged or no side file"):
        opened(FORMAT, tmp_path / "a.pt")


def test_a_side_file_without_end(tmp_path):
    write(FORMAT, tmp_path / "a.pt", {"w": np.ones(1)})
    with (tmp_path / "a.pt.ckgrow.json").open("wb") as stream:
        stream.truncate(1 << 33)
    with pytest.raises(CheckpointError, match="a side file has at most"):
        opened(FORMAT, tmp_path / "a.pt")
