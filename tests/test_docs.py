"""Every example of README.md, CONTRIBUTING.md and docs/ works, and every table is complete.

A page is worked through as a reader would: in a fresh copy of the repository, a block that begins
with ``# path/of/file`` is saved there, a ``console`` block is typed line by line, and what it shows
must appear. ``...`` stands for any text within a line, and for any lines on a line of its own.
"""

from __future__ import annotations

import dataclasses
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import typer.main

from ckgrow import batches, errors, localisation, proof, registry, spec
from ckgrow.architecture import Option
from ckgrow.cli import main, shared
from ckgrow.learning import report as learning
from ckgrow.reports import documents
from ckgrow.reports.listing import (
    AdaptersDocument,
    ArchitectureRow,
    FormatRow,
    MethodRow,
)
from ckgrow.verdict import comparison, expectation, training

ROOT = Path(__file__).parents[1]
PAGES = sorted([ROOT / "README.md", ROOT / "CONTRIBUTING.md", *ROOT.glob("docs/*.md")])
# worked through by test_spec.py, test_load_into.py and test_pipelines.py
ELSEWHERE = {"spec.md", "load_into.md", "pipelines.md"}
WORKED_THROUGH = [page for page in PAGES if page.name not in ELSEWHERE]
NOT_TYPED = {"pip install ."}

BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
FILE = re.compile(r"# ([\w./-]+\.(?:py|yaml|toml))\n")


def blocks(page):
    return [(found[1], found[2]) for found in BLOCK.finditer(page.read_text())]


@pytest.fixture
def clone(tmp_path):
    """A copy of what a reader has, with nothing in it that could be spoiled."""
    for folder in ("ckgrow", "adapters", "specs"):
        shutil.copytree(ROOT / folder, tmp_path / folder)
    (tmp_path / "ckgrow" / "adapters").symlink_to("../adapters")
    (tmp_path / "tests").mkdir()
    for name in (
        "pyproject.toml",
        "tests/conftest.py",
        "tests/fault_table.py",
        "tests/student_oracles.py",
        "tests/proof_oracles.py",
        "tests/written_files.py",
    ):
        shutil.copy(ROOT / name, tmp_path / name)
    return tmp_path


def run(command, folder, text=None):
    kept = {key: value for key, value in os.environ.items() if not key.startswith("PYTEST_")}
    tools = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = {**kept, "PATH": tools, "PYTHONPATH": str(folder), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        ["bash", "-c", command],
        cwd=folder,
        env=environment,
        input=text,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}"
    return done.stdout


def typed(text):
    """Commands of a console block, each with the lines that it is shown to print."""
    commands = []
    for line in text.replace("\\\n", " ").splitlines():
        if line.startswith("$ "):
            commands.append((line[2:], []))
        elif line.strip():
            commands[-1][1].append(line)
    return commands


def assert_printed(expected, printed, command):
    lines = [" ".join(line.split()) for line in printed.splitlines()]
    position, skipping = 0, False
    for line in expected:
        if line.strip() == "...":
            skipping = True
            continue
        pattern = re.escape(" ".join(line.split())).replace(r"\.\.\.", ".*")
        while skipping and position < len(lines) and not re.fullmatch(pattern, lines[position]):
            position += 1
        shown = lines[position] if position < len(lines) else "the end"
        assert re.fullmatch(pattern, shown), f"{command}\nshown:   {line}\nprinted: {shown}"
        position, skipping = position + 1, False


@pytest.mark.parametrize("page", WORKED_THROUGH, ids=lambda page: page.name)
def test_the_examples_of_a_page_work(page, clone):
    for language, text in blocks(page):
        file = FILE.match(text)
        if file:
            path = clone / file[1]
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
            if file[1].endswith(".py"):  # an example is written like everything else here
                run(f"ruff check -q {file[1]} && ruff format -q --check {file[1]}", clone)
        elif language == "python":
            run("python -", clone, text)
        elif language == "yaml":
            assert spec.parse_text(text).steps
        elif language == "console":
            for command, expected in typed(text):
                if command not in NOT_TYPED:
                    assert_printed(expected, run(command, clone), command)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text()):
        assert (page.parent / target).exists(), target


def test_a_plug_in_of_another_package_is_found(tmp_path, monkeypatch):
    page = ROOT / "docs" / "adding-an-architecture.md"
    (adapter,) = (text for _, text in blocks(page) if "ADAPTER =" in text)
    (project,) = (tomllib.loads(text) for language, text in blocks(page) if language == "toml")
    (group,) = project["project"]["entry-points"].items()
    ((name, target),) = group[1].items()
    module = target.partition(":")[0]
    (tmp_path / f"{module}.py").write_text(adapter)
    folder = tmp_path / f"{project['project']['name']}-1.0.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: two-tower\nVersion: 1.0\n")
    (folder / "entry_points.txt").write_text(f"[{group[0]}]\n{name} = {target}\n")
    known = set(registry.architectures())  # asked, and kept, before there is a plug-in
    monkeypatch.syspath_prepend(tmp_path)
    assert set(registry.architectures.__wrapped__()) - known == {"two-tower"}
    del sys.modules[module]


def tables(page):
    """By heading, the first column of the table under it."""
    found, heading = {}, ""
    for line in (ROOT / "docs" / page).read_text().splitlines():
        if line.startswith("#"):
            heading = line.strip("# `")
        elif row := re.match(r"\| `([^`]+)` \|", line):
            found.setdefault(heading, []).append(row[1])
    return found


def test_every_option_of_every_command_is_on_the_page():
    page = tables("commands.md")
    for name, command in typer.main.get_command(main.app).commands.items():
        options = {each.opts[-1] for each in command.params if each.opts[-1].startswith("-")}
        stated = {option.split()[-1] for option in page.get(f"ckgrow {name}", [])}
        assert stated == options - {"--help"}, name


def test_every_exit_code_is_on_the_page():
    known = [each.exit_code for each in vars(errors).values() if hasattr(each, "exit_code")]
    known += [0, 1, shared.INTERRUPTED, shared.INTERNAL]
    assert tables("commands.md")["Exit codes"] == [str(code) for code in sorted(set(known))]


DOCUMENTS = {
    "ckgrow.apply/1": documents.ApplyDocument,
    "ckgrow.convert/1": documents.ConvertDocument,
    "ckgrow.export/1": documents.ExportDocument,
    "ckgrow.batch/1": batches.BatchDocument,
    "ckgrow.verify/1": documents.VerifyDocument,
    "ckgrow.plan/1": documents.PlanDocument,
    "ckgrow.inspect/1": documents.InspectDocument,
    "ckgrow.adapters/1": AdaptersDocument,
    "A batch record": batches.Record,
    "An output": comparison.OutputVerdict,
    "An expectation": expectation.Expectation,
    "A localisation": localisation.Localisation,
    "A source of failure": localisation.Source,
    "A certificate": proof.Proof,
    "A finding": proof.Finding,
    "A proven group": proof.GroupCheck,
    "A proven tensor": proof.Check,
    "A comparison in training mode": training.TrainMode,
    "An output in training mode": training.TrainModeOutput,
    "Learning": learning.Learning,
    "A learning tensor": learning.TensorLearning,
    "A learning group": learning.GroupLearning,
    "A finding on learning": learning.Finding,
    "Losses": learning.Losses,
    "A step": documents.StepReport,
    "A tensor": documents.TensorRow,
    "A group": documents.GroupRow,
    "A layer": documents.LayerRow,
    "An amount": documents.Amount,
    "An assumption": documents.Assumption,
    "An architecture": ArchitectureRow,
    "An option": Option,
    "A format": FormatRow,
    "A method": MethodRow,
}


@pytest.mark.parametrize("heading", DOCUMENTS)
def test_every_field_of_a_document_is_on_the_page(heading):
    fields = [field.name for field in dataclasses.fields(DOCUMENTS[heading])]
    stated = tables("commands.md")[heading]
    assert sorted(stated) == sorted(fields)


def test_every_option_of_every_architecture_is_on_the_page():
    page = tables("architectures.md")
    for name, adapter in registry.architectures().items():
        assert page[name] == [option.name for option in adapter.options]
