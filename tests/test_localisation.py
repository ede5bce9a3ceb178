"""Where a student breaks: the layers that are wrong, all of them, and none of their victims."""

from __future__ import annotations

import numpy as np
import pytest
from commands import ckgrow, document
from proof_oracles import arrays_of_state, claims_of, in_memory
from safetensors import safe_open
from safetensors.numpy import load_file, save_file
from shipped import SPECS, TEACHERS
from student_oracles import grown
from test_proof import FAULTS, changed, mlp, nudged

from ckgrow.localisation import locate
from ckgrow.verdict.samples import seeded_samples

RELU = {"options": {"activation": "relu"}}


def located(student, state, wrong):
    plan = student.plan
    before = in_memory("teacher", plan.start.graph, arrays_of_state(plan, state))
    arrays = {**arrays_of_state(plan, student.tensors), **wrong}
    after = in_memory("student", plan.graph, arrays)
    samples = seeded_samples(plan.start.graph, 16, 0)
    return locate(before, after, samples, claims_of(plan))


@pytest.mark.parametrize(
    ("step", "name", "index"), [each[1:] for each in FAULTS], ids=[each[0] for each in FAULTS]
)
def test_a_fault_is_found_at_its_tensor_and_channel(step, name, index):
    state = mlp()
    student = grown(state, step, **RELU)
    found, _ = located(student, state, changed(student, name, index, nudged))
    (source,) = found.sources
    assert source.tensors == (name,)
    row = index[0] if isinstance(index, tuple) else index
    if name != "0.weight" or step.get("deepen") != "0":  # a factor's row is in all of a product's
        assert row in source.channels
    assert 1e-10 < source.deviation <= 1


def test_a_sound_student_has_no_source_of_failure():
    state = mlp()
    student = grown(state, {"widen": "*", "factor": 2, "method": "symmetric"}, **RELU)
    found, nodes = located(student, state, {})
    assert not found.sources
    assert not found.skipped
    assert found.compared == len(nodes) == len(student.plan.graph.nodes)
    assert max(node.deviation for node in nodes) < 1e-14


def test_faults_in_a_row_are_all_named_and_their_victims_are_not():
    state = mlp()
    student = grown(state, {"widen": "*", "factor": 2}, **RELU)
    wrong = {}
    for name, index in (("0.weight", (1, 1)), ("2.bias", 3), ("4.weight", (0, 5))):
        wrong |= changed(student, name, index, nudged)
    found, _ = located(student, state, wrong)
    assert [source.tensors for source in found.sources] == [(name,) for name in wrong]


def test_what_is_no_number_accuses_one_layer():
    state = mlp()
    student = grown(state, {"widen": "*", "to": 6, "method": "r2wider"}, **RELU)
    for name, index in (("0.weight", (1, 1)), ("2.weight", (5, 0))):
        found, _ = located(student, state, changed(student, name, index, lambda _: np.nan))
        assert [source.tensors for source in found.sources] == [(name,)]


def test_a_fault_in_a_factor_behind_which_units_are_new():
    """The rows of the product that are copies and those of new units are all wrong together."""
    state = mlp()
    steps = {"widen": "2", "to": 6, "method": "r2wider"}, {"deepen": "2", "method": "netmorph"}
    student = grown(state, *steps, **RELU)
    found, _ = located(student, state, changed(student, "2.weight", (2, 1), nudged))
    assert [source.tensors for source in found.sources] == [("2.weight",)]
    assert found.sources[0].layer == "2"


# --- on files ---------------------------------------------------------------------------------

STUDENTS = [
    ("widen_resnet.yaml", "resnet", "layer2.0.bn2.running_var"),
    ("widen_resnet.yaml", "resnet", "layer3.2.bn2.weight"),  # the end of a new block
    ("widen_inception.yaml", "inception", "inception3b.branch4.1.conv.weight"),
    ("deepen_convnet.yaml", "convnet", "conv1_grown1.weight"),
]


@pytest.fixture(scope="module")
def students(tmp_path_factory):
    """Every spec's student, made once."""
    folder = tmp_path_factory.mktemp("students")
    for spec, teacher, _ in STUDENTS:
        output = folder / f"{spec}.safetensors"
        if not output.exists():
            source = TEACHERS / f"{teacher}.safetensors"
            done = ckgrow("apply", source, SPECS / spec, "-o", output, "--no-verify")
            assert done.exit_code == 0
    return folder


@pytest.mark.parametrize(("spec", "teacher", "tensor"), STUDENTS)
def test_verify_says_where_it_breaks(students, tmp_path, spec, teacher, tensor):
    path = students / f"{spec}.safetensors"
    with safe_open(path, "numpy") as file:
        metadata = file.metadata()
    values = load_file(path)
    assert tensor in values, sorted(values)
    values[tensor][3] = values[tensor][3] * np.float32(1.05) + np.float32(0.01)
    save_file(values, tmp_path / "broken.safetensors", metadata)
    pair = (TEACHERS / f"{teacher}.safetensors", tmp_path / "broken.safetensors")
    made = document("verify", *pair, code=1)
    (source,) = made["localisation"]["sources"]
    assert source["tensors"] == [tensor]
    assert source["layer"] == tensor.rpartition(".")[0]
    assert 3 in source["channels"]
    said = ckgrow("verify", *pair).stdout
    assert "breaks at" in said
    assert source["layer"] in said


def test_where_outputs_agree_nothing_is_said(students):
    pair = (TEACHERS / "resnet.safetensors", students / "widen_resnet.yaml.safetensors")
    assert document("verify", *pair)["localisation"] is None


def test_without_a_record_what_can_be_compared_is(students, tmp_path):
    values = load_file(students / "deepen_convnet.yaml.safetensors")
    assert values
    teacher = TEACHERS / "convnet.safetensors"
    other = load_file(teacher)
    other["conv1.weight"][2] *= np.float32(1.1)
    save_file(other, tmp_path / "other.safetensors")
    made = document("verify", teacher, tmp_path / "other.safetensors", code=1)
    assert made["localisation"]["sources"][0]["layer"] == "conv1"
