"""Batches in real workers, all four backends: the same students, deaths, signals, nobody left."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from batches import group_of, large_runs, records, runs, students
from commands import CKGROW, ckgrow, process, python, written

BACKENDS = ("loky", "threading", "dask", "ray")
NEEDED = {"dask": "distributed", "ray": "ray"}
OWN = {**os.environ, "OMP_NUM_THREADS": "1"}
LONG = 600
"""Seconds after which a batch hangs; clusters start slowly on a machine under load."""

FULL = pytest.mark.full

PLUG_IN = """\
import os, signal


class Deadly:
    name = "deadly"
    suffixes = (".deadly",)
    writable = containers = shards = False

    def recognises(self, file, start):
        if file.name.endswith(".deadly"):
            os.kill(os.getpid(), signal.SIGKILL)
        return False


ADAPTER = Deadly()
"""
"""A format whose files kill whoever opens them, as one too large for the memory would."""


def need(backend):
    """Skips a test of a backend whose package is not there."""
    if backend in NEEDED:
        pytest.importorskip(NEEDED[backend])


@contextlib.contextmanager
def started(manifest, backend, *options):
    """A batch as the leader of a process group, which is empty afterwards."""
    command = [CKGROW, "batch", manifest, "--backend", backend, "--jobs", "2", *options]
    told = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    run = subprocess.Popen(command, start_new_session=True, env=OWN, **told)
    try:
        yield run
    finally:
        for pid in group_of(run.pid):
            os.kill(pid, signal.SIGKILL)
        run.wait()
        run.stdout.close()
        run.stderr.close()


def wait_for(happened, run=None):
    limit = time.monotonic() + LONG
    while not happened():
        assert time.monotonic() < limit
        assert run is None or run.poll() is None, run.stderr.read()
        time.sleep(0.01)


def parts(folder):
    return [name for name in students(folder) if "ckgrow-part" in name]


def made(folder):
    return {name for name in students(folder) if name.endswith(".safetensors")} - set(parts(folder))


def assert_verified(folder):
    """Every student that is there is whole: apply finds nothing to do."""
    for name in made(folder):
        teacher = folder / "runs" / Path(name).parent / "best.safetensors"
        told = ckgrow("apply", teacher, folder / "widen.yaml", "-o", folder / "grown" / name)
        assert (told.exit_code, "up to date" in told.stdout) == (0, True), told.output


def deadly(manifest, monkeypatch):
    """Makes a job of the manifest kill the worker that opens its teacher."""
    folder = manifest.parent
    teacher = folder / "runs/r2/best.safetensors"
    teacher.unlink()
    written(teacher.with_suffix(".deadly"), "nothing that another format would claim")
    manifest.write_text(manifest.read_text().replace("best.safetensors", "best.*"))
    written(folder / "deadly.py", PLUG_IN)
    place = folder / "deadly-1.0.dist-info"
    place.mkdir()
    written(place / "METADATA", "Metadata-Version: 2.1\nName: deadly\nVersion: 1.0\n")
    written(place / "entry_points.txt", "[ckgrow.formats]\ndeadly = deadly:ADAPTER\n")
    paths = [str(folder), os.environ.get("PYTHONPATH", "")]
    monkeypatch.setitem(OWN, "PYTHONPATH", os.pathsep.join(filter(None, paths)))


@pytest.mark.parametrize("backend", BACKENDS)
def test_every_backend_makes_the_same_students(backend, tmp_path, monkeypatch):
    """Whatever bad checkpoints do, to themselves or to the worker that opens them."""
    need(backend)
    manifest = runs(tmp_path, 6)
    (tmp_path / "runs/r3/best.safetensors").write_bytes(b"no checkpoint")
    failing = {"runs/r3/best.safetensors": "is no safetensors file"}
    if backend != "threading":  # a thread would take its process along
        deadly(manifest, monkeypatch)
        failing["runs/r2/best.deadly"] = "the worker process died"
    with started(manifest, backend) as run:
        out, err = run.communicate(timeout=LONG)
        assert run.returncode == 1, err
        wait_for(lambda: not group_of(run.pid))  # nobody stays
    told = {each["teacher"]: each for each in records(tmp_path / "jobs.results.jsonl")}
    assert len(told) == 6
    for teacher, said in failing.items():
        assert said in told.pop(teacher)["error"]
    # One that was done when its worker died beside another's job is asked for once more.
    assert {each["status"] for each in told.values()} <= {"done", "skipped"}
    assert {line.partition(":")[0] for line in err.splitlines()[1:]} <= {
        "done",
        "skipped",
        "failed",
    }
    assert "grown/r3/best-widen.safetensors" in out
    assert len(made(tmp_path)) == len(told)
    assert_verified(tmp_path)
    if backend == "threading":
        again = ckgrow("batch", manifest, "--backend", backend)
        assert "6 jobs, 5 of them done before" in again.stderr


STOPPED = [
    pytest.param("loky", signal.SIGINT, True),
    pytest.param("loky", signal.SIGTERM, False),
    pytest.param("loky", signal.SIGINT, False, marks=FULL),
    pytest.param("loky", signal.SIGTERM, True, marks=FULL),
    pytest.param("threading", signal.SIGINT, True),
    pytest.param("threading", signal.SIGTERM, False, marks=FULL),
    pytest.param("dask", signal.SIGTERM, True),
    pytest.param("dask", signal.SIGINT, True, marks=FULL),
    pytest.param("dask", signal.SIGINT, False, marks=FULL),
    pytest.param("dask", signal.SIGTERM, False, marks=FULL),
    pytest.param("ray", signal.SIGTERM, True, marks=FULL),
    pytest.param("ray", signal.SIGINT, True, marks=FULL),
    pytest.param("ray", signal.SIGINT, False, marks=FULL),
    pytest.param("ray", signal.SIGTERM, False, marks=FULL),
]
"""Ctrl-C in a terminal goes to the whole group, ``kill`` to the one process."""


@pytest.mark.parametrize(("backend", "number", "group"), STOPPED)
def test_stopped_in_order(backend, number, group, tmp_path):
    need(backend)
    manifest = large_runs(tmp_path, 24, 1200)
    with started(manifest, backend) as run:
        wait_for(lambda: parts(tmp_path) and made(tmp_path), run)
        (os.killpg if group else os.kill)(run.pid, number)
        _, err = run.communicate(timeout=LONG)
        assert run.returncode == {signal.SIGINT: 130, signal.SIGTERM: 143}[number], err
        assert "Traceback" not in err
        wait_for(lambda: not group_of(run.pid))
    told = records(tmp_path / "jobs.results.jsonl")
    assert 0 < len(told) < 24
    assert {each["output"] for each in told} == {f"grown/{name}" for name in made(tmp_path)}
    assert parts(tmp_path) == []
    assert {path.name for path in tmp_path.iterdir()} == {
        *("runs", "grown", "widen.yaml", "jobs.yaml", "jobs.results.jsonl")
    }
    assert_verified(tmp_path)


def workers_of(run):
    """Processes of the group that may be at work on a job."""
    for pid in group_of(run.pid) - {run.pid}:
        command = Path(f"/proc/{pid}/cmdline").read_bytes()
        if any(word in command for word in (b"popen_loky", b"spawn_main", b"ray::")):
            yield pid


@pytest.mark.parametrize("backend", ["loky", pytest.param("dask", marks=FULL)])
def test_a_worker_is_killed(backend, tmp_path):
    need(backend)
    manifest = large_runs(tmp_path, 8, 1200)
    with started(manifest, backend) as run:
        wait_for(lambda: parts(tmp_path), run)
        os.kill(next(workers_of(run)), signal.SIGKILL)
        _, err = run.communicate(timeout=LONG)
        assert run.returncode == 0, err
        wait_for(lambda: not group_of(run.pid))
    told = records(tmp_path / "jobs.results.jsonl")
    assert len(told) == 8
    assert {each["status"] for each in told} <= {"done", "skipped"}
    assert len(made(tmp_path)) == 8
    assert parts(tmp_path) == []
    assert_verified(tmp_path)


def test_a_killed_batch_continues_where_it_was(tmp_path):
    manifest = large_runs(tmp_path, 8, 1200)
    path = tmp_path / "jobs.results.jsonl"
    with started(manifest, "loky") as run:
        wait_for(lambda: path.exists() and len(records(path)) >= 2, run)
        os.kill(run.pid, signal.SIGKILL)
        run.wait()
        known = len(records(path))
        again = process("batch", manifest, "--jobs", 2, env=OWN)
        assert again.returncode == 0, again.stderr
        assert f"8 jobs, {known} of them done before" in again.stderr
    assert len(made(tmp_path)) == 8
    assert parts(tmp_path) == []
    assert_verified(tmp_path)


def test_one_job_at_a_time(tmp_path):
    """And not in the batch's own process, which no job may take along."""
    manifest = large_runs(tmp_path, 3, 1200)
    most = 0
    with started(manifest, "loky", "--jobs", "1") as run:
        while run.poll() is None:
            most = max(most, len(parts(tmp_path)))
            time.sleep(0.002)
        assert run.returncode == 0
    assert most == 1


THREADS = """
import os, sys
from ckgrow.registry import runtime
from ckgrow.batches.working import run_job
session = runtime("onnxruntime").Session
made = session.__init__
def counted(*given, **named):
    before = len(os.listdir("/proc/self/task"))
    made(*given, **named)
    print(len(os.listdir("/proc/self/task")) - before)
session.__init__ = counted
run_job(*sys.argv[1:])
"""


@pytest.mark.parametrize(("stated", "more"), [("1", {0}), ("3", {2}), ("many", None), ("3,1", {2})])
def test_networks_run_in_as_many_threads_as_is_stated(tmp_path, stated, more):
    """As the kernel counts them; workers are told to use one."""
    runs(tmp_path, 1)
    places = (tmp_path / "runs/r0/best.safetensors", tmp_path / "widen.yaml", tmp_path / "x.npz")
    done = python(THREADS, *places, env={**OWN, "OMP_NUM_THREADS": stated})
    counts = set(map(int, done.stdout.split()))
    assert counts, done.stderr
    assert counts == more or more is None


def told_to_workers(backend):
    from ckgrow.batches.pools import open_pool

    with open_pool(backend, 2, None, 2) as pool:
        return set(pool.run([(os.getenv, ("OMP_NUM_THREADS",), {})] * 4, 4))


@pytest.mark.parametrize("backend", ["loky", "threading", pytest.param("dask", marks=FULL)])
def test_workers_are_told_to_use_one_thread(backend, monkeypatch):
    need(backend)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    code = f"import test_batch_workers as t; print(t.told_to_workers({backend!r}))"
    alone = {name: value for name, value in OWN.items() if name != "OMP_NUM_THREADS"}
    done = python(f"if __name__ == '__main__':\n {code}", cwd=Path(__file__).parent, env=alone)
    assert done.stdout == "{'1'}\n", done.stderr


# Clusters that run already


@contextlib.contextmanager
def beside(*command, ready, said=os.devnull):
    """A process of a cluster, once ``ready`` says that it is there; ``said`` is what it prints."""
    env = {**OWN, "PYTHONUNBUFFERED": "1"}
    with open(said, "w") as out:
        run = subprocess.Popen(
            command, start_new_session=True, env=env, stdout=out, stderr=subprocess.DEVNULL
        )
    try:
        wait_for(ready)
        yield run
    finally:
        run.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            run.wait(10)
        for pid in group_of(run.pid):
            os.kill(pid, signal.SIGKILL)
        run.wait()


def test_a_dask_scheduler_that_runs_already(tmp_path):
    need("dask")
    manifest = runs(tmp_path, 4)
    file = tmp_path / "scheduler.json"
    dask = (sys.executable, "-m", "distributed.cli.dask_scheduler")
    quiet = ("--host", "127.0.0.1", "--port", "0", "--no-dashboard", "--no-show")
    worker = (sys.executable, "-m", "distributed.cli.dask_worker", "--scheduler-file", file)
    with beside(*dask, *quiet, "--scheduler-file", file, ready=file.exists):
        address = json.loads(file.read_text())["address"]
        assert address.startswith("tcp://127.0.0.1:")
        ready = (tmp_path / "worker-space").exists
        space = ("--local-directory", tmp_path / "worker-space", "--host", "127.0.0.1")
        with beside(*worker, "--nthreads", "1", "--no-dashboard", *space, ready=ready) as workers:
            done = process("batch", manifest, "--backend", "dask", "--address", address, env=OWN)
            assert done.returncode == 0, done.stderr
            assert workers.poll() is None  # it is somebody else's
    assert len(made(tmp_path)) == 4


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def test_a_ray_cluster_that_runs_already(tmp_path, monkeypatch):
    need("ray")
    manifest = runs(tmp_path, 4)
    monkeypatch.setitem(OWN, "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")  # loopback alone
    monkeypatch.setitem(OWN, "RAY_USAGE_STATS_ENABLED", "0")
    monkeypatch.setitem(OWN, "RAY_AUTH_MODE", "token")  # a token of this cluster alone
    monkeypatch.setitem(OWN, "HOME", str(tmp_path))
    ray, port = Path(sys.executable).with_name("ray"), free_port()
    token = [ray, "get-auth-token", "--generate"]
    subprocess.run(token, env=OWN, capture_output=True, check=True)
    quiet = ("--include-dashboard=false", "--disable-usage-stats", f"--port={port}")
    head = (ray, "start", "--head", "--block", "--num-cpus=2", "--node-ip-address=127.0.0.1")
    said = written(tmp_path / "said.txt", "")
    ready = lambda: "Ray runtime started" in said.read_text()  # noqa: E731
    with beside(*head, *quiet, ready=ready, said=said) as cluster:
        address = ("--address", f"127.0.0.1:{port}")
        done = process("batch", manifest, "--backend", "ray", *address, env=OWN)
        assert done.returncode == 0, done.stderr
        assert cluster.poll() is None  # it is somebody else's
    assert len(made(tmp_path)) == 4


def test_no_scheduler_there(tmp_path, monkeypatch):
    need("dask")
    monkeypatch.setattr("ckgrow.batches.dask_pool._PATIENCE", 1)
    manifest = runs(tmp_path, 1)
    done = ckgrow("batch", manifest, "--backend", "dask", "--address", "tcp://127.0.0.1:9")
    assert done.exit_code == 4
    assert "no Dask scheduler answers at tcp://127.0.0.1:9" in done.stderr


@pytest.mark.parametrize(("backend", "package"), [("dask", "distributed"), ("ray", "ray")])
def test_a_backend_that_is_not_installed(tmp_path, backend, package):
    manifest = runs(tmp_path, 1)
    code = (
        f"import sys\nsys.modules[{package!r}] = None\n"
        "from ckgrow.cli.main import app\napp(sys.argv[1:])"
    )
    command = [sys.executable, "-c", code, "batch", manifest, "--backend", backend]
    done = subprocess.run(command, capture_output=True, text=True, env=OWN, check=False)
    assert done.returncode == 2, done.stderr
    assert f"pip install 'ckgrow[{backend}]'" in done.stderr
