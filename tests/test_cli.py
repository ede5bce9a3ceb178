"""The commands: what they print, with what they exit, what they leave on disk."""

from __future__ import annotations

import fcntl
import json
import os
import stat
import subprocess
import sys

import ml_dtypes
import numpy as np
import pytest
from commands import (
    CKGROW,
    NOISY,
    WIDEN,
    ckgrow,
    document,
    listing,
    process,
    python,
    saved,
    tensors,
    written,
)
from safetensors import safe_open
from safetensors.numpy import load_file, save_file
from shipped import SPECS, TEACHERS

from ckgrow.version import VERSION

COMMANDS = ("apply", "verify", "plan", "inspect", "init", "schema", "adapters")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder with a teacher and a spec, and the process in it."""
    saved(tmp_path / "teacher.safetensors", tensors())
    written(tmp_path / "spec.yaml", WIDEN)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def grown(spec="spec.yaml", output="student.safetensors", *options):
    return ckgrow("apply", "teacher.safetensors", spec, "-o", output, *options)


def test_version():
    done = ckgrow("--version")
    assert (done.exit_code, done.stdout) == (0, f"ckgrow {VERSION}\n")


@pytest.mark.parametrize("command", COMMANDS)
def test_help_has_an_example(command):
    done = ckgrow(command, "--help")
    assert done.exit_code == 0
    assert f"Example: ckgrow {command}" in done.stdout


def test_help_lists_every_command():
    shown = ckgrow("--help").stdout
    assert all(command in shown for command in COMMANDS)
    assert "--install-completion" in shown


def test_shell_completion():
    names = {**os.environ, "_CKGROW_COMPLETE": "complete_bash", "COMP_WORDS": "ckgrow a"}
    done = process(env={**names, "COMP_CWORD": "1"})
    assert (done.returncode, done.stdout.split()) == (0, ["apply", "adapters"])


def test_installed_command_end_to_end(folder):
    done = process("apply", "teacher.safetensors", "spec.yaml", "-o", "student.safetensors")
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""  # no terminal, no progress
    for said in ("widen 0 by net2wider", "6→12", "verdict: preserved", "learning rate"):
        assert said in done.stdout
    done = process("verify", "teacher.safetensors", "student.safetensors")
    assert (done.returncode, done.stderr) == (0, "")
    assert "float64" in done.stdout


def keys(schema, made):
    assert next(iter(made)) == "schema"  # whoever reads it knows at once what it is
    assert made["schema"] == f"ckgrow.{schema}/1"
    return set(made)


def test_document_of_inspect(folder):
    made = document("inspect", "teacher.safetensors")
    assert keys("inspect", made) >= {
        *("architecture", "options", "assumptions", "layers", "groups", "passthrough", "lineage"),
    }
    assert made["architecture"] == "mlp"
    assert [layer["name"] for layer in made["layers"]] == ["0", "2"]
    (hidden,) = (group for group in made["groups"] if group["name"] == "0")
    assert hidden["width"] == 6
    assert hidden["growable"] is True
    assert set(hidden["axes"]) == {"0.weight[0]", "0.bias[0]", "2.weight[1]"}
    assert {"fact": "activation", "value": "relu", "source": "default"} in made["assumptions"]


def test_document_of_plan(folder):
    made = document("plan", "teacher.safetensors", "spec.yaml")
    assert keys("plan", made) >= {
        *("groups", "assumptions", "steps", "tensors", "renames", "stock_loadable"),
        *("parameters", "bytes", "flops"),
    }
    (step,) = made["steps"]
    assert (step["preserves"], step["warnings"]) == ("exact", [])
    assert made["parameters"] == {"teacher": 51, "student": 99}
    assert made["bytes"] == {"teacher": 204, "student": 396}
    assert {
        each["name"]: (each["teacher_shape"], each["student_shape"]) for each in made["tensors"]
    } == {
        "0.weight": ([6, 4], [12, 4]),
        "0.bias": ([6], [12]),
        "2.weight": ([3, 6], [3, 12]),
        "2.bias": ([3], [3]),
    }
    assert listing(folder).keys() == {"teacher.safetensors", "spec.yaml"}


def test_document_of_apply_and_verify(folder):
    made = document("apply", "teacher.safetensors", "spec.yaml", "-o", "student.safetensors")
    assert keys("apply", made) >= {"student", "verify", "parameters", "bytes", "flops"}
    assert (made["student"], made["status"]) == ("student.safetensors", "written")
    verdict = document("verify", "teacher.safetensors", "student.safetensors")
    for each in (verdict, made["verify"]):
        assert keys("verify", each) >= {
            *("preserved", "expected", "outputs", "inputs", "runtimes", "assumptions", "hashes"),
        }
        assert (each["preserved"], each["expected"]) == (True, False)
        assert {each[name] for name in ("localisation", "proof", "train_mode", "learning")} == {
            None
        }
        (output,) = each["outputs"]
        assert set(output) >= {
            *("name", "max_abs", "max_rel", "tolerance", "yardstick", "ratio", "top1"),
        }
    assert verdict["hashes"] == made["verify"]["hashes"] == made["hashes"]
    assert len(verdict["runtimes"]) == 2
    assert len(made["verify"]["runtimes"]) == 1


def test_document_of_adapters():
    made = document("adapters")
    assert keys("adapters", made) == {"schema", "architectures", "formats", "methods"}
    assert {each["name"] for each in made["methods"]} >= {"net2wider", "net2deeper", "zero-init"}
    assert "net2wider" in ckgrow("adapters").stdout


def test_schema_names_every_verb():
    schema = json.loads(ckgrow("schema").stdout)
    text = json.dumps(schema)
    assert all(f'"{key}"' in text for key in ("widen", "deepen", "seed", "teacher", "verify"))
    assert json.loads(ckgrow("schema", "--json").stdout) == schema


def test_progress_is_for_terminals(folder):
    """On a terminal a bar shows on stderr and goes away again; stdout has no trace of it."""
    ours, theirs = os.openpty()
    command = [CKGROW, "apply", "teacher.safetensors", "spec.yaml", "-o", "student.safetensors"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=theirs, text=True) as run:
        os.close(theirs)
        seen = b""
        while piece := read_terminal(ours):
            seen += piece
        said = run.stdout.read()
    os.close(ours)
    assert run.returncode == 0
    assert b"verifying" in seen
    assert "\x1b" not in said
    assert "verdict: preserved" in said


def read_terminal(descriptor):
    try:
        return os.read(descriptor, 4096)
    except OSError:  # the other end is closed
        return b""


@pytest.mark.parametrize("teacher", sorted(path.stem for path in TEACHERS.glob("*.safetensors")))
def test_first_spec_plans_and_applies(teacher, tmp_path):
    file = TEACHERS / f"{teacher}.safetensors"
    spec, student = tmp_path / "first spec.yaml", tmp_path / "student.safetensors"
    assert ckgrow("init", file, "-o", spec).exit_code == 0
    assert ckgrow("init", file).stdout == spec.read_text(encoding="utf-8")
    assert document("init", file)["spec"] == spec.read_text(encoding="utf-8")
    done = ckgrow("apply", file, spec, "-o", student)
    assert done.exit_code == 0, done.output
    # and everything that it holds in comments
    lines = spec.read_text(encoding="utf-8").splitlines()
    offers = [line.replace("# ", "", 1) for line in lines if line.startswith("  # - ")]
    assert offers or teacher == "mlp"
    for line in offers:
        detail = "blocks: 1" if "deepen" in line else "factor: 1.5"
        step = written(tmp_path / "step.yaml", f"steps:\n{line}\n    {detail}\n")
        assert ckgrow("plan", file, step).exit_code == 0, line


def test_init_keeps_an_existing_file(folder):
    done = ckgrow("init", "teacher.safetensors", "-o", "spec.yaml")
    assert done.exit_code == 4
    assert "spec.yaml exists; write elsewhere or remove it" in done.stderr
    assert (folder / "spec.yaml").read_text() == WIDEN


def test_new_tensors(folder):
    spec = written(
        folder / "deep.yaml",
        'teacher: {options: {activation: relu}}\nsteps:\n  - deepen: "0"\n    layers: 1\n',
    )
    assert grown(spec).exit_code == 0
    done = ckgrow("inspect", "student.safetensors", "--new-tensors")
    assert set(done.stdout.split()) == {"2.weight", "2.bias"}


def test_lineage_of_a_student_of_a_student(folder):
    assert grown().exit_code == 0
    first = document("inspect", "student.safetensors")
    done = ckgrow("apply", "student.safetensors", "spec.yaml", "-o", "second.safetensors")
    assert done.exit_code == 0
    second = document("inspect", "second.safetensors")
    assert len(first["lineage"]) == 1
    assert second["lineage"][0] == first["lineage"][0]
    assert len(second["lineage"]) == 2
    assert ckgrow("verify", "teacher.safetensors", "second.safetensors").exit_code == 0


def test_file_is_private_to_no_one(folder):
    previous = os.umask(0o027)
    try:
        grown()
    finally:
        os.umask(previous)
    assert stat.S_IMODE(os.stat("student.safetensors").st_mode) == 0o640


def test_metadata_of_the_teacher_stays(folder):
    save_file(tensors(), "teacher.safetensors", {"format": "pt"})
    grown()
    with safe_open("student.safetensors", "numpy") as student:
        assert student.metadata()["format"] == "pt"
        assert set(student.metadata()) == {"format", "ckgrow"}


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "module._orig_mod."])
def test_wrapper_prefix_is_kept(folder, prefix):
    saved(
        folder / "teacher.safetensors",
        {prefix + name: values for name, values in tensors().items()},
    )
    assert grown().exit_code == 0
    assert {name.removeprefix(prefix) for name in load_file("student.safetensors")} == set(
        tensors()
    )
    assert ckgrow("verify", "teacher.safetensors", "student.safetensors").exit_code == 0


HOSTILE = (
    "\x1b[31m",
    "[bold]",
    "a b\n",
    "../../etc/",
    "quo\"te'",
    "{x}",
    "*",
    "日本",
    "\u202e",
    "~",
)


@pytest.mark.parametrize("name", HOSTILE, ids=ascii)
def test_hostile_names_of_tensors(folder, name):
    """They grow like others, are never printed raw, and never become a path."""
    hostile = {f"{name}.{key}": values for key, values in tensors().items()}
    saved(folder / "teacher.safetensors", hostile)
    before = listing(folder)
    outputs = [
        ckgrow("inspect", "teacher.safetensors"),
        ckgrow("init", "teacher.safetensors", "-o", "first.yaml"),
        ckgrow("plan", "teacher.safetensors", "first.yaml"),
        grown("first.yaml"),
        ckgrow("inspect", "student.safetensors", "--new-tensors"),
        ckgrow("inspect", "student.safetensors", "--json"),
        ckgrow("verify", "teacher.safetensors", "student.safetensors"),
    ]
    for done in outputs:
        assert done.exit_code == 0, done.output
        assert all(each.isprintable() or each == "\n" for each in done.output)
    assert set(load_file("student.safetensors")) == set(hostile)
    assert listing(folder).keys() == {*before, "first.yaml", "student.safetensors"}


# --- once more ------------------------------------------------------------------------------


def test_same_run_again_leaves_the_file_alone(folder):
    grown()
    os.utime("student.safetensors", ns=(1, 1))
    before = listing(folder)
    for options in ((), ("--force",)):
        done = grown("spec.yaml", "student.safetensors", *options)
        assert done.exit_code == 0
        assert "up to date" in done.stdout
    assert os.stat("student.safetensors").st_mtime_ns == 1
    assert listing(folder) == before


def test_comments_and_defaults_make_no_other_spec(folder):
    grown()
    written(folder / "spec.yaml", f"# a comment\nseed: 0\nversion: 1\n{WIDEN}    split: unequal\n")
    assert "up to date" in grown().stdout


def retrained(folder):
    with safe_open("student.safetensors", "numpy") as student:
        metadata = student.metadata()
    values = load_file("student.safetensors")
    values["2.bias"] = values["2.bias"] + 1
    save_file(values, "student.safetensors", metadata)


def reseeded(folder):
    written(folder / "spec.yaml", f"seed: 1\n{WIDEN}")


def other_teacher(folder):
    saved(folder / "teacher.safetensors", tensors(seed=1))


def stripped(folder):
    save_file(load_file("student.safetensors"), "student.safetensors")


@pytest.mark.parametrize("change", [retrained, reseeded, other_teacher, stripped])
def test_anything_else_is_not_overwritten(folder, change):
    grown()
    change(folder)
    before = listing(folder)
    done = grown()
    assert done.exit_code == 4
    assert "student.safetensors exists; add --force to replace it" in done.stderr
    assert listing(folder) == before
    assert grown("spec.yaml", "student.safetensors", "--force").exit_code == 0
    assert ckgrow("verify", "teacher.safetensors", "student.safetensors").exit_code == 0


# --- names and places -----------------------------------------------------------------------

AWKWARD = (
    "a b.safetensors",
    "quote'\".safetensors",
    "größe 日本 🙂.safetensors",
    "star*[0]{a,b}.safetensors",
    "[bold red]markup.safetensors",
    "escape\x1b[31m\n.safetensors",
    ".hidden.safetensors",
    "SHOUTED.SAFETENSORS",
)


@pytest.mark.parametrize("name", AWKWARD)
def test_awkward_names(folder, name):
    os.rename("teacher.safetensors", name)
    os.rename("spec.yaml", f"{name}.yaml")
    done = ckgrow("apply", name, f"{name}.yaml", "-o", f"student of {name}")
    assert done.exit_code == 0, done.output
    assert "\x1b" not in done.output
    assert len(listing(folder)) == 3
    assert ckgrow("verify", name, f"student of {name}").exit_code == 0
    if "\x1b" not in name:
        assert f"student: student of {name}" in done.stdout


def test_leading_dash(folder):
    os.rename("teacher.safetensors", "-teacher.safetensors")
    done = ckgrow("apply", "--output=-out.safetensors", "--", "-teacher.safetensors", "spec.yaml")
    assert done.exit_code == 0
    assert (folder / "-out.safetensors").exists()


@pytest.mark.parametrize("present", [True, False], ids=["target", "dangling"])
def test_symlink_is_written_through(folder, present):
    (folder / "elsewhere").mkdir()
    if present:
        saved(folder / "elsewhere" / "real.safetensors", tensors(seed=9))
    os.symlink("elsewhere/real.safetensors", "link.safetensors")
    assert grown("spec.yaml", "link.safetensors", "--force").exit_code == 0
    assert os.readlink("link.safetensors") == "elsewhere/real.safetensors"
    assert not os.path.islink("elsewhere/real.safetensors")
    assert ckgrow("verify", "teacher.safetensors", "link.safetensors").exit_code == 0
    assert listing(folder / "elsewhere").keys() == {"real.safetensors"}


def test_part_file_of_a_killed_run_is_taken_over(folder):
    written(folder / ".student.safetensors.ckgrow-part", "half a student" * 10_000)
    assert grown().exit_code == 0
    assert listing(folder).keys() == {"teacher.safetensors", "spec.yaml", "student.safetensors"}
    grown("spec.yaml", "fresh.safetensors")
    assert (folder / "student.safetensors").read_bytes() == (
        folder / "fresh.safetensors"
    ).read_bytes()


def test_output_held_by_another_run(folder):
    part = folder / ".student.safetensors.ckgrow-part"
    with part.open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        done = grown()
    assert done.exit_code == 4
    assert "student.safetensors is being written by another run; wait for it" in done.stderr
    assert part.exists()  # the other run's, not ours to take away


def test_two_runs_at_once(folder):
    """Of two runs onto one output one writes; the other says so, or finds it done."""
    code = "import sys\nfrom ckgrow.cli.main import run\nsys.argv[0] = 'ckgrow'\nrun()"
    command = [sys.executable, "-c", code, "apply", "teacher.safetensors", "spec.yaml"]
    runs = [subprocess.Popen([*command, "-o", "student.safetensors"]) for _ in range(3)]
    codes = [run.wait(timeout=120) for run in runs]
    assert 0 in codes
    assert set(codes) <= {0, 4}
    assert listing(folder).keys() == {"teacher.safetensors", "spec.yaml", "student.safetensors"}
    assert ckgrow("verify", "teacher.safetensors", "student.safetensors").exit_code == 0


# --- plans that do not preserve -------------------------------------------------------------


def test_noise_is_expected(folder):
    spec = written(folder / "noisy.yaml", NOISY)
    made = document("apply", "teacher.safetensors", spec, "-o", "student.safetensors")
    assert (made["status"], made["preserves"]) == ("written", "approximate")
    assert (made["verify"]["preserved"], made["verify"]["expected"]) == (False, True)
    assert made["verify"]["outputs"][0]["max_abs"] > 0
    verdict = document("verify", "teacher.safetensors", "student.safetensors", code=1)
    assert (verdict["preserved"], verdict["expected"]) == (False, False)


BROKEN = """
import sys
from ckgrow.recipes.divided import Divided
from ckgrow.cli.main import run
whole = Divided.rows
Divided.rows = lambda self, index, reading: whole(self, index, reading) * 1.01
sys.argv[0] = "ckgrow"
run()
"""


@pytest.mark.parametrize("text", [WIDEN, NOISY], ids=["exact", "noisy"])
def test_fault_is_not_taken_for_noise(folder, text):
    """With a recipe that is wrong, the plan fails, noise or not, and the old student stays."""
    spec = written(folder / "fault.yaml", text)
    old = saved(folder / "student.safetensors", tensors(seed=9)).read_bytes()
    before = listing(folder)
    arguments = ("apply", "teacher.safetensors", spec, "-o", "student.safetensors", "--force")
    done = python(BROKEN, *arguments)
    assert done.returncode == 1, done.stderr
    assert "NOT PRESERVED" in done.stdout
    assert "nothing was written to student.safetensors" in done.stdout
    assert listing(folder) == before
    done = python(BROKEN, *arguments, "--keep-failed")
    assert done.returncode == 1
    assert "the failed student is in student.safetensors.failed" in done.stdout
    assert (folder / "student.safetensors").read_bytes() == old
    failed = load_file("student.safetensors.failed")
    assert failed["0.weight"].shape == (12, 4)
    assert listing(folder).keys() == {*before, "student.safetensors.failed"}
    done = ckgrow("verify", "teacher.safetensors", "student.safetensors.failed")
    assert done.exit_code == 1


# --- how output comes out -------------------------------------------------------------------


@pytest.mark.parametrize("command", ["plan", "inspect", "apply"])
def test_reader_that_goes_away(folder, command):
    """``ckgrow ... | head``: no complaint, the command's own exit code, and the work is done."""
    rest = {
        "plan": "plan teacher.safetensors spec.yaml",
        "inspect": "inspect teacher.safetensors --json",
        "apply": "apply teacher.safetensors spec.yaml -o student.safetensors",
    }[command]
    script = f"set -o pipefail; {CKGROW} {rest} | true"
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert (folder / "student.safetensors").exists() == (command == "apply")


def test_terminal_that_knows_only_ascii(folder):
    settings = {**os.environ, "PYTHONIOENCODING": "ascii"}
    done = process("plan", "teacher.safetensors", "spec.yaml", env=settings)
    assert done.returncode == 0, done.stderr
    assert "6\\u219212" in done.stdout


@pytest.mark.parametrize("arguments", [("plan", "teacher.safetensors", "spec.yaml"), ("--help",)])
@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_stdout_on_a_full_disk(folder, arguments, unbuffered):
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [CKGROW, *arguments],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
            env={**os.environ, "PYTHONUNBUFFERED": unbuffered},
        )
    assert done.returncode == 4
    assert done.stderr.count("No space left on device") == 1
    assert "Traceback" not in done.stderr


def test_internal_error_has_no_traceback_unless_debugged(folder):
    code = (
        "import ckgrow.public, ckgrow.cli.main as command\n"
        "def broken(*_, **__): raise ZeroDivisionError('oops')\n"
        "ckgrow.public.plan = broken\n"
        "command.run()\n"
    )
    done = python(code, "plan", "teacher.safetensors", "spec.yaml")
    assert done.returncode == 5
    assert "internal error: ZeroDivisionError: oops" in done.stderr
    assert "--debug" in done.stderr
    assert "Traceback" not in done.stderr
    done = python(code, "--debug", "plan", "teacher.safetensors", "spec.yaml")
    assert done.returncode == 5
    assert "Traceback" in done.stderr


def test_same_bytes_whoever_works(folder):
    """Two processes, one worker and two, different orders of hashing: the same file."""
    teacher, spec = TEACHERS / "resnet.safetensors", SPECS / "widen_resnet.yaml"
    for name, workers, seed in (("a", 1, "0"), ("b", 2, "1")):
        done = process(
            *("apply", teacher, spec, "-o", f"{name}.safetensors", "--workers", workers),
            env={**os.environ, "PYTHONHASHSEED": seed},
        )
        assert done.returncode == 0, done.stderr
    grown_here = ckgrow("apply", teacher, spec, "-o", "c.safetensors")
    assert grown_here.exit_code == 0
    first, *others = ((folder / f"{name}.safetensors").read_bytes() for name in "abc")
    assert all(each == first for each in others)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float64"])
@pytest.mark.parametrize("teacher", ["mlp", "resnet", "inception", "convnet"])
def test_other_precisions(folder, teacher, dtype):
    """net2wider is exact in every precision: float64 finds the student equal to the last digits."""
    kinds = {"float16": np.float16, "bfloat16": ml_dtypes.bfloat16, "float64": np.float64}
    values = load_file(TEACHERS / f"{teacher}.safetensors")
    low = {
        name: array.astype(kinds[dtype]) if array.dtype == np.float32 else array
        for name, array in values.items()
    }
    file = saved(folder / f"{teacher}.safetensors", low)
    ckgrow("init", file, "-o", "first.yaml")
    assert ckgrow("apply", file, "first.yaml", "-o", "student.safetensors").exit_code == 0
    verdict = document("verify", file, "student.safetensors")
    (output,) = verdict["outputs"]
    scale = output["float64_tolerance"] / 1e-12  # at most
    assert output["float64_max_abs"] <= 1e-14 * scale
    assert verdict["preserved"]
