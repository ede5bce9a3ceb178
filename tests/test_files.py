"""Opening what is no ordinary file, and telling formats apart."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time

import pytest
import safetensors.torch
import torch

from ckgrow.errors import CheckpointError, FileError
from ckgrow.files import RegularFile, open_checkpoint
from ckgrow.names import shown_path

TENSORS = {"w": torch.arange(4.0)}


@pytest.mark.parametrize("kind", ["safetensors", "torch", "torch legacy"])
@pytest.mark.parametrize("name", ["a.safetensors", "a.pt", "anything", " -a '\u00e9\u4e2d.bin"])
def test_content_decides_before_the_name(kind, name, tmp_path):
    path = tmp_path / name
    if kind == "safetensors":
        safetensors.torch.save_file(TENSORS, path)
    else:
        torch.save(TENSORS, path, _use_new_zipfile_serialization=kind == "torch")
    for given in [path, str(path)]:
        reader = open_checkpoint(given)
        assert reader.read("w", 0, 4).tolist() == [0, 1, 2, 3]
        reader.close()


def test_weights_are_passed_on(tmp_path):
    torch.save({"ema": TENSORS}, tmp_path / "a.pt")
    reader = open_checkpoint(tmp_path / "a.pt", "ema")
    assert reader.contents.weights == "ema"
    reader.close()


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.safetensors", b"", "is empty"),
        ("a.safetensors", b"1234567", "7 bytes"),
        ("a.SAFETENSORS", b"hello world, this is text", "no safetensors file"),
        ("a.pt", b"hello world, this is text", "cannot be read as a torch file"),
        ("a.txt", b"hello \x1b[2J", r"starts with b'hello \x1b[2J'"),
        (
            "a.txt",
            b"hello",
            "(.safetensors); sharded (.safetensors.index.json); torch (.pt .pth .th .bin .ckpt)",
        ),
    ],
)
def test_what_is_no_checkpoint(name, content, words, tmp_path):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(CheckpointError) as caught:
        open_checkpoint(tmp_path / name)
    assert words in str(caught.value)
    assert str(caught.value).isprintable()


def test_paths_that_are_no_regular_files(tmp_path, monkeypatch):
    os.mkfifo(tmp_path / "pipe.pt")
    (tmp_path / "dangling.pt").symlink_to(tmp_path / "absent")
    (tmp_path / "loop.pt").symlink_to(tmp_path / "loop.pt")
    monkeypatch.chdir(tmp_path)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("socket.pt")
        began = time.perf_counter()
        for path, words in [
            ("absent.pt", "absent.pt cannot be opened: no such file"),
            ("dangling.pt", "no such file"),
            ("loop.pt", "symbolic links"),
            (tmp_path, "is a directory"),
            ("", "is a directory"),
            ("pipe.pt", "pipe, socket or device"),
            ("socket.pt", "pipe, socket or device"),
            ("/dev/zero", "pipe, socket or device"),
            ("x" * 300, "name too long"),
            ("a\0b", "null byte"),
            ("a\x1b[2J", r"'a\x1b[2J' cannot"),
            (b"a\xff".decode(errors="surrogateescape"), r"'a\udcff' cannot"),
        ]:
            with pytest.raises(FileError) as caught:
                open_checkpoint(path)
            assert words.lower() in str(caught.value).lower()
            assert str(caught.value).isprintable()
        assert time.perf_counter() - began < 2


def test_a_pipe_put_there_at_the_last_moment(tmp_path, monkeypatch):
    """Between the look and the opening the path becomes a pipe: no hang, no descriptor lost."""
    path = tmp_path / "a.pt"
    os.mkfifo(path)
    regular = os.stat(__file__)
    monkeypatch.setattr(os, "stat", lambda *_: regular)
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(FileError, match="pipe"):
        RegularFile(path)
    assert len(os.listdir("/proc/self/fd")) == before


def test_no_permission(tmp_path, monkeypatch):
    path = tmp_path / "a.pt"
    path.write_bytes(b"1")

    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "open", refuse)  # the superuser of a container may read everything
    with pytest.raises(FileError, match="permission denied; check the permissions"):
        RegularFile(path)


def test_a_disk_that_fails(tmp_path, monkeypatch):
    path = tmp_path / "a.safetensors"
    safetensors.torch.save_file(TENSORS, path)
    reader = open_checkpoint(path)

    def fail(*_: object) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "preadv", fail)
    with pytest.raises(FileError, match="cannot be read: Input/output error"):
        reader.read("w", 0, 1)
    reader.close()


def test_reads_that_come_in_pieces(tmp_path, monkeypatch):
    path = tmp_path / "a.safetensors"
    safetensors.torch.save_file(TENSORS, path)
    whole = os.preadv
    monkeypatch.setattr(os, "preadv", lambda fd, parts, at: whole(fd, [parts[0][:3]], at))
    reader = open_checkpoint(path)
    assert reader.read("w", 1, 4).tolist() == [1, 2, 3]
    reader.close()


def test_no_descriptor_stays_open(tmp_path):
    safetensors.torch.save_file(TENSORS, tmp_path / "a.safetensors")
    torch.save(TENSORS, tmp_path / "a.pt")
    (tmp_path / "b.safetensors").write_bytes(b"\xff" * 30)
    (tmp_path / "b.pt").write_bytes(b"\xff" * 30)
    before = len(os.listdir("/proc/self/fd"))
    for name in ["a.safetensors", "a.pt"]:
        open_checkpoint(tmp_path / name).close()
    for name in ["b.safetensors", "b.pt"]:
        with pytest.raises(CheckpointError):
            open_checkpoint(tmp_path / name)
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_file_made_again_is_another_file(tmp_path):
    path = tmp_path / "a.bin"
    path.write_bytes(b"1234")
    file = RegularFile(path)
    assert file.unchanged()
    os.utime(path, ns=(0, 0))
    assert not file.unchanged()
    path.unlink()
    assert not file.unchanged()
    assert file.read(1, 2) == b"23"
    file.close()
    file.close()


def test_reading_safetensors_imports_no_torch(tmp_path):
    safetensors.torch.save_file({"w": torch.ones(2)}, tmp_path / "a.safetensors")
    program = (
        "import sys; from ckgrow.files import open_checkpoint; "
        "reader = open_checkpoint(sys.argv[1]); reader.read('w', 0, 2); "
        "print(sorted({'torch', 'onnx', 'safetensors', 'ml_dtypes'} & set(sys.modules)))"
    )
    command = [sys.executable, "-c", program, str(tmp_path / "a.safetensors")]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    assert result.stdout == "[]\n"


def test_printed_paths():
    assert shown_path("/a b/\u4e2d.pt") == "/a b/\u4e2d.pt"
    assert shown_path("a\nb") == r"'a\nb'"
