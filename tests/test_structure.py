"""The house: who may import whom, how large a file is, what is found by itself, what stays out."""

from __future__ import annotations

import ast
import os
import pkgutil
import tomllib
from collections.abc import Iterator
from graphlib import TopologicalSorter
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace

import pytest
from commands import WIDEN, process, python, saved, tensors, written
from shipped import SPECS, TEACHERS

import ckgrow
from ckgrow import methods, ops, registry
from ckgrow.reports.listing import list_adapters

ROOT = Path(__file__).parents[1]
CORE = ROOT / "ckgrow"
EDGE = ROOT / "adapters"
LONGEST = 300

# The core, from the ground up. A room imports from lower floors, not from its own nor from higher
# ones. A folder is one room; a contract that others on the way up need is a room of its own.
FLOORS = (
    {"axes", "cancelling", "errors", "exchanging", "labels", "maps", "random", "reasons"},
    {"version", "watching"},
    {"graph", "header", "names", "naming", "places"},
    {"architecture", "checkpoint", "ops", "pairs", "shares", "spec", "tiles"},
    {"building", "memory", "recipes", "shapes", "store"},
    {"measuring", "registry"},
    {"coupling", "execute", "files", "recognition"},
    {"groups", "publishing", "uploading", "verdict"},
    {"drafts"},
    {"growth"},
    {"methods", "provenance"},
    {"loading"},
    {"fitting", "learning", "notes", "pairing", "planning", "proof"},
    {"localisation"},
    {"outputs", "reports"},
    {"making", "verifying"},
    {"recording"},
    {"applying", "converting"},
    {"exporting"},
    {"public"},
    {"batches"},
    {"spreading"},
    {"cli"},
)


LATE = {"fitting", "learning", "localisation", "memory", "ops"}
"""Rooms that import torch, but not before somebody asks for what they do."""


def sources(folder: Path) -> Iterator[Path]:
    return (path for path in folder.rglob("*.py") if "__pycache__" not in path.parts)


def module_name(path: Path) -> str:
    parts = path.relative_to(CORE).with_suffix("").parts
    return ".".join(("ckgrow", *parts)).removesuffix(".__init__")


def imports(path: Path) -> Iterator[str]:
    """Absolute names that a file imports when it runs, not merely for the type checker."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for_types = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        for inner in ast.walk(node)
    }
    for node in ast.walk(tree):
        if id(node) in for_types:
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def within_core(path: Path) -> set[str]:
    known = {module_name(each) for each in sources(CORE)}
    found = set()
    for name in imports(path):
        while name and name not in known:  # from the name in a module to the module
            name = name.rpartition(".")[0]
        found |= {name} - {"", "ckgrow"}
    return found


def room(module: str) -> str:
    inside = module.removeprefix("ckgrow.")
    return inside.partition(".")[0]


def test_every_room_has_its_floor():
    rooms = {room(module_name(path)) for path in sources(CORE)} - {"ckgrow"}
    assert rooms == set().union(*FLOORS), "a new room of the core finds its place in FLOORS"
    assert len(rooms) == sum(map(len, FLOORS))


def test_rooms_import_from_lower_floors_only():
    floor = {name: number for number, names in enumerate(FLOORS) for name in names}
    upwards = [
        f"{module_name(path)} imports {other}"
        for path in sources(CORE)
        if path != CORE / "__init__.py"  # the front door opens to the upper floors, when asked
        for other in within_core(path)
        if room(other) != room(module_name(path))
        and floor[room(other)] >= floor[room(module_name(path))]
    ]
    assert upwards == []


def test_no_circle_inside_a_room():
    graph = {module_name(path): within_core(path) for path in sources(CORE)}
    assert list(TopologicalSorter(graph).static_order())  # CycleError names a circle


def test_core_names_no_adapter():
    for path in sources(CORE):
        named = [name for name in imports(path) if name.startswith("ckgrow.adapters")]
        assert named == [], path
        says = '"ckgrow.adapters"' in path.read_text(encoding="utf-8")
        assert says == (path.name == "registry.py"), f"{path}: only the registry knows the place"


def test_adapters_use_what_the_core_offers():
    """Absolute imports of public names; each other by relative imports, inside one kind."""
    for path in sources(EDGE):
        for name in imports(path):
            assert not name.startswith(("ckgrow.adapters", "adapters")), (path, name)
            if name.startswith("ckgrow."):
                assert not any(part.startswith("_") for part in name.split(".")), (path, name)
        tree = ast.parse(path.read_text(encoding="utf-8"))
        relative = [each for each in ast.walk(tree) if isinstance(each, ast.ImportFrom)]
        assert all(each.level <= 1 for each in relative), path


HEAVY = {"torch", "onnx", "onnxruntime", "torchvision", "timm"}


def test_heavy_packages_stay_at_the_edge():
    """What computes in torch, or works on its modules, does so when called, not before."""
    for path in sources(CORE):
        heavy = {name.partition(".")[0] for name in imports(path)} & HEAVY
        assert heavy <= {"torch"}, path
        if heavy:
            assert room(module_name(path)) in LATE, path


@pytest.mark.parametrize("folder", [CORE, EDGE], ids=["core", "adapters"])
def test_files_are_small(folder):
    long = {
        str(path): lines
        for path in sources(folder)
        if (lines := len(path.read_text(encoding="utf-8").splitlines())) > LONGEST
    }
    assert long == {}


def test_public_names_are_these():
    commands = {"apply", "batch", "convert", "export", "inspect", "load_into", "plan", "verify"}
    assert set(ckgrow.__all__) == {"Spread", "__version__", *commands}
    assert all(hasattr(ckgrow, name) for name in ckgrow.__all__)
    with pytest.raises(AttributeError, match="no attribute 'grow'"):
        _ = ckgrow.grow


def public_modules(package: Path) -> set[str]:
    names = {module.name for module in pkgutil.iter_modules([str(package)])}
    return {name for name in names if not name.startswith("_")}


def test_every_op_file_is_found():
    homes = {rule.shapes.__func__.__module__ for rule in ops.rules().values()}
    homes |= {type(rule).__module__ for rule in ops.rules().values()}
    assert public_modules(CORE / "ops") - {"rule", "tracing"} <= {
        home.rpartition(".")[2] for home in homes
    }


def test_every_method_file_is_found():
    homes = {type(method).__module__.rpartition(".")[2] for method in methods.methods()}
    assert homes == public_modules(CORE / "methods") - {"method"}


@pytest.mark.parametrize("kind", ["architectures", "formats"])
def test_every_adapter_file_is_found(kind):
    found = getattr(registry, kind)().values()
    homes = {type(adapter).__module__.rpartition(".")[2] for adapter in found}
    assert public_modules(EDGE / kind) <= homes


def test_what_is_found_is_listed():
    document = list_adapters()
    assert {each.name for each in document.architectures} == set(registry.architectures())
    assert {each.name for each in document.formats} == set(registry.formats())
    assert {each.name for each in document.methods} == {each.name for each in methods.methods()}
    assert all(each.summary for each in document.methods)


class PlugIn:
    """An entry point, and what it loads."""

    def __init__(self, name, adapter):
        self.name = self.value = name
        self.adapter = adapter

    def load(self):
        if isinstance(self.adapter, Exception):
            raise self.adapter
        return self.adapter


def plugged(monkeypatch, *points):
    registry.architectures()  # cached before anything is plugged in, whichever test comes first
    monkeypatch.setattr(registry, "entry_points", lambda *, group: points)
    return registry.architectures.__wrapped__()


def test_plug_in_is_found(monkeypatch):
    assert registry.entry_points is metadata.entry_points
    adapter = SimpleNamespace(name="transformer")
    assert plugged(monkeypatch, PlugIn("mine", adapter))["transformer"] is adapter


def test_plug_in_does_not_take_the_place_of_a_built_in_adapter(monkeypatch):
    found = plugged(monkeypatch, PlugIn("mine", SimpleNamespace(name="mlp")))
    assert found["mlp"] is registry.architectures()["mlp"]


@pytest.mark.parametrize("fault", [ImportError("no such file"), ZeroDivisionError("oops")])
def test_broken_plug_in_is_a_warning(monkeypatch, fault):
    with pytest.warns(RuntimeWarning, match=rf"plug-in 'mine' .* was skipped: {fault}"):
        found = plugged(monkeypatch, PlugIn("mine", fault))
    assert set(found) == set(registry.architectures())


def test_broken_plug_in_on_the_command_line(tmp_path):
    """Really installed, as far as Python can tell: one line, and the command goes on."""
    place = tmp_path / "broken-1.0.dist-info"
    place.mkdir()
    written(place / "METADATA", "Metadata-Version: 2.1\nName: broken\nVersion: 1.0\n")
    written(place / "entry_points.txt", "[ckgrow.architectures]\nmine = no_such_module:ADAPTER\n")
    done = process("adapters", env={**os.environ, "PYTHONPATH": str(tmp_path)})
    assert done.returncode == 0
    assert "architecture mlp" in done.stdout
    assert done.stderr == (
        "warning: plug-in 'mine' (no_such_module:ADAPTER) was skipped: "
        "No module named 'no_such_module'\n"
    )


def test_adapter_without_a_name_is_a_warning(monkeypatch):
    with pytest.warns(RuntimeWarning, match="plug-in 'mine' .* was skipped"):
        plugged(monkeypatch, PlugIn("mine", object()))


def loaded_by(code, *arguments):
    """Which of the packages that take time a piece of Python imports."""
    done = python(f"{code}\nimport sys; print(' '.join(sys.modules))", *arguments)
    assert done.returncode == 0, done.stderr
    return set(done.stdout.splitlines()[-1].split()) & {*HEAVY, "numpy", "pydantic", "ruamel"}


CALL = (
    "import sys\nfrom ckgrow.cli.main import app\n"
    "try: app(sys.argv[1:])\nexcept SystemExit as end: assert not end.code\n"
)


def test_importing_ckgrow_imports_next_to_nothing():
    assert loaded_by("import ckgrow") == set()


def test_help_imports_next_to_nothing():
    assert loaded_by(CALL, "apply", "--help") <= {"pydantic"}  # which Typer itself may use


def test_plan_and_inspect_import_no_runtime():
    teacher = TEACHERS / "resnet.safetensors"
    assert not loaded_by(CALL, "plan", teacher, SPECS / "widen_resnet.yaml") & HEAVY
    assert not loaded_by(CALL, "inspect", teacher) & HEAVY


def test_apply_imports_no_torch(tmp_path):
    teacher = saved(tmp_path / "teacher.safetensors", tensors())
    spec = written(tmp_path / "spec.yaml", WIDEN)
    student = tmp_path / "student.safetensors"
    assert "torch" not in loaded_by(CALL, "apply", teacher, spec, "-o", student)
    assert student.exists()
    again = (CALL, "apply", teacher, spec, "-o", tmp_path / "other.safetensors", "--no-verify")
    assert not loaded_by(*again) & HEAVY


def test_every_package_is_installed():
    """An editable installation finds what a wheel would leave out."""
    listed = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    found = {
        ".".join((name, *path.parent.relative_to(folder).parts))
        for name, folder in (("ckgrow", CORE), ("ckgrow.adapters", EDGE))
        for path in folder.rglob("__init__.py")
    }
    assert set(listed) == found
