"""Files that are written through windows hold what was written, and leave the page cache alone."""

from __future__ import annotations

import itertools
import os
import threading

import numpy as np
import pytest
from ckgrow.adapters.formats import _write_behind
from ckgrow.adapters.formats._output_file import OutputFile

pytestmark = pytest.mark.skipif(
    not hasattr(os, "posix_fadvise"), reason="this system takes no advice"
)


@pytest.fixture
def advice(monkeypatch):
    """Windows of 100 bytes of which two are kept; the ranges that advice was given for."""
    given: list[tuple[int, int]] = []
    advise = os.posix_fadvise

    def noted(descriptor: int, offset: int, length: int, kind: int) -> None:
        assert kind == os.POSIX_FADV_DONTNEED
        given.append((offset, length))
        advise(descriptor, offset, length, kind)

    monkeypatch.setattr(_write_behind, "WINDOW_BYTES", 100)
    monkeypatch.setattr(_write_behind, "WINDOWS_KEPT", 2)
    monkeypatch.setattr(os, "posix_fadvise", noted)
    return given


def test_a_window_is_sent_when_it_is_complete_and_dropped_when_others_follow(tmp_path, advice):
    file = OutputFile(tmp_path / "file", 450)
    file.write(bytes(60), 0)
    file.write(bytes(30), 70)
    assert advice == []
    file.write(bytes(10), 60)
    assert advice == [(0, 100)]
    file.write(bytes(350), 100)  # three windows and a half
    assert advice == [(0, 100), (100, 100), (200, 100), (300, 100), (0, 100), (100, 100)]
    file.finish()


def test_what_is_written_in_any_order_is_there(tmp_path, advice):
    generator = np.random.default_rng(0)
    whole = generator.bytes(100_000)
    cuts = [0, *sorted(generator.integers(0, len(whole), 300).tolist()), len(whole)]
    pieces = list(itertools.pairwise(cuts))
    generator.shuffle(pieces)
    file = OutputFile(tmp_path / "file", len(whole))

    def write(part: int) -> None:
        for start, stop in pieces[part::3]:
            file.write(whole[start:stop], start)

    threads = [threading.Thread(target=write, args=(part,)) for part in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    file.finish()
    assert (tmp_path / "file").read_bytes() == whole
    assert sorted(set(advice)) == [(start, 100) for start in range(0, 100_000, 100)]
    assert len(advice) == 2 * 1000 - 2


def test_a_file_system_without_advice_is_written_to_all_the_same(tmp_path, monkeypatch):
    def refused(*_: object) -> None:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(_write_behind, "WINDOW_BYTES", 100)
    monkeypatch.setattr(os, "posix_fadvise", refused)
    file = OutputFile(tmp_path / "file", 300)
    file.write(b"x" * 300, 0)
    file.finish()
    assert (tmp_path / "file").read_bytes() == b"x" * 300
