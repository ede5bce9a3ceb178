"""One student made by many workers, for real: its bytes, its failures, its end."""

from __future__ import annotations

import dataclasses
import os
import signal
import subprocess
import time

import pytest
import safetensors.numpy
from commands import CKGROW, TIMEOUT, WIDEN, ckgrow, listing, saved, tensors, written
from shipped import SPECS, TEACHERS

from ckgrow import Spread
from ckgrow import apply as grow
from ckgrow.batches.halting import Sign
from ckgrow.errors import FileError, SpecError
from ckgrow.loading import Wish, load
from ckgrow.spec import canonical, parse
from ckgrow.spreading.spread import Crew
from ckgrow.spreading.tasks import Grown, Part, Student, Teacher, grow_part, signs_of

BACKENDS = ("loky", "threading", "dask", "ray")

# Where tensors are made, writing waits; or it kills, in worker processes. Python imports this.
STRIKING = """
import os, signal, sys, threading, time
struck, whole = os.environ.get("STRUCK"), os.pwrite
is_worker = not any(each.endswith("/ckgrow") for each in sys.orig_argv)

def pwrite(*arguments):
    if threading.current_thread() is not threading.main_thread():
        if struck == "kill" and is_worker:
            os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(0.3)
    return whole(*arguments)

if struck:
    os.pwrite = pwrite
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    saved(tmp_path / "teacher.safetensors", tensors())
    written(tmp_path / "spec.yaml", WIDEN)
    (tmp_path / "out").mkdir()
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def striking(tmp_path_factory):
    place = tmp_path_factory.mktemp("striking")
    written(place / "sitecustomize.py", STRIKING)
    return {**os.environ, "PYTHONPATH": str(place)}


def command(backend, *options, size="60"):
    where = ("--backend", backend, "--jobs", "2") if backend else ()
    apply = ("apply", "teacher.safetensors", "spec.yaml", "-o", "out", "--shard-size", size)
    return [str(CKGROW), *apply, *where, *options]


def run(backend, *options, **settings):
    return subprocess.run(
        command(backend, *options),
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
        check=False,
        **settings,
    )


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_bytes_are_those_of_one_process(tmp_path, backend):
    """Of a plan that measures, draws at random, and grows blocks."""
    made = {}
    for each in (None, backend):
        out = tmp_path / str(each)
        out.mkdir()
        apply = ("apply", TEACHERS / "resnet.safetensors", SPECS / "widen_resnet.yaml")
        where = ("--backend", each, "--jobs", "2") if each else ()
        options = ("-o", out, "--shard-size", "300KB", *where)
        done = subprocess.run(
            [str(CKGROW), *map(str, (*apply, *options))],
            capture_output=True,
            text=True,
            timeout=TIMEOUT,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert "verdict: preserved" in done.stdout
        made[each] = listing(out)
    assert len(made[None]) > 5
    assert made[None] == made[backend]


@pytest.mark.parametrize("noise", [False, True])
def test_students_that_deviate_and_parts_that_are_read_again(folder, noise):
    if noise:
        text = WIDEN + "    noise: {kind: gaussian, scale: 0.1}\n"
        written(folder / "spec.yaml", text)
    grow("teacher.safetensors", "spec.yaml", "out", shard_size=60, spreading=Spread("threading", 2))
    grow("teacher.safetensors", "spec.yaml", "one.safetensors")
    spread, one = load("out", Wish()), load("one.safetensors", Wish())
    with spread, one:
        assert spread.provenance == one.provenance
    (folder / "next").mkdir()
    spreading = Spread("threading", 1)
    again = grow("out", "spec.yaml", "next", spreading=spreading, check=False)  # a teacher in parts
    assert again.status == "written"
    assert grow("out", "spec.yaml", "next", spreading=spreading).status == "up to date"


def test_the_spec_of_workers_finds_its_files(folder, monkeypatch):
    """A path in a spec begins where the spec is, wherever a worker is."""
    (folder / "specs").mkdir()
    monkeypatch.chdir(folder / "specs")
    written(folder / "specs" / "spec.yaml", WIDEN)
    grow("../teacher.safetensors", "spec.yaml", "../out", spreading=Spread("threading"))
    assert len(listing(folder / "out")) == 2


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("-o", "a.safetensors", "--backend", "loky"), "which --backend cannot spread; write a ch"),
        (("-o", "out", "--backend", "loki"), "there is no backend 'loki'; did you mean 'loky'?"),
        (("-o", "out", "--jobs", "2"), "--jobs and --address belong to --backend; add it"),
        (("-o", "out", "--backend", "loky", "--address", "tcp://x"), "--address belongs to"),
    ],
)
def test_options_that_do_not_fit(folder, options, said):
    before = listing(folder)
    done = ckgrow("apply", "teacher.safetensors", "spec.yaml", *options)
    assert done.exit_code == 2
    assert said in done.stderr
    assert listing(folder) == before


def test_tensors_in_memory_are_nowhere(folder):
    with pytest.raises(SpecError, match="the given tensors are nowhere that workers could read"):
        grow(tensors(), "spec.yaml", "out", spreading=Spread("threading"))
    assert listing(folder / "out") == {}


@pytest.mark.parametrize("backend", ["loky", "dask", "ray"])
def test_a_worker_that_is_killed(folder, striking, backend):
    done = run(backend, env={**striking, "STRUCK": "kill"})
    assert done.returncode == 4, done.stderr
    assert done.stderr.startswith("error: a worker died while it made a part of the student")
    assert "Traceback" not in done.stderr
    assert listing(folder / "out") == {}


def test_an_old_student_survives_workers_that_die(folder, striking):
    assert run(None).returncode == 0
    before = listing(folder / "out")
    saved(folder / "teacher.safetensors", tensors(seed=3))
    assert run("loky", "--force", env={**striking, "STRUCK": "kill"}).returncode == 4
    assert listing(folder / "out") == before


@pytest.mark.parametrize(
    ("backend", "blow", "code"),
    [*((each, signal.SIGINT, 130) for each in BACKENDS), ("loky", signal.SIGTERM, 143)],
)
def test_interrupted(folder, striking, backend, blow, code):
    slow = {**striking, "STRUCK": "sleep"}
    with subprocess.Popen(
        command(backend, size="20"),
        env=slow,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as running:
        waited = time.monotonic()
        while not any(name.endswith("part") for name in listing(folder / "out")):
            assert running.poll() is None
            assert time.monotonic() - waited < TIMEOUT
            time.sleep(0.02)
        time.sleep(0.3)
        os.killpg(running.pid, blow)  # as a terminal does it
        _, complaint = running.communicate(timeout=TIMEOUT)
    assert running.returncode == code, complaint
    assert "no unfinished file was left behind" in complaint
    assert "Traceback" not in complaint
    assert listing(folder / "out") == {}
    if backend == "loky":
        assert ended(running.pid)


def ended(group):
    """Whether no process of a group is left, those that end by themselves excepted."""
    waited = time.monotonic()
    while time.monotonic() - waited < 10:
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.05)
    return False


# --- what a worker finds wrong --------------------------------------------------------------


@pytest.fixture
def task(folder):
    place = str(folder / "teacher.safetensors")
    with load(place, Wish()) as loaded:
        signs = signs_of(loaded)
    part = folder / "part"
    part.touch()
    student = Student(canonical(parse("spec.yaml")), str(folder), quiet=False)
    return Teacher(place, None, signs), student, Part(str(part), ".safetensors", ("0.bias",), {})


def test_a_part_alone(folder, task):
    grown = grow_part(*task, "", 0)
    assert list(grown.digests) == ["0.bias"]
    assert list(safetensors.numpy.load_file(folder / "part")) == ["0.bias"]


def test_another_teacher(folder, task):
    saved(folder / "teacher.safetensors", tensors(seed=5))
    grown = grow_part(*task, "", 0)
    assert "is not, for a worker, the file that it was for the plan" in grown.error
    assert grown.kind == 2


def test_another_version(folder, task):
    teacher, student, part = task
    grown = grow_part(teacher, dataclasses.replace(student, version="0.0.1"), part, "", 0)
    assert "where 0.0.1 is needed; install the same version on all machines" in grown.error
    assert (folder / "part").read_bytes() == b""


def test_a_folder_that_is_not_shared(folder, task):
    (folder / "part").unlink()
    grown = grow_part(*task, "", 0)
    assert "a worker does not find the file" in grown.error
    assert not (folder / "part").exists()


def test_a_raised_sign_stops_before_anything_is_written(folder, task):
    (folder / "stop").touch()
    assert grow_part(*task, str(folder / "stop"), 0) == Grown()
    assert (folder / "part").read_bytes() == b""


def waiting(sign):
    """A task that ends once it is told to."""
    waited = time.monotonic()
    while not os.path.exists(sign):
        if time.monotonic() - waited > 20:
            return Grown(error="nobody stopped it")
        time.sleep(0.01)
    return Grown()


def test_one_failure_stops_the_others(tmp_path):
    with Sign(tmp_path / "student") as sign:
        calls = [(waiting, (sign.path,), {}), (Grown, (None, "it failed", 2), {})]
        crew = Crew(Spread("threading", 2), calls, sign)
        begun = time.monotonic()
        with pytest.raises(FileError, match="it failed"):
            crew.run(lambda _: None)
        assert time.monotonic() - begun < 15
    assert listing(tmp_path) == {}


def test_an_error_of_a_worker_reaches_the_user(folder, monkeypatch):
    monkeypatch.setattr("ckgrow.spreading.tasks.VERSION", "0.0.1")
    done = ckgrow(*command("threading")[1:])
    assert done.exit_code == 4
    assert "a worker has ckgrow 0.0.1 where" in done.stderr
    assert listing(folder / "out") == {}
