"""A batch whose teachers and students are elsewhere: URLs pass through it as they are written."""

from __future__ import annotations

import pytest
import remote_places
from batches import records
from commands import ckgrow, document, process, saved, tensors, written

server, bucket = remote_places.server, remote_places.bucket

MANIFEST = """\
jobs:
  - teacher: "s3://models/runs/*.safetensors"
    spec: spec.yaml
    output: "s3://models/grown/{parent}-{stem}{suffix}"
"""


@pytest.fixture
def manifest(bucket):
    for number in range(2):
        teacher = saved(bucket.folder / f"{number}.safetensors", tensors(number))
        bucket.put(f"runs/{number}.safetensors", teacher)
    return written(bucket.folder / "jobs.yaml", MANIFEST)


def test_a_batch_from_bucket_to_bucket(bucket, manifest):
    environment = bucket.environment(OMP_NUM_THREADS="1")
    done = process("batch", manifest, "--jobs", 2, env=environment)
    assert done.returncode == 0, done.stderr
    for number in range(2):
        here = bucket.folder / f"{number}-grown.safetensors"
        document("apply", bucket.folder / f"{number}.safetensors", bucket.spec, "-o", here)
        assert bucket.get(f"grown/runs-{number}.safetensors") == here.read_bytes()
    assert bucket.left() == []
    (one, two) = records(bucket.folder / "jobs.results.jsonl")
    assert {one["output"], two["output"]} == {
        f"s3://models/grown/runs-{number}.safetensors" for number in range(2)
    }
    again = ckgrow("batch", manifest, "--backend", "threading")  # which apply itself finds out
    assert again.stderr.splitlines()[0] == "2 jobs"
    assert again.stderr.count("up to date") == 2


def test_a_teacher_that_is_not_there_fails_alone(bucket, manifest):
    text = MANIFEST.replace('"s3://models/runs/*.safetensors"', "[s3://models/n.pt, 0.safetensors]")
    written(manifest, text.replace("s3://models/grown/", "grown/"))
    done = ckgrow("batch", manifest, "--backend", "threading", "--jobs", 1)
    assert done.exit_code == 1
    failed, made = records(bucket.folder / "jobs.results.jsonl")
    assert (failed["teacher"], failed["exit_code"]) == ("s3://models/n.pt", 4)
    assert made["status"] == "done"


def test_a_glob_that_matches_nothing_there(bucket, manifest):
    written(manifest, MANIFEST.replace("/runs/", "/run/"))
    done = ckgrow("batch", manifest)
    assert done.exit_code == 2
    assert "'s3://models/run/*.safetensors' matches nothing" in done.stderr
