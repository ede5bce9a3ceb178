"""URLs with a password or a signature in a batch: workers get them, nobody is told."""

from __future__ import annotations

import json

import pytest
from batches import records
from commands import WIDEN, ckgrow, saved, tensors, written
from web_server import Site, serving

from ckgrow.batches.globs import is_glob
from ckgrow.batches.templates import filled
from ckgrow.batches.working import run_job
from ckgrow.errors import SpecError
from ckgrow.names import shown_path

WORD, SIGNATURE = "hid@*d[en", "0123456789/*abc{stm}def"
QUERY = f"X-Amz-Credential=a/b&X-Amz-Signature={SIGNATURE}"


def assert_silent(*texts):
    for text in texts:
        for secret in ("hid", "d[en", "den@", "0123456789", "abc", "Amz"):
            assert secret not in text, text


def signed(site, name):
    return f"{site.url.replace('//', '//me:hid*den@')}/{name}?Amz=0123456789/*abc"


@pytest.fixture
def site(tmp_path):
    teacher = saved(tmp_path / "here.safetensors", tensors())
    written(tmp_path / "widen.yaml", WIDEN)
    with serving(Site({"/runs/a.safetensors": teacher.read_bytes()})) as running:
        yield running


def manifest(folder, *teachers, output="grown/{parent}-{stem}.safetensors"):
    entries = [{"teacher": each, "spec": "widen.yaml", "output": output} for each in teachers]
    return written(folder / "jobs.jsonl", "".join(json.dumps(each) + "\n" for each in entries))


@pytest.mark.parametrize("backend", ["threading", "loky"])
def test_signed_urls_are_teachers_and_are_not_told(site, tmp_path, backend):
    jobs = manifest(tmp_path, *(signed(site, f"runs/{name}.safetensors") for name in "ab"))
    options = ("--backend", backend, "--jobs", 2)
    done = ckgrow("batch", jobs, *options, "--json")
    assert done.exit_code == 1, done.output
    assert all("?Amz=0123456789/*abc" in path for _, path, _ in site.requests)
    student = tmp_path / "grown/runs-a.safetensors"
    results = (tmp_path / "jobs.results.jsonl").read_text()
    assert_silent(done.output, results, student.read_bytes().decode("latin-1"))
    made, failed = sorted(
        records(tmp_path / "jobs.results.jsonl"), key=lambda each: each["teacher"]
    )
    hidden = site.url.replace("//", "//...@")
    assert made["teacher"] == f"{hidden}/runs/a.safetensors?..."
    assert (made["status"], made["output"]) == ("done", "grown/runs-a.safetensors")
    assert "no such file; check the URL" in failed["error"]
    again = ckgrow("batch", jobs, *options)  # apply itself finds out that one is made
    assert_silent(again.output)
    assert "skipped: grown/runs-a.safetensors: up to date" in again.stderr


def test_two_outputs_that_differ_in_what_is_not_told_are_two(tmp_path):
    """Their records do not make either of them look made."""
    teacher = saved(tmp_path / "a.safetensors", tensors())
    written(tmp_path / "widen.yaml", WIDEN)
    jobs = manifest(tmp_path, *[f"http://127.0.0.1:9/{teacher.name}?{word}" for word in "xy"])
    text = jobs.read_text().splitlines()
    written(jobs, "\n".join(f"{line.replace('{stem}', str(at))}" for at, line in enumerate(text)))
    done = ckgrow("batch", jobs, "--backend", "threading", "--json")
    assert json.loads(done.stdout)["failed"] == 2
    assert len(records(tmp_path / "jobs.results.jsonl")) == 2


@pytest.mark.parametrize(
    ("teacher", "output", "said"),
    [
        ("s3://me:{word}@host/a*?{query}", "s3://me:{word}@host/a.odd?0123456789", "a.odd?...' is"),
        ("https://me:{word}@host/a", "s3://me:{word}@host/{{stm}}?{query}", "field '{stm}'; did"),
        ("https://me:{word}@host/a", "s3://me:{word}@host/a.npz?{query}", "unknown field '{...}'"),
        ("https://me:{word}@host/a", "s3://me:{word}@host/{{.npz?{query}", "cannot be read"),
        ("s3://me:{word}@host/*/a", "a.npz", "'s3://...@host/*/a': of a URL only the last"),
    ],
)
def test_wrong_manifests_are_told_without(tmp_path, teacher, output, said):
    written(tmp_path / "widen.yaml", WIDEN)
    secrets = {"word": WORD, "query": QUERY}
    jobs = manifest(tmp_path, teacher.format(**secrets), output=output.format(**secrets))
    done = ckgrow("batch", jobs)
    assert done.exit_code == 2, done.output
    assert said in done.stderr
    assert_silent(done.output)


def test_collisions_and_traps_are_told_without(tmp_path):
    written(tmp_path / "widen.yaml", WIDEN)
    teachers = [f"s3://me:{WORD}@host/{name}.npz?v={SIGNATURE}" for name in "ab"]
    done = ckgrow("batch", manifest(tmp_path, *teachers, output="x.npz"))
    assert done.exit_code == 2
    assert "s3://...@host/b.npz?... by widen.yaml" in done.stderr
    assert_silent(done.output)


def test_internal_errors_are_told_without(tmp_path, monkeypatch):
    url = f"https://me:{WORD}@host/a.npz?{QUERY}"

    def failing(*_, **__):
        raise RuntimeError(f"cannot parse {url}, of which {QUERY}")

    monkeypatch.setattr("ckgrow.batches.working.apply", failing)
    spec = written(tmp_path / "widen.yaml", WIDEN)
    error = run_job(url, str(spec), str(tmp_path / "x.npz"))["error"]
    assert "RuntimeError: cannot parse https://...@host/a.npz?..., of which ..." in error
    assert_silent(error)


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("https://host/a.npz?sig=*", False),
        ("https://me:*[@host/a.npz", False),
        ("http://[::1]:80/a.npz", False),
        ("s3://bucket/runs/*.npz", True),
        ("s3://bucket/runs/[ab].npz", True),
        ("s3://bucket/*/a.npz", True),
        ("runs/?.npz", True),
    ],
)
def test_what_makes_a_glob(url, expected):
    assert is_glob(url) == expected


@pytest.mark.parametrize(
    ("url", "parent"),
    [
        (f"https://me:{WORD}@host/a.npz?{QUERY}", "host"),
        (f"https://host/runs/a.npz?{QUERY}", "runs"),
        ("s3://bucket/x@y/a.npz", "x@y"),
        ("s3://bucket/runs/folder/", "runs"),
    ],
)
def test_names_of_outputs_have_none_of_it(url, parent):
    assert filled("{parent}", url, "spec.yaml", "here") == parent


def test_a_field_in_a_query_is_not_told():
    with pytest.raises(SpecError) as error:
        filled("https://host/a?x={hidden}", "/a", "b", "here")
    assert "hidden" not in str(error.value)


def test_a_password_with_an_at_sign():
    assert shown_path("https://me:a@b@host/x@y.npz") == "https://...@host/x@y.npz"
