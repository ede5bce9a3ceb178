"""What goes wrong with S3: each is one line, exit 4, and nothing left behind, here or there."""

from __future__ import annotations

import signal
import subprocess
import time

import numpy as np
import pytest
import remote_places
from commands import CKGROW, ckgrow, document, process, saved, tensors
from remote_places import BUCKET

import ckgrow as package
from ckgrow.errors import FileError
from ckgrow.registry import store
from ckgrow.watching import Unwatched

server = remote_places.server
bucket = remote_places.bucket


def error(*arguments, code=4):
    done = ckgrow(*arguments)
    assert done.exit_code == code, done.output
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1
    return done.stderr.removeprefix("error: ").strip()


def test_missing_file(bucket):
    url = bucket.url("none.safetensors")
    assert error("inspect", url) == f"{url} cannot be opened: no such file; check the URL"


def test_missing_bucket(bucket):
    url = "s3://no-such-bucket/teacher.safetensors"
    assert error("inspect", url) == f"{url} cannot be opened: no such bucket; check the URL"


def test_missing_bucket_of_the_output_is_found_before_the_work(bucket):
    url = "s3://no-such-bucket/student.safetensors"
    bucket.faults()
    message = error("apply", bucket.url("teacher.safetensors"), bucket.spec, "-o", url)
    assert message == f"{url} cannot be looked for: no such bucket; check the URL"
    assert not [each for each in bucket.faults() if each.method in ("PUT", "POST")]


@pytest.mark.parametrize("doing", ["opened", "read"])
def test_no_permission(bucket, doing):
    bucket.faults(fail=1000, status=403, method={"opened": "HEAD", "read": "GET"}[doing])
    message = error("inspect", bucket.url("teacher.safetensors"))
    place = bucket.url("teacher.safetensors")
    assert message.startswith(f"{place} cannot be {doing}: permission denied; check the URL, and")


def test_no_credentials(bucket):
    environment = {
        name: value
        for name, value in bucket.environment(HOME=str(bucket.folder)).items()
        if not name.startswith("AWS_") or name in ("AWS_ENDPOINT_URL", "AWS_EC2_METADATA_DISABLED")
    }
    done = process("inspect", bucket.url("teacher.safetensors"), env=environment)
    assert done.returncode == 4
    assert done.stderr == (
        f"error: s3://{BUCKET}/teacher.safetensors cannot be opened: Unable to locate "
        "credentials; log in as for the tools of that store\n"
    )


def test_nobody_listens(bucket):
    environment = bucket.environment(AWS_ENDPOINT_URL="http://127.0.0.1:9", AWS_MAX_ATTEMPTS="1")
    done = process("inspect", bucket.url("teacher.safetensors"), env=environment)
    assert done.returncode == 4
    assert done.stderr.startswith(f"error: s3://{BUCKET}/teacher.safetensors cannot be opened: no ")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("method", ["HEAD", "GET", "PUT", "POST"])
def test_a_fault_that_passes(bucket, method):
    bucket.faults(fail=2, method=method)
    student = bucket.url("student.safetensors")
    found = document("apply", bucket.url("teacher.safetensors"), bucket.spec, "-o", student)
    assert found["status"] == "written"
    assert [each.status for each in bucket.faults() if each.method == method].count(500) == 2
    assert bucket.unfinished() == []


@pytest.mark.parametrize("method", ["HEAD", "GET"])
def test_a_fault_that_stays(bucket, method):
    bucket.faults(fail=1000, method=method)
    student = bucket.folder / "student.safetensors"
    teacher = bucket.url("teacher.safetensors")
    message = error("apply", teacher, bucket.spec, "-o", student)
    assert message.startswith(f"{teacher} cannot be {'opened' if method == 'HEAD' else 'read'}: ")
    assert len(bucket.faults()) < 60
    assert not student.exists()


@pytest.mark.parametrize(
    "fault",
    [{"method": "PUT"}, {"method": "POST", "only": "uploadId"}, {"method": "POST"}],
    ids=["part", "completion", "beginning"],
)
def test_upload_that_fails_leaves_nothing(bucket, fault):
    bucket.faults(fail=1000, **fault)
    student = bucket.url("student.safetensors")
    message = error("apply", bucket.teacher, bucket.spec, "-o", student)
    bucket.faults()
    assert message.startswith(f"{student} cannot be written: ")
    assert bucket.names() == {"teacher.safetensors"}
    assert bucket.unfinished() == []
    assert bucket.left() == []


def test_upload_that_fails_leaves_the_old_student(bucket):
    bucket.put("student.safetensors", b"old")
    bucket.faults(fail=1000, method="PUT")
    error("apply", bucket.teacher, bucket.spec, "-o", bucket.url("student.safetensors"), "--force")
    bucket.faults()
    assert bucket.get("student.safetensors") == b"old"


def test_parts_are_taken_away_when_another_fails(bucket):
    index = bucket.url("parts/model.safetensors.index.json")
    bucket.faults(fail=1000, method="PUT", only="index.json")
    run = ("apply", bucket.teacher, bucket.spec, "--shard-size", "200", "-o", index)
    assert "cannot be written" in error(*run)
    bucket.faults()
    assert bucket.names() == {"teacher.safetensors"}


def test_slow_server(bucket):
    bucket.faults(pause=0.3)
    student = bucket.url("student.safetensors")
    found = document("apply", bucket.url("teacher.safetensors"), bucket.spec, "-o", student)
    assert found["status"] == "written"


@pytest.mark.parametrize("method", ["GET", "PUT"])
def test_silent_server(bucket, monkeypatch, method):
    """Whatever a library does about it, each request has a time limit."""
    monkeypatch.setattr("ckgrow.adapters.stores._waiting.LIMIT", 1.0)
    monkeypatch.setattr("ckgrow.adapters.stores.remote._WRITE_LIMIT", 1.0)
    bucket.faults(pause=5, method=method)
    teacher, student = bucket.url("teacher.safetensors"), bucket.url("student.safetensors")
    started = time.monotonic()
    message = error("apply", teacher, bucket.spec, "-o", student)
    assert time.monotonic() - started < 4
    place, doing = (teacher, "read") if method == "GET" else (student, "written")
    reason = "no answer within 1 seconds; try again, or from nearer by"
    assert message == f"{place} cannot be {doing}: {reason}"
    bucket.faults()
    assert bucket.names() == {"teacher.safetensors"}
    assert bucket.unfinished() == []


class Once(Unwatched):
    """Does something when a part of the work begins."""

    def __init__(self, what, deed):
        self.what = what
        self.deed = deed

    def begin(self, what, total):
        if what == self.what:
            self.deed()


def same_size(bucket):
    return saved(bucket.folder / "other.safetensors", tensors(seed=1)).read_bytes()


def halved(bucket):
    return bucket.teacher.read_bytes()[:300]


@pytest.mark.parametrize("what", ["reading the teacher", "growing", "verifying"])
@pytest.mark.parametrize("change", [same_size, halved, None], ids=["same", "shorter", "deleted"])
def test_teacher_changes_while_it_is_read(bucket, what, change):
    def deed():
        if change is None:
            bucket.client.delete_object(Bucket=BUCKET, Key="teacher.safetensors")
        else:
            bucket.put("teacher.safetensors", change(bucket))

    student = bucket.url("student.safetensors")
    with pytest.raises(FileError, match="changed while it was read; run again"):
        package.apply(
            bucket.url("teacher.safetensors"), bucket.spec, student, watching=Once(what, deed)
        )
    assert "student.safetensors" not in bucket.names()
    assert bucket.left() == []


def test_teacher_changes_between_two_reads(bucket):
    data = np.random.default_rng(0).bytes(400_000)
    bucket.put("data.bin", data)
    file = store().open(bucket.url("data.bin"))
    assert file.read(0, 10) == data[:10]
    bucket.put("data.bin", data[:1000])
    with pytest.raises(FileError, match="changed while it was read"):
        file.read(200_000, 10)
    assert not file.unchanged()


def test_the_same_bytes_written_anew_count_as_changed(bucket):
    file = store().open(bucket.url("teacher.safetensors"))
    assert file.unchanged()
    time.sleep(1.1)  # the store's times are in seconds
    bucket.put("teacher.safetensors", bucket.teacher)
    assert not file.unchanged()


def test_student_that_appears_meanwhile_stays(bucket):
    student = bucket.url("student.safetensors")
    deed = Once("verifying", lambda: bucket.put("student.safetensors", b"another's"))
    with pytest.raises(FileError, match="exists"):
        package.apply(bucket.teacher, bucket.spec, student, watching=deed)
    assert bucket.get("student.safetensors") == b"another's"


def test_putting_looks_and_writes_at_once(bucket):
    """Two runs that both found the name free: the second one loses, as with files."""
    url = bucket.url("student.safetensors")
    store().put(bucket.teacher, url, replace=False)
    with pytest.raises(FileError, match="exists by now; add --force"):
        store().put(bucket.spec, url, replace=False)
    assert bucket.get("student.safetensors") == bucket.teacher.read_bytes()
    assert bucket.unfinished() == []
    store().put(bucket.spec, url, replace=True)
    assert bucket.get("student.safetensors") == bucket.spec.read_bytes()


def test_server_that_cannot_look_and_write_at_once(bucket):
    bucket.faults(fail=1, status=501, method="POST", only="uploadId")
    store().put(bucket.teacher, bucket.url("student.safetensors"), replace=False)
    assert bucket.get("student.safetensors") == bucket.teacher.read_bytes()
    assert bucket.unfinished() == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize(("method", "only"), [("HEAD", ""), ("GET", "teacher"), ("PUT", "")])
def test_interrupt_ends_at_once(bucket, method, only, number):
    """In the middle of a request, by which thread it may be made."""
    student = bucket.url("student.safetensors")
    run = ("apply", bucket.url("teacher.safetensors"), bucket.spec, "-o", student)
    bucket.faults(pause=20, method=method, only=only)
    process = subprocess.Popen(
        [CKGROW, *run], env=bucket.environment(), stderr=subprocess.PIPE, text=True
    )
    wait_for(lambda: bucket.left() if method == "PUT" else time.sleep(1.5) or True)
    if method == "PUT":
        time.sleep(1.5)
    started = time.monotonic()
    process.send_signal(number)
    _, said = process.communicate(timeout=30)
    assert time.monotonic() - started < 3
    assert process.returncode == {signal.SIGINT: 130, signal.SIGTERM: 143}[number]
    assert said.count("\n") == 1
    bucket.faults()
    assert bucket.names() == {"teacher.safetensors"}
    assert bucket.unfinished() == []
    assert bucket.left() == []


def test_interrupt_while_workers_wait(bucket):
    """The tensors are read by other threads than the one that gets the signal."""
    random = np.random.default_rng(0)
    values = {
        "0.weight": random.normal(size=(600, 500)).astype("f4"),
        "0.bias": random.normal(size=600).astype("f4"),
        "2.weight": random.normal(size=(10, 600)).astype("f4"),
        "2.bias": random.normal(size=10).astype("f4"),
    }
    bucket.put("wide.safetensors", saved(bucket.folder / "wide.safetensors", values))
    run = (
        "apply",
        bucket.url("wide.safetensors"),
        bucket.spec,
        "-o",
        bucket.url("out.safetensors"),
    )
    process = subprocess.Popen(
        [CKGROW, *run], env=bucket.environment(AWS_MAX_ATTEMPTS="1"), stderr=subprocess.PIPE
    )
    seen = []

    def header_read():
        seen.extend(each for each in bucket.faults(pause=2) if each.method == "GET")
        return seen

    bucket.faults(pause=2)
    wait_for(header_read)
    bucket.faults(pause=20, method="GET")
    time.sleep(1)
    started = time.monotonic()
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=30)
    assert time.monotonic() - started < 3
    assert process.returncode == 130
    bucket.faults()
    assert bucket.left() == []


def wait_for(condition, seconds=30):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


def test_output_that_is_the_teacher(bucket):
    url = bucket.url("teacher.safetensors")
    assert error("apply", url, bucket.spec, "-o", url, "--force") == (
        f"{url} is the teacher itself; write the student elsewhere"
    )


def test_output_without_a_name(bucket):
    """A folder is where a checkpoint in parts would go; a bucket needs a name in it."""
    message = error("apply", bucket.teacher, bucket.spec, "-o", f"s3://{BUCKET}", code=2)
    assert message.startswith(f"s3://{BUCKET}: the suffix says which format to write")
