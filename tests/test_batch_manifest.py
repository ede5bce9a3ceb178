"""A manifest becomes jobs, and everything that is wrong with it is told before one runs."""

from __future__ import annotations

import json
import os

import pytest
from batches import GLOB, runs
from commands import WIDEN, ckgrow, listing, written

from ckgrow.batches.expanding import expanded
from ckgrow.batches.globs import matches
from ckgrow.batches.manifest import read_manifest
from ckgrow.batches.templates import filled
from ckgrow.errors import FileError, SpecError


def jobs(manifest):
    return expanded(read_manifest(manifest), str(manifest.parent))


def outputs(manifest):
    return [(job.teacher, job.spec, job.output) for job in jobs(manifest)]


def test_globs_and_templates(tmp_path):
    assert outputs(runs(tmp_path, 11))[::5] == [
        ("runs/r0/best.safetensors", "widen.yaml", "grown/r0/best-widen.safetensors"),
        ("runs/r5/best.safetensors", "widen.yaml", "grown/r5/best-widen.safetensors"),
        ("runs/r10/best.safetensors", "widen.yaml", "grown/r10/best-widen.safetensors"),
    ]


def test_every_teacher_by_every_spec(tmp_path):
    runs(tmp_path, 3)
    written(tmp_path / "more.yaml", WIDEN)
    manifest = written(
        tmp_path / "jobs.yaml",
        "jobs:\n"
        "  - teacher: [runs/r2/best.safetensors, 'runs/r[01]/best.safetensors']\n"
        "    spec: ['[mw]*.yaml']\n"
        "    output: '{parent}-{spec}{suffix}'\n"
        "    weights: ema\n"
        "    verify: false\n",
    )
    assert [job.output for job in jobs(manifest)] == [
        f"r{number}-{spec}.safetensors" for number in (2, 0, 1) for spec in ("more", "widen")
    ]
    assert {(job.weights, job.verify) for job in jobs(manifest)} == {("ema", False)}


def test_a_file_that_two_globs_match_is_one_teacher(tmp_path):
    runs(tmp_path, 2)
    text = GLOB.replace('"runs/*/best.safetensors"', '["runs/*/*", "runs/r1/best.safetensors"]')
    assert len(jobs(written(tmp_path / "jobs.yaml", text))) == 2


def test_json_lines_say_the_same(tmp_path):
    manifest = runs(tmp_path, 3)
    entry = {
        "teacher": "runs/*/best.safetensors",
        "spec": "widen.yaml",
        "output": "grown/{parent}/{stem}-{spec}.safetensors",
    }
    lines = written(tmp_path / "jobs.jsonl", f"\n{json.dumps(entry)}\n")
    assert outputs(lines) == outputs(manifest)


def test_a_name_that_looks_like_a_glob_is_a_name_where_there_is_such_a_file(tmp_path):
    runs(tmp_path, 1)
    for name in ("a[1].safetensors", "a1.safetensors"):
        (tmp_path / name).write_bytes((tmp_path / "runs/r0/best.safetensors").read_bytes())
    text = 'jobs: [{teacher: "a[1].safetensors", spec: widen.yaml, output: "{stem}-x.npz"}]'
    assert outputs(written(tmp_path / "jobs.yaml", text)) == [
        ("a[1].safetensors", "widen.yaml", "a[1]-x.npz")
    ]


def test_urls_stay_as_they_are(tmp_path):
    text = (
        "jobs:\n  - teacher: s3://models/runs/a.safetensors\n    spec: widen.yaml\n"
        "    output: 's3://models/grown/{parent}-{stem}.safetensors'\n"
    )
    (job,) = jobs(written(tmp_path / "jobs.yaml", text))
    assert job.teacher_place == "s3://models/runs/a.safetensors"
    assert job.output_place == "s3://models/grown/runs-a.safetensors"
    assert job.spec_place == str(tmp_path / "widen.yaml")


@pytest.mark.parametrize(
    ("teacher", "template", "made"),
    [
        (
            "/a/runs/best.safetensors",
            "{name}|{stem}|{suffix}",
            "best.safetensors|best|.safetensors",
        ),
        ("/a/runs/best.v2.PT", "{stem}{suffix}", "best.v2.PT"),
        ("/a/m.safetensors.index.json", "{stem}", "m"),
        ("/a/runs/best.safetensors", "{{{parent}}}-{spec}", "{runs}-widen"),
        ("/a/./runs/../runs/best.odd", "{parent} {stem} {suffix}", "runs best .odd"),
        ("s3://bucket/best.pt", "{parent}/{stem}", "bucket/best"),
    ],
)
def test_fields_of_a_template(teacher, template, made):
    assert filled(template, teacher, "specs/widen.yaml", "here") == made


@pytest.mark.parametrize(
    ("template", "said"),
    [
        ("{stm}.npz", "unknown field '{stm}'; did you mean 'stem'?"),
        ("{}.npz", "unknown field '{}'; known are {stem}, {name}, {suffix}, {parent}, {spec}"),
        ("{stem:>9}.npz", "unknown field '{stem}'"),
        ("{stem!r}.npz", "unknown field '{stem}'"),
        ("{stem.__class__}.npz", "unknown field"),
        ("{stem.npz", "cannot be read"),
    ],
)
def test_templates_that_cannot_be_filled(template, said):
    with pytest.raises(SpecError) as error:
        filled(template, "/a/b.pt", "c.yaml", "here")
    assert said in str(error.value)
    assert str(error.value).startswith("here: ")


JOB = "teacher: a.safetensors, spec: widen.yaml, output: x.safetensors"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("jobs: []", "has no jobs"),
        ("- teacher: a", "a manifest is a mapping with 'jobs'"),
        ("jobs: {teacher: a}", "a manifest is a mapping with 'jobs'"),
        ("jobs:\n  - {JOB}\nforce: yes", "jobs.yaml:3: unknown key 'force' in the manifest"),
        ("jobs:\n  - {JOB}\n  - 3", "jobs.yaml:3: a job must be a mapping"),
        ("jobs: [{JOB, specs: b}]", "unknown key 'specs' in a job; did you mean 'spec'?"),
        ("jobs: [{teacher: a, spec: b}]", "jobs.yaml:1: output is missing"),
        ("jobs: [{JOB, verify: 'no'}]", "verify must be true or false; got str"),
        ("jobs: [{JOB, weights: 3}]", "weights must be text; got int"),
        ("jobs: [{teacher: [], spec: b, output: c}]", "teacher is an empty list"),
        ("jobs: [{teacher: '', spec: b, output: c}]", "teacher is empty"),
        ("jobs: [{teacher: a, spec: [3], output: c}]", "spec must be text; got int"),
        ("jobs: [{teacher: a, spec: b, output: c.odd}]", "the suffix of output 'c.odd' is none"),
        ("jobs: [{teacher: 'n*.pt', spec: b, output: c.npz}]", "teacher 'n*.pt' matches nothing"),
        ("jobs: [{teacher: a, spec: 'n/**', output: c.npz}]", "spec 'n/**' matches nothing"),
        ("jobs: &a [{JOB}]", "YAML anchor"),
        ("jobs: [{JOB}", "the file ends before"),
        ("jobs: [{teacher: 's3://b/*/a', spec: b, output: c.npz}]", "only the last name can be"),
    ],
)
def test_wrong_manifests(tmp_path, text, said):
    manifest = written(tmp_path / "jobs.yaml", text.replace("JOB", JOB))
    before = listing(tmp_path)
    done = ckgrow("batch", manifest)
    assert done.exit_code == 2, done.output
    assert said in done.stderr
    assert listing(tmp_path) == before


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (b'{"teacher": "a", "teacher": "b"}', "jobs.jsonl:2: 'teacher' is given twice"),
        (b"{teacher: a}", "jobs.jsonl:2: the line is not JSON"),
        (b'"a"', "jobs.jsonl:2: a job must be a mapping"),
        (b"\xff", "jobs.jsonl:2: the line is not UTF-8"),
        (b"[" * 40_000, "jobs.jsonl:2:"),
        (b" " * 1_000_001, "jobs.jsonl:2: longer than"),
        (b'{"teacher": "a\\u0000b", "spec": "b", "output": "c"}', "teacher has a NUL in it"),
    ],
    ids=["twice", "yaml", "text", "bytes", "brackets", "long", "nul"],
)
def test_wrong_json_lines(tmp_path, line, said):
    manifest = tmp_path / "jobs.jsonl"
    manifest.write_bytes(b"\n" + line)
    done = ckgrow("batch", manifest)
    assert done.exit_code == 2, done.output
    assert said in done.stderr


@pytest.mark.parametrize("name", ["jobs.yaml", "jobs.jsonl"])
@pytest.mark.parametrize("kind", ["missing", "folder", "pipe"])
def test_manifests_that_cannot_be_read(tmp_path, name, kind):
    manifest = tmp_path / name
    {"missing": lambda _: None, "folder": os.mkdir, "pipe": os.mkfifo}[kind](manifest)
    with pytest.raises(FileError, match=name):
        read_manifest(manifest)


def collide(tmp_path, *entries):
    text = "".join(json.dumps(entry) + "\n" for entry in entries)
    with pytest.raises(SpecError) as error:
        jobs(written(tmp_path / "jobs.jsonl", text))
    return str(error.value)


def entry(teacher, output, spec="widen.yaml"):
    return {"teacher": teacher, "spec": spec, "output": output}


def test_all_collisions_are_told_with_their_jobs(tmp_path):
    runs(tmp_path, 3)
    (tmp_path / "link").symlink_to(tmp_path / "runs")
    said = collide(
        tmp_path,
        entry("runs/r*/best.safetensors", "one.safetensors"),
        entry("runs/r0/best.safetensors", "runs/r0/../r7/two.safetensors"),
        entry("runs/r1/best.safetensors", str(tmp_path / "link/r7/two.safetensors")),
        entry("runs/r2/best.safetensors", "link/r1/best.safetensors"),
    )
    first, second, third = said.split("\n")
    assert "one.safetensors is the output of 3 jobs: " in first
    assert "jobs.jsonl:1: runs/r2/best.safetensors by widen.yaml" in first
    assert "two.safetensors is the output of 2 jobs" in second
    assert "jobs.jsonl:2" in second
    assert "jobs.jsonl:3" in second
    assert "link/r1/best.safetensors is the output of a job" in third
    assert "and the teacher of one (" in third


def test_an_output_that_is_a_link_to_another_output(tmp_path):
    runs(tmp_path, 2)
    (tmp_path / "alias.safetensors").symlink_to("real.safetensors")
    said = collide(
        tmp_path,
        entry("runs/r0/best.safetensors", "real.safetensors"),
        entry("runs/r1/best.safetensors", "alias.safetensors"),
    )
    assert "real.safetensors is the output of 2 jobs" in said


def test_an_output_that_is_the_spec(tmp_path):
    runs(tmp_path, 1)
    os.rename(tmp_path / "widen.yaml", tmp_path / "widen.npz")
    assert "and the spec of one" in collide(
        tmp_path, entry("runs/r0/best.safetensors", "widen.npz", spec="widen.npz")
    )


def test_students_that_would_be_teachers_the_next_time(tmp_path):
    runs(tmp_path, 2)
    said = collide(tmp_path, entry("runs/*/*.safetensors", "runs/{parent}/grown.safetensors"))
    assert "teacher 'runs/*/*.safetensors' matches the output runs/r0/grown.safetensors" in said
    assert len(said.split("\n")) == 2


def test_many_problems_are_counted(tmp_path):
    runs(tmp_path, 30)
    said = collide(tmp_path, entry("runs/*/*.safetensors", "runs/{parent}/grown.safetensors"))
    assert said.endswith("... and 10 more")


@pytest.mark.parametrize(
    ("pattern", "path", "expected"),
    [
        ("/a/*/b", "/a/x/b", True),
        ("/a/*/b", "/a/x/y/b", False),
        ("/a/**/b", "/a/x/y/b", True),
        ("/a/**/b", "/a/b", True),
        ("/a/*", "/a/.hidden", False),
        ("/a/?.pt", "/a/x.pt", True),
        ("/a/[!x].pt", "/a/x.pt", False),
    ],
)
def test_matching_is_that_of_the_file_system(tmp_path, pattern, path, expected):
    import glob

    real = tmp_path / path[1:]
    real.parent.mkdir(parents=True)
    real.touch()
    found = glob.glob(str(tmp_path) + pattern, recursive=True)
    assert (str(real) in found) == expected  # the oracle
    assert matches(str(real), str(tmp_path) + pattern) == expected


@pytest.mark.parametrize(
    ("teachers", "output", "file"),
    [
        ("runs/*/*.safetensors", "runs/{parent}/x.safetensors.index.json", True),
        ("runs/*/*", "other/{parent}.safetensors.index.json", False),
        ("runs/*/[b-z]*.[js]*", "runs/{parent}/x.npz", True),
        ("runs/*/[b-z]*.[js]*", "runs/{parent}/x.pt", True),
        ("runs/*/best.*", "runs/{parent}/x-{stem}.pt", False),
    ],
)
def test_files_beside_students_that_would_be_teachers_the_next_time(
    tmp_path, teachers, output, file
):
    runs(tmp_path, 2)
    if file:
        said = collide(tmp_path, entry(teachers, output))
        assert said.count("matches a file of the output runs/r") == 2
    else:
        assert jobs(written(tmp_path / "jobs.jsonl", json.dumps(entry(teachers, output))))


def test_students_in_a_bucket_that_would_be_teachers_the_next_time(tmp_path, monkeypatch):
    names = ("a.safetensors", "b.safetensors")
    monkeypatch.setattr("ckgrow.batches.globs.store", lambda: Listed(names))
    said = collide(tmp_path, entry("s3://b/runs/*.safetensors", "s3://b/runs/{stem}-x.safetensors"))
    assert "matches the output s3://b/runs/a-x.safetensors" in said


class Listed:
    """A store in which every folder has the same files."""

    def __init__(self, names):
        self.names = names

    def listing(self, _):
        return self.names


def test_an_output_that_may_be_a_part_of_another(tmp_path):
    """With --force one would replace a file of the other."""
    runs(tmp_path, 2)
    said = collide(
        tmp_path,
        entry("runs/r0/best.safetensors", "grown/x.safetensors.index.json"),
        entry("runs/r1/best.safetensors", "grown/../grown/x-00001-of-00003.safetensors"),
    )
    assert "grown/x.safetensors.index.json is the output of a job" in said
    assert "and may have the output of one as its part" in said
    text = [
        entry("runs/r0/best.safetensors", "grown/x.safetensors.index.json"),
        entry("runs/r1/best.safetensors", "other/x-00001-of-00003.safetensors"),
        entry("runs/r1/best.safetensors", "grown/y-00001-of-00003.safetensors"),
    ]
    lines = written(tmp_path / "jobs.jsonl", "".join(json.dumps(each) + "\n" for each in text))
    assert len(jobs(lines)) == 3


def test_a_teacher_that_may_be_a_part_of_an_output(tmp_path):
    runs(tmp_path, 1)
    os.rename(tmp_path / "runs/r0/best.safetensors", tmp_path / "x-00001-of-00003.safetensors")
    said = collide(tmp_path, entry("x-00001-of-00003.safetensors", "x.safetensors.index.json"))
    assert "and may have the teacher of one as its part" in said
