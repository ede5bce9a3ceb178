"""What a batch does when workers die, in a pool that stages it."""

from __future__ import annotations

import dataclasses
from contextlib import nullcontext
from pathlib import Path

from ckgrow.batches.halting import Sign
from ckgrow.batches.jobs import Job
from ckgrow.batches.records import DONE, FAILED, Record
from ckgrow.batches.running import Crew


class DeadError(Exception):
    """A worker died."""


class Staged:
    """A pool in this thread; a job whose teacher is called so kills its worker, or fails."""

    deaths = (DeadError,)

    def __init__(self, most):
        self.most = most
        self.asked = []

    def run(self, calls, most):
        calls = iter(calls)
        out = [call for _, call in zip(range(most), calls, strict=False)]
        while out:
            function, places, _ = out.pop(0)
            if not places:
                yield function()
                continue
            name = Path(places[0]).name
            self.asked.append(name)
            if name.startswith("deadly"):
                raise DeadError
            status = FAILED if name.startswith("failing") else DONE
            Path(places[2]).touch()
            yield dataclasses.asdict(Record(*places, status, 0.0))
            out += [call for _, call in zip(range(1), calls, strict=False)]

    def kill(self):
        """Nothing to end."""


def run(tmp_path, names, *, most=4, fail_fast=True):
    jobs = [Job("here", str(tmp_path), name, "spec", f"{name}.npz") for name in names]
    for job in jobs:  # which dead workers left behind
        (tmp_path / f".{job.output}.ckgrow-part").touch()
    pool, told = Staged(most), []
    with Sign(tmp_path / "results") as sign:
        Crew(lambda: nullcontext(pool), jobs, sign, force=False, fail_fast=fail_fast).run(
            told.append
        )
    return pool.asked, [(record.teacher, record.status) for record in told]


def test_those_beside_a_dead_worker_run_alone(tmp_path):
    names = ["a", "deadly", "b", "c", "d", "e"]
    asked, told = run(tmp_path, names, fail_fast=False)
    assert asked == ["a", "deadly", "deadly", "b", "c", "d", "e"]
    assert dict(told) == {"deadly": FAILED, **dict.fromkeys("abcde", DONE)}


def test_fail_fast_holds_for_those_beside_a_dead_worker(tmp_path):
    asked, told = run(tmp_path, ["a", "deadly", "b", "c", "d", "e"])
    assert asked == ["a", "deadly", "deadly"]
    assert told == [("a", DONE), ("deadly", FAILED)]
    left = {path.name for path in tmp_path.iterdir() if "b.npz" in path.name}
    assert left == set()  # the part file of one that was under way is gone


def test_fail_fast_begins_none_once_one_failed(tmp_path):
    asked, told = run(tmp_path, ["a", "failing", "b", "c"], most=1)
    assert asked == ["a", "failing"]
    assert told[-1] == ("failing", FAILED)


def test_fail_fast_holds_where_a_worker_dies_after_a_failure(tmp_path):
    asked, told = run(tmp_path, ["failing", "deadly", "b", "c"])
    assert asked == ["failing", "deadly"]
    assert told == [("failing", FAILED)]
