"""Checkpoints on web servers, and URLs that nothing is installed for."""

from __future__ import annotations

import fsspec
import numpy as np
import pytest
from commands import WIDEN, ckgrow, document, python, saved, tensors, written
from web_server import Site, serving

from ckgrow.errors import CheckpointError, FileError
from ckgrow.names import shown_path
from ckgrow.registry import store

SECRET = "X-Amz-Signature=0123456789abcdef"


@pytest.fixture
def teacher(tmp_path):
    return saved(tmp_path / "teacher.safetensors", tensors())


@pytest.fixture
def site(teacher):
    with serving(Site({"/teacher.safetensors": teacher.read_bytes()})) as running:
        yield running


@pytest.fixture
def spec(tmp_path):
    return written(tmp_path / "spec.yaml", WIDEN)


def error(*arguments):
    done = ckgrow(*arguments)
    assert done.exit_code == 4, done.output
    assert done.stderr.count("\n") == 1
    return done.stderr.removeprefix("error: ").strip()


def large(tmp_path, site, name="/large.safetensors"):
    values = {**tensors(), "0.weight": np.ones((400_000, 4), "f4")}
    values |= {"0.bias": np.ones(400_000, "f4"), "2.weight": np.ones((3, 400_000), "f4")}
    site.files[name] = saved(tmp_path / "large.safetensors", values).read_bytes()
    return site.url + name


def test_apply(tmp_path, site, teacher, spec):
    url = f"{site.url}/teacher.safetensors"
    there, here = tmp_path / "there.safetensors", tmp_path / "here.safetensors"
    assert document("apply", url, spec, "-o", there)["teacher"] == url
    assert ckgrow("apply", teacher, spec, "-o", here).exit_code == 0
    assert there.read_bytes() == here.read_bytes()


def test_planning_reads_the_header_only(tmp_path, site, spec):
    url = large(tmp_path, site)
    assert ckgrow("plan", url, spec).exit_code == 0
    assert [(method, span) for method, _, span in site.requests] == [
        ("HEAD", ""),
        ("GET", "bytes=0-65535"),
    ]
    assert site.sent == 65536


def test_reading_streams_by_range(tmp_path, site, spec):
    url = large(tmp_path, site)
    student = tmp_path / "student.safetensors"
    assert ckgrow("apply", url, spec, "--no-verify", "-o", student).exit_code == 0
    size = len(site.files["/large.safetensors"])
    assert site.sent < 2.2 * size
    assert len(site.requests) < 30


def test_server_that_sends_whole_files_only(tmp_path, site, spec):
    """It is found out without fetching the file again and again."""
    url = large(tmp_path, site)
    site.ranges = False
    message = error("apply", url, spec, "--no-verify", "-o", tmp_path / "student.safetensors")
    assert message == (
        f"{url} cannot be read: the server does not send parts of files; fetch it and name the copy"
    )
    assert [method for method, _, _ in site.requests].count("GET") <= 4  # one for each thread
    assert not (tmp_path / "student.safetensors").exists()


def test_server_that_does_not_say_the_length(site):
    site.says_length = False
    message = error("inspect", f"{site.url}/teacher.safetensors")
    assert "does not say how long it is" in message


@pytest.mark.parametrize(
    ("status", "says"),
    [
        (404, "no such file; check the URL"),
        (410, "no such file; check the URL"),
        (401, "permission denied; check the URL, and"),
        (403, "permission denied; check the URL, and"),
        (500, "the server answered with status 500; try again later"),
        (503, "the server answered with status 503; try again later"),
    ],
)
def test_statuses(site, status, says, monkeypatch):
    monkeypatch.setattr("ckgrow.adapters.stores._waiting._PAUSE", 0.01)
    site.status = status
    url = f"{site.url}/teacher.safetensors"
    assert error("inspect", url).startswith(f"{url} cannot be opened: {says}")
    assert len(site.requests) <= 8


def test_nobody_listens(monkeypatch):
    monkeypatch.setattr("ckgrow.adapters.stores._waiting._PAUSE", 0.01)
    message = error("inspect", "http://127.0.0.1:9/teacher.safetensors")
    assert "cannot be opened: no connection to the server" in message


def test_faults_that_pass(site, spec, monkeypatch):
    monkeypatch.setattr("ckgrow.adapters.stores._waiting._PAUSE", 0.01)
    site.faults = [500, 503, 200, 500, 429]
    assert ckgrow("plan", f"{site.url}/teacher.safetensors", spec).exit_code == 0
    assert site.faults == []


def test_answer_that_is_cut_short_is_asked_for_again(site, spec, monkeypatch):
    monkeypatch.setattr("ckgrow.adapters.stores._waiting._PAUSE", 0.01)
    site.cut = 2
    assert ckgrow("plan", f"{site.url}/teacher.safetensors", spec).exit_code == 0
    site.cut = 99
    assert "cannot be read: " in error("plan", f"{site.url}/teacher.safetensors", spec)


def test_file_that_changes(site):
    file = store().open(f"{site.url}/teacher.safetensors")
    assert file.unchanged()
    site.etag = '"2"'
    assert not file.unchanged()
    site.files.clear()
    assert not file.unchanged()
    with pytest.raises(FileError, match="changed while it was read"):
        file.read(0, 10)


def test_end_of_a_file(site):
    file = store().open(f"{site.url}/teacher.safetensors")
    with pytest.raises(CheckpointError, match="ends at byte"):
        file.read(file.size - 5, 6)
    assert file.read(file.size, 0) == b""


def test_signatures_and_passwords_are_never_shown(site, spec, tmp_path):
    url = f"{site.url.replace('//', '//me:hidden@')}/teacher.safetensors?{SECRET}"
    student = tmp_path / "student.safetensors"
    done = ckgrow("apply", url, spec, "-o", student)
    assert done.exit_code == 0, done.output
    assert SECRET in site.requests[0][1]
    parts = tmp_path / "parts"
    parts.mkdir()
    spread = ckgrow("apply", url, spec, "-o", f"{parts}/", "--backend", "threading")
    assert spread.exit_code == 0, spread.output  # workers ask with the signature as well
    assert all(SECRET in path for _, path, _ in site.requests)
    site.files.clear()
    failed = ckgrow("plan", url, spec)
    assert failed.exit_code == 4
    written = [path.read_bytes().decode("latin-1") for path in (student, *parts.iterdir())]
    for text in (done.output, spread.output, failed.output, *written):
        assert "0123456789abcdef" not in text
        assert "hidden" not in text
    assert "...@127.0.0.1" in failed.output


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("https://host/a.npz?sig=1", "https://host/a.npz?..."),
        ("https://me:word@host/a.npz", "https://...@host/a.npz"),
        ("s3://bucket/at@sign/a.npz", "s3://bucket/at@sign/a.npz"),
        ("folder/what?.npz", "folder/what?.npz"),
        ("s3://bucket/\x1b[2J.npz", "'s3://bucket/\\x1b[2J.npz'"),
    ],
)
def test_places_as_they_are_shown(url, shown):
    assert shown_path(url) == shown


def test_siblings_of_a_url(site):
    site.files["/run/index.json"] = b"{}"
    site.files["/run/a b#1%2e.bin"] = b"0123456789"
    site.files["/secret"] = b"no"
    file = store().open(f"{site.url}/run/index.json?download=true")
    assert file.name == "index.json"
    found = file.sibling("a b#1%2e.bin")
    assert found is not None
    assert found.read(2, 3) == b"234"
    assert file.sibling("%2e%2e/secret") is None
    assert file.sibling("x?y") is None


def test_nothing_is_written_to_the_web(site, teacher, spec):
    url = f"{site.url}/student.safetensors"
    message = error("apply", teacher, spec, "-o", url)
    assert message.startswith(f"{url} cannot be written: nothing is written to the web")
    assert site.requests == []


def test_unknown_scheme():
    message = error("inspect", "foo://bucket/teacher.safetensors")
    assert message.startswith("foo://bucket/teacher.safetensors cannot be opened: nothing is known")


@pytest.mark.parametrize(
    ("scheme", "package", "extra"),
    [
        ("s3", "s3fs", "s3"),
        ("gs", "gcsfs", "gs"),
        ("hf", "huggingface_hub", "hf"),
        ("https", "aiohttp", "https"),
        ("s3", "fsspec", "s3"),
    ],
)
def test_missing_package_is_named(scheme, package, extra):
    """In a process where it cannot be imported."""
    code = (
        f"import sys; sys.modules[{package!r}] = None\n"
        "from ckgrow.cli.main import run\n"
        f"sys.argv[1:] = ['inspect', '{scheme}://models/teacher.safetensors']\nrun()"
    )
    done = python(code)
    assert done.returncode == 4, done.stderr
    assert done.stderr == (
        f"error: {scheme}://models/teacher.safetensors cannot be opened: a package for its kind "
        f"of URL is missing; run pip install 'ckgrow[{extra}]'\n"
    )


def test_file_urls_are_paths(teacher):
    assert document("inspect", f"file://{teacher}")["architecture"] == "mlp"


def test_another_file_system_of_fsspec(teacher):
    """One that is not asynchronous, as that of Hugging Face is not."""
    memory = fsspec.filesystem("memory")
    memory.pipe("/run/teacher.safetensors", teacher.read_bytes())
    try:
        for url in ("memory://run/teacher.safetensors", "memory://run"):
            assert document("inspect", url)["architecture"] == "mlp"
        store().put(teacher, "memory://run/copy.safetensors", replace=False)
        assert memory.cat("/run/copy.safetensors") == teacher.read_bytes()
        store().remove("memory://run/copy.safetensors")
        store().remove("memory://run/copy.safetensors")
        assert not store().exists("memory://run/copy.safetensors")
    finally:
        memory.rm("/run", recursive=True)
