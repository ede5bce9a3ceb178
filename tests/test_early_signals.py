"""A signal that comes while the command is still being imported."""

from __future__ import annotations

import signal
import subprocess
import sys
import time

import pytest

SLOW = """
import os, signal, sys, time

class Slow:
    def find_spec(self, name, path=None, target=None):
        if name == "ckgrow.cli.main":
            print("importing", flush=True)
            time.sleep(60)

sys.meta_path.insert(0, Slow())
from ckgrow.cli.entry import run
sys.argv = ["ckgrow", "--help"]
run()
"""


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_ends_quietly(number, code):
    process = subprocess.Popen(
        [sys.executable, "-c", SLOW], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "importing\n"
    begun = time.monotonic()
    process.send_signal(number)
    _, errors = process.communicate(timeout=30)
    assert process.returncode == code
    assert errors == ""
    assert time.monotonic() - begun < 30
