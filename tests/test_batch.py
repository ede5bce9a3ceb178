"""Batches in threads, which start fast: records, what is skipped, what fails, what is printed."""

from __future__ import annotations

import fcntl
import json
import os
import re
import subprocess

import pytest
from batches import GLOB, records, runs, students
from commands import CKGROW, NOISY, WIDEN, ckgrow, document, listing, saved, tensors, written

import ckgrow as package
from ckgrow.batches import running, stamps
from ckgrow.batches.working import run_job
from ckgrow.errors import FileError, SpecError

THREADS = ("--backend", "threading")


@pytest.fixture
def manifest(tmp_path):
    return runs(tmp_path, 3)


def batch(manifest, *options, code=0):
    """What ``ckgrow batch --json`` prints; lines for people go to stderr all the same."""
    done = ckgrow("batch", manifest, *THREADS, *options, "--json")
    assert done.exit_code == code, done.output
    return json.loads(done.stdout)


def counts(told):
    return {name: told[name] for name in ("done", "skipped", "failed", "not_run") if told[name]}


def results(manifest):
    return records(manifest.with_suffix(".results.jsonl"))


def test_students_are_those_of_apply(manifest, tmp_path):
    told = batch(manifest)
    assert counts(told) == {"done": 3}
    for number in range(3):
        alone = tmp_path / f"{number}.safetensors"
        teacher = tmp_path / f"runs/r{number}/best.safetensors"
        known = document("apply", teacher, tmp_path / "widen.yaml", "-o", alone)
        made = tmp_path / f"grown/r{number}/best-widen.safetensors"
        assert made.read_bytes() == alone.read_bytes()
        (record,) = (
            each for each in results(manifest) if each["teacher"].startswith(f"runs/r{number}/")
        )
        assert record["hashes"] == known["hashes"]
    assert len(students(tmp_path)) == 6  # a folder and a student each, and nothing else


def test_a_record_says_what_became_of_a_job(manifest, tmp_path):
    batch(manifest)
    record = min(results(manifest), key=lambda each: each["teacher"])
    student = tmp_path / "grown/r0/best-widen.safetensors"
    assert record["teacher"] == "runs/r0/best.safetensors"
    assert record["spec"] == "widen.yaml"
    assert record["output"] == "grown/r0/best-widen.safetensors"
    assert (record["status"], record["error"], record["exit_code"]) == ("done", None, 0)
    assert record["preserved"] is True
    assert record["version"] == package.__version__
    assert 0 < record["seconds"] < 60
    status = student.stat()
    assert record["files"]["output"] == {student.name: [status.st_size, status.st_mtime_ns]}


def test_again_nothing_is_run(manifest, monkeypatch):
    batch(manifest)
    before = results(manifest)
    monkeypatch.setattr(running, "run_job", None)  # no worker is asked
    told = batch(manifest)
    assert counts(told) == {"skipped": 3}
    assert results(manifest) == before


def newer(path):
    """The same bytes, written again."""
    content = path.read_bytes()
    path.unlink()
    path.write_bytes(content)
    os.utime(path, ns=(1, path.stat().st_mtime_ns + 1))


def test_without_results_apply_finds_that_all_is_made(manifest):
    batch(manifest)
    manifest.with_suffix(".results.jsonl").unlink()
    assert counts(batch(manifest)) == {"skipped": 3}
    again = results(manifest)
    assert {each["status"] for each in again} == {"skipped"}
    assert all(each["hashes"] for each in again)  # so that the next time is quick


@pytest.mark.parametrize("what", ["teacher", "student", "results of other versions"])
def test_what_was_touched_is_looked_at_again(manifest, tmp_path, monkeypatch, what):
    batch(manifest)
    if what == "teacher":
        newer(tmp_path / "runs/r1/best.safetensors")
    elif what == "student":
        newer(tmp_path / "grown/r1/best-widen.safetensors")
    else:
        path = manifest.with_suffix(".results.jsonl")
        lines = path.read_text().splitlines()
        version = f'"version": "{package.__version__}"'
        lines = [
            line.replace(version, '"version": "0"') if "r1/" in line else line for line in lines
        ]
        path.write_text("\n".join(lines) + "\n")
    before = len(results(manifest))
    assert counts(batch(manifest)) == {"skipped": 3}
    (fresh,) = results(manifest)[before:]
    assert fresh["teacher"] == "runs/r1/best.safetensors"
    assert fresh["version"] == package.__version__


def test_another_teacher_is_not_overwritten_and_told(manifest, tmp_path):
    batch(manifest)
    saved(tmp_path / "runs/r1/best.safetensors", tensors(99))
    told = batch(manifest, code=1)
    assert counts(told) == {"skipped": 2, "failed": 1}
    (failure,) = told["failures"]
    assert failure["exit_code"] == 4
    assert "add --force" in failure["error"]
    before = len(results(manifest))
    assert counts(batch(manifest, "--force")) == {"done": 1, "skipped": 2}
    assert len(results(manifest)) == before + 3  # every job was run, whatever was known of it
    assert counts(batch(manifest)) == {"skipped": 3}


def test_another_spec_is_another_job(manifest, tmp_path):
    batch(manifest)
    written(tmp_path / "widen.yaml", f"# the same\n{WIDEN}")
    assert counts(batch(manifest)) == {"skipped": 3}
    written(tmp_path / "widen.yaml", WIDEN.replace("2", "3"))
    assert counts(batch(manifest, code=1)) == {"failed": 3}


def test_a_student_that_was_trained_is_not_taken_for_a_fresh_one(manifest, tmp_path):
    batch(manifest)
    student = tmp_path / "grown/r0/best-widen.safetensors"
    content = bytearray(student.read_bytes())
    content[-1] ^= 1
    student.write_bytes(content)
    assert counts(batch(manifest, code=1)) == {"skipped": 2, "failed": 1}
    assert student.read_bytes() == content


def test_a_verdict_that_is_wanted_by_now_is_not_in_the_records(manifest):
    """``apply`` is asked, which makes no student again that is the one that it would make."""
    manifest.write_text(GLOB + "    verify: false\n")
    batch(manifest)
    assert {each["verify"] for each in results(manifest)} == {False}
    manifest.write_text(GLOB)
    assert counts(batch(manifest)) == {"skipped": 3}
    asked = results(manifest)[3:]
    assert {(each["verify"], each["preserved"]) for each in asked} == {(True, None)}
    manifest.write_text(GLOB + "    verify: false\n")  # which is less than was asked for
    batch(manifest)
    assert len(results(manifest)) == 6


def test_one_bad_checkpoint_does_not_stop_the_others(manifest, tmp_path):
    (tmp_path / "runs/r1/best.safetensors").write_bytes(b"no checkpoint")
    told = batch(manifest, code=1)
    assert counts(told) == {"done": 2, "failed": 1}
    (failure,) = told["failures"]
    assert failure["exit_code"] == 3
    assert failure["output"] == "grown/r1/best-widen.safetensors"
    assert students(tmp_path) == {
        name for run in ("r0", "r2") for name in (run, f"{run}/best-widen.safetensors")
    }


def test_fail_fast_begins_no_more(tmp_path):
    manifest = runs(tmp_path, 12)
    (tmp_path / "runs/r0/best.safetensors").write_bytes(b"no checkpoint")
    told = batch(manifest, "--jobs", 1, "--fail-fast", code=1)
    assert told["failed"] == 1
    assert told["not_run"] >= 9
    assert told["done"] + told["failed"] + told["not_run"] == 12
    saved(tmp_path / "runs/r0/best.safetensors", tensors(0))
    assert batch(manifest)["failed"] == 0
    assert len(list((tmp_path / "grown").rglob("*.safetensors"))) == 12


def test_an_internal_error_is_one_jobs_alone(manifest, monkeypatch):
    monkeypatch.setattr("ckgrow.batches.working.apply", lambda *_, **__: 1 / 0)
    told = batch(manifest, code=1)
    assert counts(told) == {"failed": 3}
    assert {each["exit_code"] for each in told["failures"]} == {5}
    assert "internal error: ZeroDivisionError" in told["failures"][0]["error"]


def test_a_student_that_is_not_preserved_fails(manifest, monkeypatch):
    real = package.apply

    def failing(*places, **settings):
        import dataclasses

        made = real(*places, **settings)
        verdict = dataclasses.replace(made.verify, preserved=False, reason="output y differs")
        return dataclasses.replace(made, status="failed", verify=verdict)

    monkeypatch.setattr("ckgrow.batches.working.apply", failing)
    (failure, *_) = batch(manifest, code=1)["failures"]
    assert (failure["exit_code"], failure["preserved"]) == (1, False)
    assert failure["error"] == "not preserved: output y differs"


def test_noise_that_the_spec_asks_for_is_no_failure(manifest, tmp_path):
    written(tmp_path / "widen.yaml", NOISY)
    assert counts(batch(manifest)) == {"done": 3}
    assert {each["preserved"] for each in results(manifest)} == {False}


def test_jobs_without_a_verdict(manifest):
    manifest.write_text(GLOB + "    verify: false\n")
    batch(manifest)
    assert {each["preserved"] for each in results(manifest)} == {None}


# The file of results


def test_results_elsewhere(manifest, tmp_path):
    told = batch(manifest, "--results", tmp_path / "log.jsonl")
    assert told["results"] == str(tmp_path / "log.jsonl")
    assert len(records(tmp_path / "log.jsonl")) == 3
    assert not manifest.with_suffix(".results.jsonl").exists()


@pytest.mark.parametrize("cut", [1, 5, 40, 200])
def test_a_torn_last_line_is_forgotten(manifest, cut):
    batch(manifest)
    path = manifest.with_suffix(".results.jsonl")
    whole = path.read_bytes()
    path.write_bytes(whole[:-cut])
    assert counts(batch(manifest)) == {"skipped": 3}
    assert counts(batch(manifest, "--force")) == {"skipped": 3}
    assert len(results(manifest)) == 6  # and every line is whole


@pytest.mark.parametrize(
    "content", [b"notes of mine\n", b"notes of mine", b'{"a": 1}\n', b"[]\n", b"\0" * 3_000_000]
)
def test_a_file_with_other_things_is_left_alone(manifest, tmp_path, content):
    path = tmp_path / "log.jsonl"
    path.write_bytes(content)
    done = ckgrow("batch", manifest, *THREADS, "--results", path)
    assert done.exit_code == 2
    assert "log.jsonl:1: this is no record of a batch" in done.stderr
    assert path.read_bytes() == content
    assert not (tmp_path / "grown").exists()


def test_results_that_belong_to_a_job(manifest, tmp_path):
    for name in ("runs/r0/best.safetensors", "grown/r0/best-widen.safetensors", "widen.yaml"):
        done = ckgrow("batch", manifest, "--results", tmp_path / name)
        assert done.exit_code == 2
        assert "cannot take the results" in done.stderr
    done = ckgrow("batch", manifest, "--results", manifest)
    assert done.exit_code == 2


def test_results_that_another_batch_writes(manifest):
    path = manifest.with_suffix(".results.jsonl")
    with open(path, "w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        done = ckgrow("batch", manifest, *THREADS)
    assert done.exit_code == 4
    assert "is being written by another batch" in done.stderr


@pytest.mark.parametrize("place", ["missing/log.jsonl", "runs", "pipe"])
def test_results_that_cannot_be_written(manifest, tmp_path, place):
    os.mkfifo(tmp_path / "pipe")
    done = ckgrow("batch", manifest, *THREADS, "--results", tmp_path / place)
    assert done.exit_code == 4, done.output
    assert not (tmp_path / "grown").exists()


def test_a_full_disk_stops_the_batch(manifest, tmp_path):
    """The limit on file sizes stands for it: students fit, the results do not."""
    path = manifest.with_suffix(".results.jsonl")
    batch(manifest)
    path.write_text("".join(path.read_text().splitlines(keepends=True)) * 40)
    limit = f"ulimit -f {path.stat().st_size // 1024}; trap '' XFSZ; exec "
    command = f"{limit} {CKGROW} batch {manifest} --backend threading --force"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False)
    assert done.returncode == 4, done.stderr
    assert "jobs.results.jsonl cannot be written: the file is larger than" in done.stderr
    assert not [name for name in students(tmp_path) if "part" in name]


# Folders


def test_folders_that_stay_empty_go_again(manifest, tmp_path):
    for number in range(3):
        (tmp_path / f"runs/r{number}/best.safetensors").write_bytes(b"no checkpoint")
    batch(manifest, code=1)
    assert not (tmp_path / "grown").exists()


def test_a_folder_that_cannot_be_made(manifest, tmp_path):
    (tmp_path / "grown").write_text("in the way")
    told = batch(manifest, code=1)
    assert {each["exit_code"] for each in told["failures"]} == {4}
    assert (tmp_path / "grown").read_text() == "in the way"


# Printing


def test_lines_and_a_table_for_people(manifest, tmp_path):
    (tmp_path / "runs/r1/best.safetensors").write_bytes(b"no checkpoint")
    done = ckgrow("batch", manifest, *THREADS)
    assert done.exit_code == 1
    first, *lines = done.stderr.splitlines()
    assert first == "3 jobs"
    assert sorted(line.partition(":")[0] for line in lines) == ["done", "done", "failed"]
    table = [line.split() for line in done.stdout.splitlines()]
    assert table[-3:-1][0] == ["jobs", "done", "skipped", "failed", "not", "run", "seconds"]
    assert table[-2][:5] == ["3", "2", "0", "1", "0"]
    assert "grown/r1/best-widen.safetensors" in done.stdout
    again = ckgrow("batch", manifest, *THREADS)
    assert again.stderr.splitlines()[0] == "3 jobs, 2 of them done before"


def test_names_with_escapes_are_printed_safely(tmp_path):
    manifest = runs(tmp_path, 1)
    os.rename(tmp_path / "runs/r0", tmp_path / "runs/\x1b[31mred")
    (tmp_path / "runs/\x1b[31mred/best.safetensors").write_bytes(b"none")
    done = ckgrow("batch", manifest, *THREADS)
    assert done.exit_code == 1
    assert "\x1b" not in done.output


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--backend", "spark"), "there is no backend 'spark'"),
        (("--backend", "dusk"), "did you mean 'dask'?"),
        (("--address", "tcp://127.0.0.1:1"), "--address belongs to --backend dask or ray"),
    ],
)
def test_wrong_options(manifest, options, said):
    before = listing(manifest.parent)
    done = ckgrow("batch", manifest, *options)
    assert done.exit_code == 2
    assert said in done.stderr
    assert listing(manifest.parent) == before


# From Python


def test_from_python(manifest, tmp_path):
    told = package.batch(manifest, backend="threading", jobs=2)
    assert (told.jobs, told.done, told.schema) == (3, 3, "ckgrow.batch/1")
    with pytest.raises(FileError):
        package.batch(tmp_path / "none.yaml")
    with pytest.raises(SpecError, match="1 at least"):
        package.batch(manifest, jobs=0)


def test_a_list_of_jobs(manifest, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    job = {"teacher": "runs/r0/best.safetensors", "spec": "widen.yaml", "output": "x.safetensors"}
    told = package.batch([job], results="log.jsonl", backend="threading")
    assert told.done == 1
    assert (tmp_path / "x.safetensors").exists()
    with pytest.raises(SpecError, match="name results"):
        package.batch([job])


def test_the_function_of_a_job_takes_texts_and_returns_json(manifest, tmp_path):
    teacher = str(tmp_path / "runs/r0/best.safetensors")
    record = run_job(teacher, str(tmp_path / "widen.yaml"), str(tmp_path / "x.safetensors"))
    assert json.loads(json.dumps(record))["status"] == "done"
    sign = written(tmp_path / "sign", "")
    assert run_job(teacher, "none", "none", sign=str(sign)) is None


# What tells that nothing changed


def test_stamps_are_of_all_files_of_a_checkpoint(tmp_path):
    pytest.importorskip("ckgrow.adapters.formats.sharded")
    teacher = saved(tmp_path / "a.safetensors", tensors(hidden=64))
    index = tmp_path / "sharded/model.safetensors.index.json"
    index.parent.mkdir()
    package.convert(teacher, index, shard_size=600)
    spec, output = tmp_path / "widen.yaml", tmp_path / "grown/x.safetensors.index.json"
    written(spec, WIDEN)
    output.parent.mkdir()
    known = run_job(str(index), str(spec), str(output))["files"]
    assert set(known["teacher"]) == set(os.listdir(index.parent))
    assert set(known["output"]) == set(os.listdir(output.parent))
    assert len(known["teacher"]) > 2
    assert stamps.unchanged(str(index), known["teacher"])
    assert stamps.unchanged(str(output), known["output"])
    assert run_job(str(index), str(spec), str(output))["files"] == known  # it was there already
    whole = run_job(str(index.parent), str(spec), str(tmp_path / "x.safetensors"))["files"]
    assert stamps.unchanged(str(index.parent), whole["teacher"])
    newer(sorted(index.parent.glob("*.safetensors"))[0])
    assert not stamps.unchanged(str(index), known["teacher"])
    assert not stamps.unchanged(str(index.parent), whole["teacher"])


def test_another_checkpoint_in_the_folder_of_a_teacher(tmp_path):
    """Which of them is meant is another question then."""
    (tmp_path / "runs").mkdir()
    saved(tmp_path / "runs/a.safetensors", tensors())
    spec, runs = written(tmp_path / "widen.yaml", WIDEN), str(tmp_path / "runs")
    known = run_job(runs, str(spec), str(tmp_path / "x.safetensors"))["files"]["teacher"]
    assert stamps.unchanged(runs, known)
    saved(tmp_path / "runs/b.safetensors", tensors())
    assert not stamps.unchanged(runs, known)


def test_a_checkpoint_is_opened_no_more_than_by_apply(tmp_path, monkeypatch):
    """A torch file is read as a whole whenever it is opened."""
    import torch

    loaded = []
    load = torch.load
    monkeypatch.setattr(torch, "load", lambda *a, **b: loaded.append(1) or load(*a, **b))
    arrays = {name: torch.from_numpy(each) for name, each in tensors().items()}
    torch.save(arrays, tmp_path / "a.pt")
    spec = written(tmp_path / "widen.yaml", WIDEN)
    record = run_job(str(tmp_path / "a.pt"), str(spec), str(tmp_path / "b.pt"))
    assert record["status"] == "done"
    assert set(record["files"]["output"]) == {"b.pt", "b.pt.ckgrow.json"}
    assert len(loaded) == 2  # the teacher, and the student to verify it


def test_the_hash_of_a_spec_covers_what_it_reads(tmp_path):
    text = 'steps: [{widen: "0", factor: 2, calibrate: x.npz}]'
    spec = written(tmp_path / "spec.yaml", text)
    (tmp_path / "x.npz").write_bytes(b"a")
    known = stamps.hash_spec(str(spec))
    (tmp_path / "x.npz").write_bytes(b"b")
    assert stamps.hash_spec(str(spec)) != known
    (tmp_path / "x.npz").unlink()
    with pytest.raises(FileError):
        stamps.hash_spec(str(spec))


def read_terminal(descriptor):
    try:
        return os.read(descriptor, 4096)
    except OSError:  # the other end is closed
        return b""


def test_a_live_line_is_for_terminals(manifest, tmp_path):
    (tmp_path / "runs/r1/best.safetensors").write_bytes(b"no checkpoint")
    ours, theirs = os.openpty()
    command = [CKGROW, "batch", "jobs.yaml", *THREADS]
    settings = {"cwd": tmp_path, "env": {**os.environ, "COLUMNS": "120", "TERM": "xterm"}}
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=theirs, text=True, **settings
    ) as run:
        os.close(theirs)
        seen = b""
        while piece := read_terminal(ours):
            seen += piece
        said = run.stdout.read()
    os.close(ours)
    assert run.returncode == 1
    assert b"3/3" in seen
    assert b"2 done, 1 failed" in seen
    assert re.search(rb"\d+\.\d/(s|min)", seen)
    assert b"failed: grown/r1/best-widen.safetensors: " in seen
    assert b"done: " not in seen
    assert "\x1b" not in said
