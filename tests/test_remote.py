"""Checkpoints on S3: a real server process, and boto3 and safetensors' own library as oracles."""

from __future__ import annotations

import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import remote_places
import safetensors.numpy
from commands import WIDEN, ckgrow, document, process, python, saved, written
from remote_places import BUCKET
from safetensors import safe_open

from ckgrow.errors import CheckpointError
from ckgrow.registry import store

MEGABYTE = 1 << 20
ROOT = Path(__file__).parents[1]

server = remote_places.server
bucket = remote_places.bucket


def local_student(bucket, spec=None):
    """The bytes that the same run writes here."""
    student = bucket.folder / "expected.safetensors"
    assert ckgrow("apply", bucket.teacher, spec or bucket.spec, "-o", student).exit_code == 0
    return student.read_bytes()


def large(bucket, name="large.safetensors", hidden=2048):
    """A teacher of about 16 MB for 2,048 hidden units, in the folder and in the bucket."""
    random = np.random.default_rng(7)
    shapes = {"0.weight": (hidden, 1000), "0.bias": (hidden,), "2.weight": (1000, hidden)}
    shapes["2.bias"] = (1000,)
    values = {key: random.normal(size=shape).astype("f4") for key, shape in shapes.items()}
    path = saved(bucket.folder / name, values)
    bucket.put(name, path)
    return path


def ranges(requests):
    return [each for each in requests if each.method == "GET" and each.range]


def test_inspect_and_plan_say_the_same_as_of_the_file(bucket):
    there, here = bucket.url("teacher.safetensors"), bucket.teacher
    for command in (("inspect",), ("plan", bucket.spec)):
        name, *more = command
        remote, local = document(name, there, *more), document(name, here, *more)
        for each in (remote, local):
            each.pop("teacher", None)
            each.pop("checkpoint", None)
        assert remote == local


def test_apply_from_s3_to_s3(bucket):
    student = bucket.url("deep/student.safetensors")
    found = document("apply", bucket.url("teacher.safetensors"), bucket.spec, "-o", student)
    assert found["status"] == "written"
    assert found["verify"]["preserved"]
    assert (found["teacher"], found["student"]) == (bucket.url("teacher.safetensors"), student)
    data = bucket.get("deep/student.safetensors")
    assert data == local_student(bucket)
    assert safetensors.numpy.load(data)["0.weight"].shape == (12, 4)
    assert bucket.unfinished() == []
    assert bucket.left() == []


def test_apply_from_s3_to_here_and_back(bucket):
    here = bucket.folder / "student.safetensors"
    assert (
        ckgrow("apply", bucket.url("teacher.safetensors"), bucket.spec, "-o", here).exit_code == 0
    )
    there = bucket.url("student.safetensors")
    assert ckgrow("apply", bucket.teacher, bucket.spec, "-o", there).exit_code == 0
    assert here.read_bytes() == bucket.get("student.safetensors") == local_student(bucket)


def test_verify(bucket):
    student = bucket.url("student.safetensors")
    teacher = bucket.url("teacher.safetensors")
    ckgrow("apply", teacher, bucket.spec, "-o", student)
    assert document("verify", teacher, student, "--quick")["preserved"]
    values = safetensors.numpy.load(bucket.get("student.safetensors"))
    values["0.weight"][0, 0] += 1
    bucket.put("student.safetensors", safetensors.numpy.save(values))
    assert not document("verify", teacher, student, "--quick", code=1)["preserved"]


def test_up_to_date_exists_and_force(bucket):
    student = bucket.url("student.safetensors")
    run = ("apply", bucket.url("teacher.safetensors"), bucket.spec, "-o", student)
    assert document(*run)["status"] == "written"
    bucket.faults()
    assert document(*run)["status"] == "up to date"
    assert not [each for each in bucket.faults() if each.method not in ("HEAD", "GET")]
    first = bucket.get("student.safetensors")

    written(bucket.spec, WIDEN.replace("2", "3"))
    done = ckgrow(*run)
    assert done.exit_code == 4
    assert done.stderr == f"error: {student} exists; add --force to replace it\n"
    assert bucket.get("student.safetensors") == first

    assert document(*run, "--force")["status"] == "written"
    assert bucket.get("student.safetensors") == local_student(bucket)
    assert bucket.left() == []


def test_planning_reads_the_header_only(bucket):
    large(bucket)
    bucket.faults()
    document("plan", bucket.url("large.safetensors"), bucket.spec)
    requests = bucket.faults()
    assert [each.method for each in requests] == ["HEAD", "GET"]
    assert ranges(requests)[0].range == "bytes=0-65535"


def test_planning_on_a_long_header(bucket):
    many = {f"{number:05}{'x' * 60}": np.zeros(1, "f4") for number in range(4000)}
    data = safetensors.numpy.save({**many, "end": np.zeros(3 * MEGABYTE, "f4")})
    bucket.put("many.safetensors", data)
    bucket.faults()
    ckgrow("inspect", bucket.url("many.safetensors"))
    requests = bucket.faults()
    header = int.from_bytes(data[:8], "little")
    assert header > 400_000
    assert len(requests) <= 4
    assert sum(each.sent for each in ranges(requests)) <= 2 * header


def test_reading_streams_by_range(bucket):
    """Twice: for the teacher's hash, and to grow it. Nothing is kept on the disk."""
    teacher = large(bucket)
    size = teacher.stat().st_size
    bucket.faults()
    student = bucket.folder / "student.safetensors"
    run = ("apply", bucket.url("large.safetensors"), bucket.spec, "--no-verify", "-o", student)
    assert ckgrow(*run, "--workers", 2).exit_code == 0
    requests = bucket.faults()
    assert len(requests) < 30
    assert all(each.status == 206 and each.sent <= 8 * MEGABYTE for each in ranges(requests))
    assert sum(each.sent for each in ranges(requests)) < 2.2 * size
    expected = bucket.folder / "expected.safetensors"
    ckgrow("apply", teacher, bucket.spec, "--no-verify", "-o", expected)
    assert student.read_bytes() == expected.read_bytes()
    assert bucket.left() == []


def test_large_students_are_sent_in_parts(bucket):
    teacher = large(bucket)
    bucket.faults()
    student = bucket.url("student.safetensors")
    assert ckgrow("apply", teacher, bucket.spec, "--no-verify", "-o", student).exit_code == 0
    parts = [each for each in bucket.faults() if each.method == "PUT"]
    assert len(parts) == 4
    with safe_open(bucket.folder / "large.safetensors", "np") as file:
        shape = file.get_slice("0.weight").get_shape()
    grown = safetensors.numpy.load(bucket.get("student.safetensors"))
    assert grown["0.weight"].shape == (2 * shape[0], shape[1])
    assert bucket.unfinished() == []


def test_folder_with_one_checkpoint(bucket):
    bucket.put("run/model.safetensors", bucket.teacher)
    bucket.put("run/config.json", b"{}")
    bucket.put("run/old/other.safetensors", b"not looked at")
    for url in (bucket.url("run/"), bucket.url("run")):
        assert document("inspect", url)["architecture"] == "mlp"


def test_folder_with_several_checkpoints_or_none(bucket):
    bucket.put("run/one.safetensors", bucket.teacher)
    bucket.put("run/two.safetensors", bucket.teacher)
    bucket.put("empty/readme.txt", b"")
    done = ckgrow("inspect", bucket.url("run/"))
    assert done.exit_code == 4
    assert "is a directory with 2 checkpoints; name one of one.safetensors" in done.stderr
    done = ckgrow("inspect", bucket.url("empty/"))
    assert done.exit_code == 4
    assert "is a directory without a checkpoint in it" in done.stderr


def test_folder_that_looks_like_a_file(bucket):
    bucket.put("v1.0/model.safetensors", bucket.teacher)
    done = ckgrow("inspect", bucket.url("v1.0"))
    assert done.exit_code == 4
    assert done.stderr == (
        f"error: s3://{BUCKET}/v1.0 is a folder; put a / at its end to name the checkpoint in it\n"
    )


def test_a_file_without_an_ending(bucket):
    bucket.put("weights", bucket.teacher)
    assert document("inspect", bucket.url("weights"))["architecture"] == "mlp"


def test_checkpoint_in_parts(bucket):
    url = bucket.url("parts/model.safetensors.index.json")
    run = (
        "apply",
        bucket.url("teacher.safetensors"),
        bucket.spec,
        "--shard-size",
        "200",
        "-o",
        url,
    )
    assert document(*run)["status"] == "written"
    names = {name for name in bucket.names() if name.startswith("parts/")}
    assert len(names) > 2
    assert document("inspect", bucket.url("parts/"))["architecture"] == "mlp"
    found = document("verify", bucket.url("teacher.safetensors"), url, "--quick")
    assert found["preserved"]
    whole = safetensors.numpy.load(local_student(bucket))
    parts = [safetensors.numpy.load(bucket.get(name)) for name in names if "index" not in name]
    together = {name: value for part in parts for name, value in part.items()}
    assert {name: value.tobytes() for name, value in together.items()} == {
        name: value.tobytes() for name, value in whole.items()
    }
    assert document(*run)["status"] == "up to date"
    assert document(*run, "--force", "--workers", 1)["status"] in ("written", "up to date")


def test_a_missing_part_is_named(bucket):
    url = bucket.url("parts/model.safetensors.index.json")
    ckgrow("apply", bucket.teacher, bucket.spec, "--shard-size", "200", "-o", url)
    gone = sorted(name for name in bucket.names() if "-of-" in name)[0]
    bucket.client.delete_object(Bucket=BUCKET, Key=gone)
    done = ckgrow("inspect", url)
    assert done.exit_code in (3, 4)
    assert Path(gone).name in done.stderr


def test_batch(bucket):
    bucket.put("runs/one.safetensors", bucket.teacher)
    bucket.put("runs/two.safetensors", bucket.teacher)
    teachers, outputs = bucket.url("runs/*.safetensors"), bucket.url("grown/{stem}.safetensors")
    manifest = bucket.folder / "jobs.yaml"
    written(
        manifest, f"jobs:\n  - {{teacher: '{teachers}', spec: spec.yaml, output: '{outputs}'}}\n"
    )
    assert ckgrow("batch", manifest, "--backend", "threading").exit_code == 0
    for name in ("grown/one.safetensors", "grown/two.safetensors"):
        assert bucket.get(name) == local_student(bucket)


@pytest.mark.parametrize("name", ["student.pt", "student.npz"])
def test_other_formats(bucket, name):
    """Read through a stream, and written with a side file where the format has one."""
    url = bucket.url(f"other/{name}")
    assert document("convert", bucket.url("teacher.safetensors"), url)
    there = document("inspect", url)
    assert there["architecture"] == "mlp"
    here = bucket.folder / f"again-{name}.safetensors"
    assert ckgrow("convert", url, here).exit_code == 0
    again, expected = (safetensors.numpy.load_file(path) for path in (here, bucket.teacher))
    assert {key: value.tobytes() for key, value in again.items()} == {
        key: value.tobytes() for key, value in expected.items()
    }


@pytest.mark.parametrize(
    "name", ["../out.safetensors", "/etc/passwd", "a//b", "..\\x", "", "s3://x", "x::file:///y"]
)
def test_parts_do_not_lead_out_of_the_folder(bucket, name):
    bucket.put("run/index.json", b"{}")
    bucket.put("out.safetensors", b"x")
    file = store().open(bucket.url("run/index.json"))
    with pytest.raises(CheckpointError, match="not in its folder"):
        file.sibling(name)


def test_siblings(bucket):
    bucket.put("run/index.json", b"{}")
    bucket.put("run/deep/100% #1.bin", b"0123456789")
    file = store().open(bucket.url("run/index.json"))
    found = file.sibling("deep/100% #1.bin")
    assert (found.size, found.name, found.read(3, 4)) == (10, "100% #1.bin", b"3456")
    assert file.sibling("none.bin") is None


def test_streams_seek_and_end(bucket):
    data = np.random.default_rng(0).bytes(300_000)
    bucket.put("data.bin", data)
    file = store().open(bucket.url("data.bin"))
    stream = file.stream()
    assert stream.read(10) == data[:10]
    assert stream.seek(-5, 2) == 299_995
    assert stream.read() == data[-5:]
    stream.seek(100_000)
    assert stream.read(150_000) == data[100_000:250_000]
    stream.close()
    assert file.read(299_000, 1000) == data[-1000:]


def test_many_threads_read_what_is_there(bucket):
    data = np.random.default_rng(0).bytes(3 * MEGABYTE)
    bucket.put("data.bin", data)
    file = store().open(bucket.url("data.bin"))
    places = np.random.default_rng(1).integers(0, len(data) - 100_000, size=(200, 2)) // [1, 30]
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda place: file.read(int(place[0]), int(place[1])), places))
    assert found == [data[start : start + size] for start, size in places]


def test_local_paths_import_nothing_of_it(bucket):
    code = (
        "import sys, ckgrow; ckgrow.plan(*sys.argv[1:]); "
        "assert not {'fsspec', 's3fs', 'aiohttp', 'botocore'} & set(sys.modules)"
    )
    done = python(code, bucket.teacher, bucket.spec)
    assert done.returncode == 0, done.stderr


def test_the_examples_of_the_page(bucket):
    """Commands of docs/remote.md, in the order of the page."""
    page = (ROOT / "docs" / "remote.md").read_text()
    blocks = re.findall(r"^```sh\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    commands = [line for block in blocks for line in block.splitlines() if "s3://models/" in line]
    assert len(commands) >= 4
    bucket.put("resnet.safetensors", ROOT / "specs" / "teachers" / "resnet.safetensors")
    for command in commands:
        name, *arguments = command.split()
        assert name == "ckgrow", command
        done = process(*arguments, env=bucket.environment(), cwd=ROOT)
        assert done.returncode == 0, (command, done.stderr)
        assert done.stderr == ""
