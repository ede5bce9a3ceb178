"""What the system says of a file that cannot be read or written, and what ckgrow adds."""

from __future__ import annotations

import errno
import os

import pytest

from ckgrow.cli.shared import told
from ckgrow.reasons import unreadable, unwritable


def failure(code, *names):
    return OSError(code, os.strerror(code), *names)


@pytest.mark.parametrize(
    ("code", "reading", "writing"),
    [
        (errno.ENOENT, "no such file; check the path", "its folder does not exist; make it first"),
        (errno.EACCES, "permission denied; check", "permission denied; check"),
        (errno.ENOSPC, "No space left on device", "the disk is full; free space"),
        (errno.EIO, "Input/output error", "Input/output error; choose another name or folder"),
        (errno.ENAMETOOLONG, "File name too long", "File name too long; choose another name"),
    ],
)
def test_reasons(code, reading, writing):
    assert unreadable(failure(code)).startswith(reading)
    assert unwritable(failure(code)).startswith(writing)


def test_what_never_reached_the_system():
    with pytest.raises(ValueError, match="null") as caught:
        os.stat("a\0b")
    assert unreadable(caught.value) == "embedded null byte"
    assert unreadable(OSError("said by a library")) == "said by a library"


def test_an_error_of_unknown_origin_names_its_file():
    assert told(failure(errno.EIO, "some/file")) == "some/file: Input/output error"
    assert told(failure(errno.EIO, b"bytes\x1b")) == "'bytes\\x1b': Input/output error"
    assert told(failure(errno.ENOSPC)) == "No space left on device"
