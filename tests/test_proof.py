"""The proof: sound students are proven, and every equation that is violated is found.

What is expected does not come from the proof itself. Whether a student is sound, both runtimes and
torch's own forward say (``tests/test_method_matrix.py``, which proves every cell as well); which
equation a fault violates is plain from the layouts written down here.
"""

from __future__ import annotations

from dataclasses import replace

import ml_dtypes
import numpy as np
import pytest
import torch
from commands import ckgrow, document, saved, tensors, written
from proof_oracles import (
    arrays_of_state,
    claims_of,
    in_memory,
    proof_of,
    proof_of_graph,
    reclaimed,
)
from student_oracles import grown, grown_graph
from test_verifying import retouched

from ckgrow.drafts.draft import Origin
from ckgrow.graph import BATCH, Graph, Node
from ckgrow.maps import ChannelMap
from ckgrow.proof import Claims, prove

RELU = {"options": {"activation": "relu"}}


def mlp(seed=0, width=4):
    random = torch.Generator().manual_seed(seed)
    sizes = [(width, 3), (width, width), (2, width)]
    state = {}
    for number, size in enumerate(sizes):
        state[f"{2 * number}.weight"] = torch.randn(size, generator=random)
        state[f"{2 * number}.bias"] = torch.randn(size[0], generator=random)
    return state


# --- sound students ---------------------------------------------------------------------------


def test_a_table_has_a_row_for_every_group_and_tensor():
    state = mlp()
    student = grown(state, {"widen": "0", "to": 6}, **RELU)
    proof = proof_of(student, state)
    assert {check.tensor for check in proof.tensors} == set(student.tensors)
    assert {check.result for check in proof.tensors} == {"holds"}
    (row,) = [group for group in proof.groups if group.group == "0"]
    assert (row.teacher, row.student, row.copies, row.fresh, row.zeros) == (4, 6, 6, 0, 0)
    assert row.result == "holds"


@pytest.mark.parametrize("dtype", [ml_dtypes.bfloat16, np.float16, np.float64])
@pytest.mark.parametrize("method", ["net2wider", "r2wider", "symmetric", "netmorph"])
def test_every_dtype_is_exact(dtype, method):
    graph, arrays = branches()
    arrays = {name: each.astype(dtype) for name, each in arrays.items()}
    step = {"widen": "[abc]", "factor": 3, "method": method}
    plan, made = grown_graph(graph, arrays, step)
    proof = proof_of_graph(plan, arrays, made)
    assert (proof.result, proof.defect) == ("proven", 0.0)


# --- every equation, violated -----------------------------------------------------------------


def changed(student, name, index, change):
    array = student.tensors[name].numpy().copy()
    array[index] = change(array[index])
    return {name: array}


def nudged(value):
    return value * np.float32(1.001) + np.float32(1e-4)


WIDER = {"widen": "0", "to": 6}
SILENT = {"method": "netmorph", "zero": "in"}
FAULTS = [
    ("a row of a copy", {"widen": "0", "to": 6}, "0.weight", (5, 1)),
    ("a bias of a copy", {"widen": "0", "to": 6}, "0.bias", 5),
    ("a share", {"widen": "0", "to": 6}, "2.weight", (1, 5)),
    ("a column of a new unit", {**WIDER, "method": "netmorph"}, "2.weight", (0, 4)),
    ("one of a pair", {"widen": "0", "to": 6, "method": "r2wider"}, "0.weight", (5, 0)),
    ("a bias of a pair", {"widen": "0", "to": 6, "method": "r2wider"}, "0.bias", 4),
    ("what takes a pair back", {"widen": "0", "to": 6, "method": "r2wider"}, "2.weight", (3, 4)),
    ("a unit that is zero", {**WIDER, **SILENT}, "0.weight", (4, 2)),
    ("its bias", {**WIDER, **SILENT}, "0.bias", 4),
    ("an identity", {"deepen": "0", "method": "net2deeper"}, "2.weight", (2, 1)),
    ("a bias of one", {"deepen": "0", "method": "net2deeper"}, "2.bias", 2),
    ("a branch of zero", {"deepen": "0", "method": "zero-init"}, "2.branch.2.weight", (2, 2)),
    ("a dense factor", {"deepen": "0", "method": "netmorph"}, "0.weight", (2, 1)),
    ("what multiplies it", {"deepen": "0", "method": "netmorph"}, "1.weight", (2, 1)),
]


@pytest.mark.parametrize(
    ("step", "name", "index"), [each[1:] for each in FAULTS], ids=[each[0] for each in FAULTS]
)
def test_a_violated_equation_is_refuted_at_its_tensor(step, name, index):
    state = mlp()
    student = grown(state, step, **RELU)
    assert proof_of(student, state).result == "proven"
    proof = proof_of(student, state, changed(student, name, index, nudged))
    assert proof.result == "refuted"
    assert {finding.tensor for finding in proof.findings} == {name}
    assert not proof.lacking
    (check,) = [each for each in proof.tensors if each.tensor == name]
    assert check.result == "refuted"
    assert check.defect > 1


def test_a_column_of_a_channel_that_is_zero_is_free():
    state = mlp()
    student = grown(state, {"widen": "0", "to": 6, "method": "netmorph", "zero": "in"}, **RELU)
    free = changed(student, "2.weight", (0, 4), lambda value: value + 5)
    assert proof_of(student, state, free).result == "proven"


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_weight_that_is_no_number_is_refuted_even_where_it_is_free(value):
    state = mlp()
    student = grown(state, {"widen": "0", "to": 6, "method": "netmorph", "zero": "in"}, **RELU)
    broken = changed(student, "2.weight", (0, 4), lambda _: value)
    proof = proof_of(student, state, broken)
    assert proof.result == "refuted"
    assert {finding.tensor for finding in proof.findings} == {"2.weight"}


def test_a_fault_is_measured_in_units_of_rounding():
    state = mlp()
    student = grown(state, {"widen": "0", "to": 6}, **RELU)
    last_place = changed(student, "0.bias", 5, lambda value: np.nextafter(value, np.float32(9)))
    proof = proof_of(student, state, last_place)
    assert proof.result == "refuted"
    assert 0.25 <= proof.findings[0].defect <= 1


def test_what_makes_one_wrong_does_not_accuse_what_reads_it():
    state = mlp()
    student = grown(state, {"widen": "*", "to": 6}, **RELU)
    two = changed(student, "0.weight", (5, 1), nudged) | changed(student, "4.bias", 0, nudged)
    proof = proof_of(student, state, two)
    assert {finding.tensor for finding in proof.findings} == {"0.weight", "4.bias"}


# --- maps are claims --------------------------------------------------------------------------


def branches(seed=0):
    """Two convolutions side by side, joined, and one that reads both: a map for each."""
    random = np.random.default_rng(seed)
    shapes = {"a": (3, 2, 1, 1), "b": (4, 2, 1, 1), "c": (2, 7, 1, 1), "d": (2, 2, 1, 1)}
    arrays = {f"{k}.weight": random.normal(size=v).astype(np.float32) for k, v in shapes.items()}
    nodes = (
        Node("Conv", "a", ("x", "a.weight"), ("a",)),
        Node("Conv", "b", ("x", "b.weight"), ("b",)),
        Node("Concat", "ab", ("a", "b"), ("ab",), {"axis": 1}),
        Node("Conv", "c", ("ab", "c.weight"), ("c",)),
        Node("Relu", "r", ("c",), ("r",)),
        Node("Conv", "d", ("r", "d.weight"), ("y",)),
    )
    return Graph({"x": (BATCH, 2, 3, 3)}, ("y",), nodes), arrays


def grown_branches():
    graph, arrays = branches()
    plan, made = grown_graph(graph, arrays, {"widen": "a", "to": 5}, {"widen": "c", "to": 5})
    return plan, arrays, made


def test_maps_that_are_right_are_borne_out():
    plan, arrays, made = grown_branches()
    assert proof_of_graph(plan, arrays, made).result == "proven"


@pytest.mark.parametrize("layer", ["a", "b", "c"])
def test_a_map_off_by_one_is_not_believed(layer):
    """In front of a concatenation, and behind it."""
    plan, arrays, made = grown_branches()
    known = plan.draft.origins[layer].map
    moved = ChannelMap(known.width, np.roll(known.sources, 1))
    proof = proof_of_graph(plan, arrays, made, reclaimed(plan, layer, map=moved))
    assert proof.result == "refuted"
    assert proof.findings[0].layer == layer


@pytest.mark.parametrize(
    ("layer", "map_", "said"),
    [
        ("a", ChannelMap.with_fresh(3, 2), "c.weight"),  # copies that are said to be new
        ("a", ChannelMap.of(3, [0, 1, 2, -1, -1]), "a.weight"),  # ... or to be zero
        ("c", ChannelMap.of(2, [0, 1, -2, -2, -2]), "c.weight"),
    ],
)
def test_a_copy_is_nothing_else(layer, map_, said):
    plan, arrays, made = grown_branches()
    proof = proof_of_graph(plan, arrays, made, reclaimed(plan, layer, map=map_))
    assert proof.result == "refuted"
    assert said in {finding.tensor for finding in proof.findings}


def test_a_map_of_another_layer_is_not_believed():
    plan, arrays, made = grown_branches()
    assert proof_of_graph(plan, arrays, made, reclaimed(plan, "c", of="b")).result == "refuted"


@pytest.mark.parametrize("certificate", ["identity", "zero", "factor", "product"])
def test_a_certificate_is_no_proof(certificate):
    """Whatever a layer is said to be, its tensors have to show it."""
    plan, arrays, made = grown_branches()
    broken = {**made, "c.weight": made["c.weight"] * np.float32(1.01)}
    claims = reclaimed(plan, "c", certificate=certificate)
    assert proof_of_graph(plan, arrays, broken, claims).result != "proven"


def test_the_map_of_an_identity_is_not_believed_either():
    state = mlp()
    student = grown(state, {"deepen": "0", "method": "net2deeper"}, **RELU)
    plan = student.plan
    known = plan.draft.origins["2"].map
    moved = reclaimed(plan, "2", map=ChannelMap(known.width, np.roll(known.sources, 1)))
    arrays = arrays_of_state(plan, state), arrays_of_state(plan, student.tensors)
    assert proof_of_graph(plan, *arrays).result == "proven"
    proof = proof_of_graph(plan, *arrays, moved)
    assert proof.result == "refuted"
    assert proof.findings[0].layer == "2"


def test_an_identity_whose_rows_changed_places_is_refuted_where_it_stands():
    state = mlp()
    student = grown(state, {"deepen": "0", "method": "net2deeper"}, **RELU)
    swapped = student.tensors["2.weight"].numpy()[[1, 0, 2, 3]]
    proof = proof_of(student, state, {"2.weight": swapped})
    assert {finding.tensor for finding in proof.findings} == {"2.weight"}


def test_maps_that_fit_no_layer_are_missing():
    plan, arrays, made = grown_branches()
    for wrong in (
        reclaimed(plan, "c", map=ChannelMap.identity(2)),
        reclaimed(plan, "c", of="nowhere"),
        reclaimed(plan, "c", map=ChannelMap(9, np.full(5, 8))),
        Claims({}, {}),
    ):
        proof = proof_of_graph(plan, arrays, made, wrong)
        assert proof.result == "not proven"
        assert "c" in " ".join(proof.lacking)


def test_two_outputs_of_one_layer_do_not_change_places():
    graph, arrays = branches()
    swapped = {**arrays, "d.weight": arrays["d.weight"][::-1].copy()}
    identity = {name: Origin(name, ChannelMap.identity(width)) for name, width in WIDTHS.items()}
    identity["d"] = Origin("d", ChannelMap.of(2, [1, 0]))
    names = {name: name for name in arrays}
    proof = prove(
        in_memory("t", graph, arrays), in_memory("s", graph, swapped), Claims(identity, names)
    )
    assert proof.result == "refuted"
    assert "outputs" in proof.findings[0].equation


WIDTHS = {"a": 3, "b": 4, "c": 2, "d": 2}


def test_a_product_that_nothing_is_recorded_of_has_to_be_exact():
    state = mlp()
    student = grown(state, {"deepen": "0", "method": "netmorph"}, **RELU)
    plan = student.plan
    arrays = arrays_of_state(plan, state), arrays_of_state(plan, student.tensors)
    unrecorded = replace(claims_of(plan), defects={})
    assert proof_of_graph(plan, *arrays).result == "proven"
    assert proof_of_graph(plan, *arrays, unrecorded).result == "refuted"


# --- without a record -------------------------------------------------------------------------


def test_a_student_that_only_got_blocks_needs_no_record():
    """Identities and zeros show by themselves, and names and shapes say the rest."""
    graph, arrays = branches()
    proof = prove(in_memory("t", graph, arrays), in_memory("s", graph, arrays))
    assert proof.result == "proven"


def test_a_wider_one_does():
    plan, arrays, made = grown_branches()
    proof = prove(in_memory("t", plan.start.graph, arrays), in_memory("s", plan.graph, made))
    assert proof.result == "not proven"
    assert "record" in proof.lacking[0]


# --- the command ------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path, monkeypatch):
    saved(tmp_path / "teacher.safetensors", tensors())
    written(tmp_path / "spec.yaml", 'steps:\n  - widen: "0"\n    factor: 2\n')
    monkeypatch.chdir(tmp_path)
    done = ckgrow("apply", "teacher.safetensors", "spec.yaml", "-o", "student.safetensors")
    assert done.exit_code == 0
    return tmp_path


def proven(code=0):
    return document("verify", "teacher.safetensors", "student.safetensors", "--proof", code=code)


def test_proven_is_exit_0_and_nothing_is_run(folder):
    made = proven()
    assert made["preserved"]
    assert made["proof"] == "proven"
    assert made["runtimes"] == made["outputs"] == []
    assert made["certificate"]["defect"] == 0
    assert {row["result"] for row in made["certificate"]["tensors"]} == {"holds"}


def test_refuted_is_exit_1_and_names_the_tensor(folder):
    def scaled(values):
        values["2.weight"][1] *= np.float32(1.001)

    retouched(scaled)
    made = proven(code=1)
    assert made["proof"] == "refuted"
    assert [each["tensor"] for each in made["certificate"]["findings"]] == ["2.weight"]
    assert made["certificate"]["findings"][0]["channels"] == [1]
    assert any("no longer those" in note for note in made["notes"])
    said = ckgrow("verify", "teacher.safetensors", "student.safetensors", "--proof").stdout
    assert "REFUTED" in said
    assert "2.weight" in said


def test_not_proven_is_exit_1_and_says_what_is_missing(folder):
    from safetensors.numpy import load_file, save_file

    save_file(load_file("student.safetensors"), "bare.safetensors")
    bare = ("verify", "teacher.safetensors", "bare.safetensors", "--proof")
    made = document(*bare, code=1)
    assert made["proof"] == "not proven"
    assert "record" in made["reason"]
    lent = document(*bare, "--maps", "student.safetensors")
    assert lent["proof"] == "proven"


@pytest.mark.parametrize(
    "option", [["--quick"], ["--rtol", "1"], ["--atol", "1"], ["--inputs", "x.npy"]]
)
def test_proof_takes_nothing_that_is_about_running(folder, option):
    done = ckgrow("verify", "teacher.safetensors", "student.safetensors", "--proof", *option)
    assert done.exit_code == 2
    assert "nothing" in done.stderr


def test_a_verdict_is_not_lost_where_learning_cannot_be_seen(folder):
    saved(folder / "narrow.safetensors", NARROW)
    pair = ("verify", "teacher.safetensors", "narrow.safetensors")
    made = document(*pair, "--learn", code=1)
    assert made["learning"] is None
    assert any("learn was not seen" in note for note in made["notes"])


def test_what_is_too_big_to_run_is_proven(folder, monkeypatch):
    monkeypatch.setattr("ckgrow.verifying.too_big", lambda *_: "running it takes 9 TiB")
    made = document("verify", "teacher.safetensors", "student.safetensors")
    assert made["proof"] == "proven"
    assert "not run: running it takes 9 TiB" in made["reason"]


def test_the_student_of_a_gaussian_spec_is_refuted(folder):
    written(folder / "noisy.yaml", NOISY)
    done = ckgrow("apply", "teacher.safetensors", "noisy.yaml", "-o", "noisy.safetensors")
    assert done.exit_code == 0
    made = document("verify", "teacher.safetensors", "noisy.safetensors", "--proof", code=1)
    assert made["proof"] == "refuted"


NOISY = 'steps:\n  - widen: "0"\n    factor: 2\n    noise: {kind: gaussian, scale: 0.1}\n'
NARROW = {
    "0.weight": np.ones((6, 3), np.float32),
    "0.bias": np.ones(6, np.float32),
    "2.weight": np.ones((3, 6), np.float32),
    "2.bias": np.ones(3, np.float32),
}
"""Of another input size than what :func:`commands.tensors` makes."""
