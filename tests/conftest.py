"""What every test runs under: one thread per worker, repeatable examples, torchvision importable.

``--full`` runs the long form: tests marked ``full``, and larger samples (fixture ``amount``). Torch
is imported by the tests that need it, never here.
"""

from __future__ import annotations

import importlib.util
import os
import sys
import tempfile
from collections.abc import Callable, Iterable, Sequence
from importlib.abc import MetaPathFinder
from pathlib import Path
from typing import Any

import fault_table
import hypothesis
import pytest

if "PYTEST_XDIST_WORKER" in os.environ:  # the workers already use all cores
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # read by torch when it is imported

# Derandomized: a test that passed yesterday fails today only if something was changed.
hypothesis.settings.register_profile("sampled", derandomize=True, deadline=None, max_examples=50)
hypothesis.settings.register_profile("full", derandomize=True, deadline=None, max_examples=1000)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--full", action="store_true", help="the long form of every sampled test")


def pytest_configure(config: pytest.Config) -> None:
    hypothesis.settings.load_profile("full" if config.getoption("--full") else "sampled")
    if _collects_faults(config):
        fault_table.begin(Path(tempfile.gettempdir(), f"ckgrow-fault-rows-{os.getpid()}"))


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    if report.when == "call" and "PYTEST_XDIST_WORKER" not in os.environ:
        fault_table.note(report.nodeid, report.outcome)


def pytest_sessionfinish(session: pytest.Session) -> None:
    if _collects_faults(session.config):
        fault_table.finish()


def _collects_faults(config: pytest.Config) -> bool:
    """In a full run of all tests, once: workers add to what the process that started them has."""
    chosen = config.args_source is config.ArgsSource.ARGS or config.getoption("keyword")
    started = "PYTEST_XDIST_WORKER" not in os.environ
    return bool(config.getoption("--full")) and started and not chosen


def pytest_collection_modifyitems(config: pytest.Config, items: Iterable[pytest.Item]) -> None:
    if config.getoption("--full"):
        return
    for item in items:
        if item.get_closest_marker("full"):
            item.add_marker(pytest.mark.skip(reason="needs --full (make test-full)"))


@pytest.fixture(scope="session")
def amount(pytestconfig: pytest.Config) -> Callable[[int, int], int]:
    """``amount(sample, full)``: how many cases a loop inside a test goes through."""
    return lambda sample, full: full if pytestconfig.getoption("--full") else sample


_libraries: list[Any] = []  # declared operators vanish with their library object


class _MissingOperators(MetaPathFinder):
    """Declares torchvision's compiled operators where its library does not load into this torch.

    Importing torchvision fails without them. The tests use its models, which call none of them.
    Nothing happens before torchvision is imported, which is then found by the usual finders.
    """

    def find_spec(self, fullname: str, path: Sequence[str] | None, target: object = None) -> None:
        if fullname != "torchvision":
            return
        sys.meta_path.remove(self)
        package = importlib.util.find_spec(fullname)
        if package is not None and not _loads(package.submodule_search_locations or ()):
            _libraries.append(_declared())


def _loads(folders: Iterable[str]) -> bool:
    """Whether the compiled library of torchvision fits the installed torch."""
    import torch

    libraries = [path for folder in folders for path in Path(folder).glob("_C.*")]
    try:
        for library in libraries:
            torch.ops.load_library(library)
    except OSError:
        return False
    return bool(libraries)


def _declared() -> Any:
    import torch

    library = torch.library.Library("torchvision", "DEF")
    library.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    library.define("qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    return library


sys.meta_path.insert(0, _MissingOperators())
