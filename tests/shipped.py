"""The shipped teachers and the script that trains them, for the tests that need either."""

from __future__ import annotations

import functools
import importlib.util
from pathlib import Path
from types import ModuleType

SPECS = Path(__file__).parents[1] / "specs"
TEACHERS = SPECS / "teachers"


@functools.cache
def training() -> ModuleType:
    """``specs/teachers/train.py``, with the networks in plain torch."""
    found = importlib.util.spec_from_file_location("train", TEACHERS / "train.py")
    assert found is not None
    assert found.loader is not None
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    return module
