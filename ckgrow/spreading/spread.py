"""Hands out the parts of a student to workers, and takes their hashes back.

The pool lives in a thread of its own. Signals go to the main thread, which waits for results: it
can be interrupted without the pool being torn down around tasks that are at work.
"""

from __future__ import annotations

import os
import queue
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from ckgrow.batches.halting import Sign
from ckgrow.batches.pools import PATIENCE, Call, Pool, check_backend, open_pool, unimportable
from ckgrow.checkpoint import Shard
from ckgrow.errors import FileError, SpecError
from ckgrow.loading import Loaded
from ckgrow.planning import Plan
from ckgrow.spec import canonical
from ckgrow.spreading.tasks import KINDS, Grown, Part, Student, Teacher, grow_part, signs_of


@dataclass(frozen=True)
class Spread:
    """Where the parts of a student are made: by how many ``jobs`` at once, at which ``address``.

    Backends are those of a batch. Raises SpecError for one that there is not.
    """

    backend: str
    jobs: int | None = None
    address: str | None = None

    def __post_init__(self) -> None:
        check_backend(self.backend, self.jobs, self.address)

    def grow(
        self,
        plan: Plan,
        shards: Sequence[Shard],
        suffix: str,
        *,
        quiet: bool,
        advance: Callable[[int], None],
    ) -> dict[str, str]:
        """Makes the tensors of ``plan`` in the files ``shards``; their BLAKE3 hashes by name.

        The files are there, and remain in the format that ``suffix`` says. Nothing writes to them
        any more when this returns or raises.
        """
        if not shards:
            return {}
        weights = plan.teacher.reader.contents.weights
        teacher = Teacher(_place(plan.teacher), weights, signs_of(plan.teacher))
        folder = os.path.abspath(plan.spec.steps[0].folder)
        student = Student(canonical(plan.spec), folder, quiet)
        sizes = {name: spec.nbytes for shard in shards for name, spec in shard.header.items()}
        digests: dict[str, str] = {}

        def finished(grown: Mapping[str, str]) -> None:
            digests.update(grown)
            advance(sum(sizes[name] for name in grown))

        with Sign(shards[0].path) as sign:
            ends = (os.fspath(sign.path), os.getpid())
            parts = (_part(shard, suffix) for shard in shards)
            calls: list[Call] = [(grow_part, (teacher, student, part, *ends), {}) for part in parts]
            Crew(self, calls, sign).run(finished)
        if digests.keys() != sizes.keys():
            raise FileError("workers ended before all parts were made; run again")
        return digests


class Crew:
    """A pool at work in its thread, which tells what becomes of its tasks."""

    def __init__(self, spread: Spread, calls: Sequence[Call], sign: Sign) -> None:
        self._spread = spread
        self._calls = calls
        self._sign = sign
        self._told: queue.SimpleQueue[Grown | BaseException | None] = queue.SimpleQueue()
        self._pool: Pool | None = None
        self._thread = threading.Thread(target=self._work, name="spreading", daemon=True)

    def run(self, finished: Callable[[Mapping[str, str]], None]) -> None:
        """Runs all tasks; ``finished`` is told the hashes of each, in this thread.

        The first failure stops the others, and so does an exception in this thread, Ctrl-C for
        instance; then it is raised.
        """
        self._thread.start()
        try:
            while (told := self._told.get()) is not None:
                if isinstance(told, BaseException):
                    raise told
                finished(_hashes(told))
            self._thread.join()
        except BaseException:
            self._stop()
            raise

    def _stop(self) -> None:
        """Waits for tasks to stop; kills workers whose tasks do not."""
        self._sign.raise_()
        self._thread.join(PATIENCE)
        if self._thread.is_alive() and self._pool is not None:
            self._pool.kill()
            self._thread.join(PATIENCE)

    def _work(self) -> None:
        spread, calls = self._spread, len(self._calls)
        try:
            with open_pool(spread.backend, spread.jobs, spread.address, calls) as self._pool:
                self._run_all(self._pool)
        except BaseException as failure:  # noqa: BLE001 - it is raised in the main thread
            self._told.put(failure)
        finally:
            self._told.put(None)

    def _run_all(self, pool: Pool) -> None:
        try:
            for grown in pool.run(self._calls, pool.most):
                self._told.put(grown)
        except pool.deaths:
            raise FileError(
                "a worker died while it made a part of the student: it was killed, by a lack of "
                "memory perhaps, or crashed; run again, with fewer --jobs"
            ) from None
        except ImportError as missing:
            raise unimportable(missing) from None


def _hashes(grown: Grown) -> Mapping[str, str]:
    """What a task made; raises its error."""
    if grown.error and grown.kind is None:
        raise RuntimeError(grown.error)
    if grown.error:
        raise KINDS[grown.kind or 0](grown.error)
    return grown.digests or {}


def _place(teacher: Loaded) -> str:
    """Where workers find the teacher: a URL as it was given, with what is not shown of it."""
    if teacher.path is not None:
        return os.path.abspath(teacher.path)
    if teacher.place is not None:
        return str(teacher.place)
    raise SpecError(
        f"{teacher.label} are nowhere that workers could read them; save them to a file, or make "
        "the student without a backend"
    )


def _part(shard: Shard, suffix: str) -> Part:
    path = os.path.abspath(shard.path)
    return Part(path, suffix, tuple(shard.header), dict(shard.metadata))
