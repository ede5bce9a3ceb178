"""Names of files: all of a student's or none, whatever fails, and nothing of another's is lost."""

from __future__ import annotations

import contextlib
import errno
import os

import pytest
from commands import ckgrow, listing, saved, tensors
from name_changes import (
    NEIGHBOURS,
    NEW,
    OLD,
    Killed,
    failing,
    furnish,
    killing,
    prepare,
    present,
    struck,
    visible,
)
from striking import STUDENTS, furnished, made

from ckgrow.errors import FileError
from ckgrow.files import RegularFile
from ckgrow.publishing import PartFile


@pytest.fixture(params=[True, False], ids=["links", "no links"])
def links(request, monkeypatch):
    """With hard links, and on a file system that has none."""
    if not request.param:

        def refusing(*names):
            raise OSError(errno.EPERM, os.strerror(errno.EPERM))

        monkeypatch.setattr(os, "link", refusing)
    return request.param


def publish(folder, number=0, deed=killing):
    """Publishes ``NEW``; returns the calls that it took from when the files were written."""
    with PartFile(folder / "main", force=True) as part:
        prepare(part)
        with struck(number, deed) as calls:
            part.publish()
            part.__exit__(None, None, None)
    return calls


def complaint(folder, number, deed):
    """What is said when it fails at the n-th call; nothing when it does not fail."""
    try:
        publish(folder, number, deed)
    except FileError as failure:
        return str(failure)
    return ""


def kill(folder, number):
    """Publishes, and is killed at the n-th call; no cleaning takes place."""
    part = PartFile(folder / "main", force=True).__enter__()
    prepare(part)
    with struck(number, killing), contextlib.suppress(Killed):
        part.publish()
        part.__exit__(None, None, None)
    close(part)


def close(part):
    """Gives the lock of a killed run back, as the end of its process does."""
    assert part._lock >= 0
    os.close(part._lock)


def recover(folder):
    """What the next run does first, and then it ends."""
    with PartFile(folder / "main", force=True):
        pass


def is_whole(files):
    """Whether a reader who finds a main file finds what belongs to it."""
    return "main" not in files or files == OLD or {**files, "b": b""} == {**NEW, "b": b""}


@pytest.mark.parametrize("old", [OLD, {}], ids=["old", "new"])
def test_all_get_their_names(tmp_path, links, old):
    furnish(tmp_path, old)
    publish(tmp_path)
    assert present(tmp_path) == NEW


@pytest.mark.parametrize("code", [errno.EIO, errno.EPERM, errno.ENOSPC])
def test_a_failure_at_any_call(tmp_path, links, code):
    """The old files are whole, or the new ones; nothing is left beside."""
    furnish(tmp_path, OLD)
    total, ends = len(publish(tmp_path)), set()
    for number in range(1, total + 1):
        furnish(tmp_path, OLD)
        said = complaint(tmp_path, number, failing(code, once=True))
        assert not said or "main cannot be written: " in said
        whole = OLD if said else NEW
        assert visible(tmp_path) == whole, number
        if not said:
            recover(tmp_path)
        assert present(tmp_path) == whole, number
        ends.add("old" if said else "new")
    assert ends == {"old", "new"}


def test_failures_that_stay(tmp_path, links):
    """What cannot be brought back now is brought back by the next run."""
    furnish(tmp_path, OLD)
    total, ends = len(publish(tmp_path)), set()
    for number in range(1, total + 1):
        furnish(tmp_path, OLD)
        said = complaint(tmp_path, number, failing(errno.EIO, once=False))
        waiting = "run again, which tries that first" in said
        if waiting:
            assert is_whole(visible(tmp_path)) or not links
        else:
            assert visible(tmp_path) == (OLD if said else NEW)
        recover(tmp_path)
        assert present(tmp_path) == (OLD if said else NEW), number
        ends.add("waiting" if waiting else "old" if said else "new")
    assert ends >= {"waiting", "new"}


@pytest.mark.parametrize("old", [OLD, {}], ids=["old", "new"])
def test_killed_at_any_call(tmp_path, links, old):
    """Who looks finds a whole checkpoint or none; the next run brings it back, or finishes."""
    furnish(tmp_path, old)
    ends = set()
    for number in range(1, len(publish(tmp_path)) + 1):
        furnish(tmp_path, old)
        kill(tmp_path, number)
        seen = visible(tmp_path)
        if links or seen.get("main"):  # where there are no links, the name comes before the content
            assert is_whole(seen)
        recover(tmp_path)
        assert present(tmp_path) in (old, NEW), number
        ends.add("new" if present(tmp_path) == NEW else "old")
    assert ends == {"old", "new"}


def test_killed_again_while_it_recovers(tmp_path, links, amount):
    furnish(tmp_path, OLD)
    total, tried = len(publish(tmp_path)), 0
    for number in range(2, total + 1, amount(7, 1)):
        for second in range(1, 100):
            furnish(tmp_path, OLD)
            kill(tmp_path, number)
            part = PartFile(tmp_path / "main", force=True)
            try:
                with struck(second, killing):
                    part.__enter__()
                    part.__exit__(None, None, None)
            except Killed:
                if part._lock >= 0:
                    close(part)
            else:
                break
            recover(tmp_path)
            assert present(tmp_path) in (OLD, NEW), (number, second)
            tried += 1
    assert tried > 50


@pytest.mark.parametrize("name", ["a", "b", "c"])
def test_a_folder_in_the_way(tmp_path, name):
    """It is seen before anything changes; one that is to go was not ckgrow's."""
    furnish(tmp_path, OLD)
    (tmp_path / name).unlink(missing_ok=True)
    (tmp_path / name).mkdir()
    with PartFile(tmp_path / "main", force=True) as part:
        if name == "b":
            prepare(part)
            part.publish()
        else:
            with pytest.raises(FileError, match=f"{name} is a directory; name a file to write"):
                part.companion(name)
    assert (tmp_path / name).is_dir()
    assert (tmp_path / "main").read_bytes() == (NEW if name == "b" else OLD)["main"]


@pytest.mark.parametrize("kind", ["file", "folder"])
@pytest.mark.parametrize("name", ["c", "a", "main"])
def test_a_name_that_something_takes_meanwhile(tmp_path, name, kind):
    """``c`` was free: all is as it was. The others were not: what took their names stays too."""
    furnish(tmp_path, OLD)
    real = os.link

    def linking(source, target):
        path = tmp_path / name
        if not path.exists():
            path.mkdir() if kind == "folder" else path.write_bytes(b"another's")
        real(source, target)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "link", linking)
        said = complaint(tmp_path, 0, killing)
    path = tmp_path / name
    assert path.is_dir() if kind == "folder" else path.read_bytes() == b"another's"
    if name == "c":
        assert said.endswith("c appeared by now; run again")
    else:
        assert f"{name} is in the way; move it elsewhere): it waits in hidden" in said
        with pytest.raises(FileError, match=f"{name} is (in the way; move it els|a directory)"):
            recover(tmp_path)
        path.rename(tmp_path / "elsewhere")
        recover(tmp_path)
        (tmp_path / "elsewhere").rename(tmp_path / "c")
    left = present(tmp_path) if kind == "file" else listing(tmp_path)
    del left["c"]
    assert {each: left[each] for each in OLD} == OLD
    assert set(left) <= {*OLD, *NEIGHBOURS}


def test_without_force_no_name_may_be_taken(tmp_path):
    furnish(tmp_path, {"a": b"old a"})
    with PartFile(tmp_path / "main", force=False) as part:
        with pytest.raises(FileError, match="a exists; add --force to replace it"):
            part.companion("a")
        with pytest.raises(FileError, match="a exists; add --force to replace it"):
            part.outdate("a")
        part.path.write_bytes(b"new main")
        part.companion("c").write_bytes(b"new c")
        (tmp_path / "c").write_bytes(b"another's")
        with pytest.raises(FileError, match="c exists; add --force to replace it"):
            part.publish()
    assert present(tmp_path) == {"a": b"old a", "c": b"another's"}


def test_a_name_taken_at_the_last_moment_without_force(tmp_path):
    furnish(tmp_path, {})
    real = os.link

    def linking(source, target):
        (tmp_path / "c").write_bytes(b"another's")
        real(source, target)

    with PartFile(tmp_path / "main", force=False) as part:
        part.path.write_bytes(b"new main")
        part.companion("c").write_bytes(b"new c")
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(os, "link", linking)
            with pytest.raises(FileError, match="c exists by now; add --force to replace it"):
                part.publish()
    assert present(tmp_path) == {"c": b"another's"}


def test_files_of_the_teacher_stay(tmp_path):
    furnish(tmp_path, OLD)
    teacher = [RegularFile(tmp_path / "other"), RegularFile(tmp_path / "a")]
    os.link(tmp_path / "other", tmp_path / "c")
    with PartFile(tmp_path / "main", force=True, keep=teacher) as part:
        for name, what in (("a", "part of the teacher"), ("c", "the teacher itself")):
            for wanted in (part.companion, part.outdate):
                with pytest.raises(FileError, match=f"{name} is {what}; write the student els"):
                    wanted(name)
    with pytest.raises(FileError, match="other is the teacher itself"):
        PartFile(tmp_path / "other", force=True, keep=teacher)
    for file in teacher:
        file.close()


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"[1]",
        b'"main"',
        b"[" * 100_000,
        b'{"taken": ["main"',
        b'{"../../x": true}',
        b'{"taken": [], "free": ["../x"]}',
        b'{"taken": [], "free": ["x/y"]}',
        b'{"taken": [], "free": [""]}',
        b'{"taken": [], "free": [".."]}',
        b'{"taken": [], "free": [7]}',
        b'{"taken": [], "free": "other"}',
        b'{"taken": [], "free": {"other": 1}}',
        b'{"free": ["other"]}',
        b"\xff",
    ],
)
def test_a_journal_that_is_none(tmp_path, text):
    """It stops nobody, and nothing is done as it says."""
    folder = tmp_path / "folder"
    folder.mkdir()
    (tmp_path / "x").write_bytes(b"x")
    furnish(folder, OLD)
    with PartFile(folder / "main", force=True) as part:
        hidden = part.companion("a").name.partition("~")[0]
    (folder / f"{hidden}.ckgrow-part").write_bytes(text)
    publish(folder)
    assert present(folder) == NEW
    assert (tmp_path / "x").read_bytes() == b"x"


def test_a_pipe_in_the_place_of_the_journal_does_not_hang(tmp_path):
    furnish(tmp_path, OLD)
    with PartFile(tmp_path / "main", force=True) as part:
        hidden = part.companion("a").name.partition("~")[0]
    os.mkfifo(tmp_path / f"{hidden}.ckgrow-part")
    publish(tmp_path)
    assert present(tmp_path) == NEW


def test_a_failing_removal_gives_the_lock_back(tmp_path):
    with PartFile(tmp_path / "main", force=True), pytest.MonkeyPatch.context() as patch:
        part = PartFile(tmp_path / "another", force=True)
        with part:
            patch.setattr(os, "unlink", failing_always)
    recover(tmp_path)
    with PartFile(tmp_path / "another", force=True):
        pass
    assert listing(tmp_path) == {}


def failing_always(*arguments, **settings):
    raise OSError(errno.EIO, os.strerror(errno.EIO))


def test_long_names(tmp_path):
    """As long as a name with its number of shards may be."""
    name = "n" * 200
    with PartFile(tmp_path / name, force=True) as part:
        part.path.write_bytes(b"main")
        part.companion(f"{name}.ckgrow.json").write_bytes(b"side")
        part.publish()
    assert set(listing(tmp_path)) == {name, f"{name}.ckgrow.json"}


# --- students as they really are -----------------------------------------------------------------


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("ckgrow.adapters.formats._onnx_writer.EMBEDDED", 0)
    return furnished(tmp_path)


@pytest.mark.parametrize("form", ["sharded", "npz", "torch", "onnx with data"])
def test_a_failure_between_names_of_students(folder, monkeypatch, amount, form):
    student = STUDENTS[form]
    saved(folder / "teacher.safetensors", tensors(seed=9))
    assert ckgrow(*student.command).exit_code == 0
    old = made(folder)
    assert len(old) > 1
    saved(folder / "teacher.safetensors", tensors())
    real, before, calls, ends = PartFile.publish, listing(folder), [], set()
    for number in range(1, 200, amount(3, 1)):

        def publishing(part, number=number):
            with struck(number, failing(errno.EIO, once=True)) as made:
                real(part)
                calls[:] = made

        for name, data in before.items():
            (folder / name).write_bytes(data)
        calls.clear()
        monkeypatch.setattr(PartFile, "publish", publishing)
        done = ckgrow(*student.command, "--force")
        ends.add(done.exit_code)
        if done.exit_code:
            assert done.exit_code == 4, done.output
            assert f"{student.main} cannot be written: Input/output error" in done.stderr
            assert listing(folder) == before
        else:
            assert set(listing(folder)) == set(before)
            assert made(folder) != old
            if len(calls) < number:
                break
    assert ends == {0, 4}
    assert len(calls) < number
