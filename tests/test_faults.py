"""Killed, interrupted, cut short: a student is whole or not there, and the next run is clean."""

from __future__ import annotations

import errno
import os
import random
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from commands import WIDEN, ckgrow, listing, process, python, saved, tensors, written

from ckgrow.publishing import PartFile

# Runs the command, and does something to its own process or machine at the n-th call of the
# functions by which a file comes into being. Without an n, prints how many calls there are.
LAUNCHER = """
import os, signal, sys, threading
from ckgrow.cli.main import run

CHANGING = ("ftruncate", "posix_fallocate", "pwrite", "fsync", "link", "replace", "unlink")
number, blow = int(sys.argv[1]), int(sys.argv[2])
calls, lock = 0, threading.Lock()

def counted(whole):
    def call(*args, **kwargs):
        global calls
        with lock:
            calls += 1
            struck = calls == number
        if struck:
            os.kill(os.getpid(), blow)
        return whole(*args, **kwargs)
    return call

for name in CHANGING:
    setattr(os, name, counted(getattr(os, name)))
sys.argv[:3] = ["ckgrow"]
try:
    run()
finally:
    if not number:
        print("calls:", calls)
"""

# Says that it is there, then runs the command.
READY = "import sys\nfrom ckgrow.cli.main import run\nprint('ready', flush=True)\nrun()\n"

FILES = {"teacher.safetensors", "spec.yaml", "student.safetensors"}
APPLY = ("apply", "teacher.safetensors", "spec.yaml", "-o", "student.safetensors")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    saved(tmp_path / "teacher.safetensors", tensors())
    written(tmp_path / "spec.yaml", WIDEN)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The bytes of the student that an undisturbed run makes."""
    place = tmp_path_factory.mktemp("whole")
    teacher = saved(place / "teacher.safetensors", tensors())
    spec = written(place / "spec.yaml", WIDEN)
    assert ckgrow("apply", teacher, spec, "-o", place / "student.safetensors").exit_code == 0
    return (place / "student.safetensors").read_bytes()


def launched(number, blow, *options):
    command = [sys.executable, "-c", LAUNCHER, str(number), str(int(blow)), *APPLY, *options]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


def chosen(amount, total):
    """Every call with --full, else some from the first to the last."""
    count = min(amount(5, total), total)
    return sorted({1 + round(step * (total - 1) / (count - 1)) for step in range(count)})


def calls(*options):
    done = launched(0, 0, *options)
    assert done.returncode == 0, done.stderr
    os.unlink("student.safetensors")
    return int(done.stdout.rpartition("calls:")[2])


def check_aftermath(folder, before, whole, *options):
    """Nothing but perhaps a part file and a whole student; the next run leaves just the latter."""
    after = listing(folder)
    student = after.pop("student.safetensors", None)
    assert student in (before.get("student.safetensors"), whole)
    part = after.pop(".student.safetensors.ckgrow-part", None)
    kept = {name: data for name, data in before.items() if name != "student.safetensors"}
    assert after == kept
    assert ckgrow(*APPLY, *options).exit_code == 0
    assert set(listing(folder)) == FILES
    assert (folder / "student.safetensors").read_bytes() == whole
    return part


@pytest.mark.parametrize("options", [(), ("--force",)], ids=["new", "force"])
def test_killed_at_every_step_of_writing(folder, whole, amount, options):
    total = calls(*options)
    assert total > 10
    for number in chosen(amount, total):
        if options:
            saved(folder / "student.safetensors", tensors(seed=9))
        before = listing(folder)
        done = launched(number, signal.SIGKILL, *options)
        assert done.returncode == -signal.SIGKILL
        check_aftermath(folder, before, whole, *options)
        (folder / "student.safetensors").unlink()


@pytest.mark.parametrize(
    ("blow", "code", "said"),
    [(signal.SIGTERM, 143, "terminated"), (signal.SIGINT, 130, "interrupted")],
)
def test_stopped_at_every_step_of_writing(folder, whole, amount, blow, code, said):
    total = calls()
    for number in chosen(amount, total):
        before = listing(folder)
        done = launched(number, blow)
        assert done.returncode == code, done.stderr
        assert done.stderr == f"error: {said}; no unfinished file was left behind\n"
        assert check_aftermath(folder, before, whole) is None
        (folder / "student.safetensors").unlink()


@pytest.mark.parametrize("blow", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_struck_at_a_random_moment(folder, whole, amount, blow):
    draw = random.Random(int(blow))
    ends = {  # before and after the command, a signal ends the process as it always does
        signal.SIGKILL: {-9},
        signal.SIGTERM: {143, -15},
        signal.SIGINT: {130, -2},
    }[blow]
    for _ in range(amount(3, 60)):
        before = listing(folder)
        command = [sys.executable, "-c", READY, *APPLY]
        with subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        ) as run:
            assert run.stdout.readline() == "ready\n"
            time.sleep(draw.uniform(0, 0.5))
            run.send_signal(blow)
            _, complaint = run.communicate(timeout=120)
        assert run.returncode in {0, *ends}, complaint
        assert "Traceback" not in complaint
        part = check_aftermath(folder, before, whole)
        assert part is None or blow == signal.SIGKILL
        (folder / "student.safetensors").unlink()


@pytest.mark.parametrize(("blow", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_more_signals_do_not_stop_the_cleaning(folder, blow, code):
    launcher = LAUNCHER.replace("calls == number", "calls >= number")
    command = [sys.executable, "-c", launcher, "3", str(int(blow)), *APPLY]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == code
    assert set(listing(folder)) == FILES - {"student.safetensors"}


DROPPING = """
class Dropping:
    def __del__(self):  # an exception in here goes nowhere
        os.kill(os.getpid(), blow)

"""


@pytest.mark.parametrize(("blow", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_signal_inside_a_destructor_is_not_lost(folder, blow, code):
    launcher = LAUNCHER.replace("os.kill(os.getpid(), blow)", "Dropping()")
    launcher = launcher.replace("def counted", DROPPING + "def counted")
    command = [sys.executable, "-c", launcher, "3", str(int(blow)), *APPLY]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == code
    assert "Traceback" not in done.stderr
    assert set(listing(folder)) == FILES - {"student.safetensors"}


LIMITED = """
import resource
from ckgrow.cli.main import run
resource.setrlimit(resource.RLIMIT_FSIZE, (200, 200))
run()
"""


def test_file_size_limit(folder):
    before = listing(folder)
    done = python(LIMITED, *APPLY, env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"})
    assert done.returncode == 4
    assert "the file is larger than the file system or the limit of the shell allows" in done.stderr
    assert listing(folder) == before


def failing(monkeypatch, name, number, code):
    """``os.name`` fails at its n-th call, as a full or broken disk makes it."""
    real, count = getattr(os, name), 0

    def call(*arguments, **settings):
        nonlocal count
        count += 1
        if count >= number:
            raise OSError(code, os.strerror(code))
        return real(*arguments, **settings)

    monkeypatch.setattr(os, name, call)


@pytest.mark.parametrize(
    ("name", "number", "code", "said"),
    [
        ("posix_fallocate", 1, errno.ENOSPC, "the disk is full; free space or write elsewhere"),
        ("pwrite", 1, errno.ENOSPC, "the disk is full"),
        ("pwrite", 3, errno.ENOSPC, "the disk is full"),
        ("pwrite", 6, errno.EDQUOT, "the disk quota is used up"),
        ("pwrite", 2, errno.EIO, "Input/output error"),
        ("fsync", 1, errno.EIO, "Input/output error"),
        ("link", 1, errno.EACCES, "Permission denied; choose another name or folder"),
        ("preadv", 3, errno.EIO, "teacher.safetensors cannot be read: Input/output error"),
    ],
)
def test_machine_that_fails(folder, monkeypatch, name, number, code, said):
    before = listing(folder)
    with monkeypatch.context() as broken:
        failing(broken, name, number, code)
        done = ckgrow(*APPLY)
    assert done.exit_code == 4, done.output
    assert said in done.stderr
    assert listing(folder) == before
    assert ckgrow(*APPLY).exit_code == 0


@pytest.mark.parametrize("code", [errno.EACCES, errno.EROFS])
def test_folder_that_cannot_be_written(folder, monkeypatch, code):
    real = os.open

    def refusing(path, flags, *rest, **settings):
        if flags & os.O_CREAT:
            raise OSError(code, os.strerror(code))
        return real(path, flags, *rest, **settings)

    with monkeypatch.context() as broken:
        broken.setattr(os, "open", refusing)
        done = ckgrow(*APPLY)
    assert done.exit_code == 4
    assert f"student.safetensors cannot be written: {os.strerror(code)}; choose" in done.stderr
    assert set(listing(folder)) == FILES - {"student.safetensors"}


@pytest.mark.skipif(os.geteuid() == 0, reason="permissions do not bind root")
def test_read_only_folder(folder):
    folder.chmod(0o500)
    try:
        done = ckgrow(*APPLY)
    finally:
        folder.chmod(0o700)
    assert done.exit_code == 4
    assert "Permission denied" in done.stderr


@pytest.mark.parametrize("taken", [False, True])
def test_file_system_without_hard_links(folder, monkeypatch, whole, taken):
    failing(monkeypatch, "link", 1, errno.EPERM)
    if taken:
        saved(folder / "student.safetensors", tensors(seed=9))
    before = listing(folder)
    done = ckgrow(*APPLY)
    assert done.exit_code == (4 if taken else 0), done.output
    assert listing(folder) == (before if taken else {**before, "student.safetensors": whole})


@pytest.mark.parametrize("links", [True, False])
def test_name_taken_while_writing(folder, monkeypatch, links):
    if not links:
        failing(monkeypatch, "link", 1, errno.EPERM)
    real = os.fsync

    def taking(descriptor):
        saved(folder / "student.safetensors", tensors(seed=9))
        return real(descriptor)

    monkeypatch.setattr(os, "fsync", taking)
    done = ckgrow(*APPLY)
    assert done.exit_code == 4
    assert "student.safetensors exists by now; add --force to replace it" in done.stderr
    assert set(listing(folder)) == FILES


# --- a teacher that does not keep still -----------------------------------------------------


def shortened(folder):
    os.truncate(folder / "teacher.safetensors", 100)


def replaced(folder):
    saved(folder / "other", tensors(seed=5))
    os.replace(folder / "other", folder / "teacher.safetensors")


def rewritten(folder):
    saved(folder / "teacher.safetensors", tensors(seed=5))


def removed(folder):
    (folder / "teacher.safetensors").unlink()


@pytest.mark.parametrize("number", [3, 7, 11])
@pytest.mark.parametrize("change", [shortened, replaced, rewritten, removed])
def test_teacher_that_changes_while_it_is_read(folder, monkeypatch, change, number):
    real, count = os.preadv, 0

    def reading(*arguments):
        nonlocal count
        count += 1
        if count == number:
            change(folder)
        return real(*arguments)

    monkeypatch.setattr(os, "preadv", reading)
    done = ckgrow(*APPLY)
    assert count >= number
    assert done.exit_code in (3, 4), done.output
    assert "teacher.safetensors" in done.stderr
    assert "run again when nothing writes to it" in done.stderr
    assert set(listing(folder)) <= FILES - {"student.safetensors"}


def test_teacher_replaced_between_apply_and_verify(folder):
    assert ckgrow(*APPLY).exit_code == 0
    rewritten(folder)
    assert ckgrow("verify", "teacher.safetensors", "student.safetensors").exit_code == 1


def test_student_cut_short(folder, whole):
    """A student that another program, or the network, cut short at any byte is refused."""
    for length in np.linspace(0, len(whole) - 1, 23, dtype=int):
        (folder / "student.safetensors").write_bytes(whole[:length])
        done = ckgrow("verify", "teacher.safetensors", "student.safetensors")
        assert done.exit_code == 3
        assert done.stderr.startswith("error: student.safetensors")
    done = process("inspect", "student.safetensors")
    assert done.returncode == 3


def test_a_run_killed_between_its_two_names_does_no_harm(folder):
    """Then part file and student are one file, and a new run takes another."""
    assert ckgrow(*APPLY).exit_code == 0
    student, part = folder / "student.safetensors", folder / ".student.safetensors.ckgrow-part"
    before = student.read_bytes()
    os.link(student, part)
    with PartFile(student, force=True) as taken:
        taken.path.write_bytes(b"what a failing run leaves")
    assert student.read_bytes() == before
    assert not part.exists()


def test_a_link_in_the_place_of_the_part_file_is_refused(folder):
    part = folder / ".student.safetensors.ckgrow-part"
    part.symlink_to(folder / "elsewhere")
    assert ckgrow(*APPLY).exit_code == 4
    assert not (folder / "elsewhere").exists()
    assert not (folder / "student.safetensors").exists()
