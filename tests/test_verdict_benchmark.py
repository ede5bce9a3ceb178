"""The benchmark of the verdict, on a sample; and its judges, where a person can check them."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))

from verdict import Size, run
from verdict_equations import NULL, Equations
from verdict_faults import KINDS, Ground, faults
from verdict_forward import by_graph, by_module, doubles
from verdict_students import SUBJECTS, Case, cases, stock, whole
from verdict_table import errors, located_enough, misplaced, table
from verdict_trial import Said, Trial

from ckgrow.maps import ChannelMap


@pytest.fixture(scope="module")
def trials(request):
    full = request.config.getoption("--full")
    size = Size(60, 400, small=True) if full else Size(5, 20, small=True)
    return list(run(size))


def test_the_verdict_is_never_wrong(trials):
    assert errors(trials) == []


def test_the_layer_at_fault_is_named(trials):
    assert any(not each.said.preserved for trial in trials for each in trial.broken)
    assert located_enough(trials)


def test_too_few_layers_named_are_told(trials):
    def misled(each):
        return replace(each, said=replace(each.said, located=("elsewhere",)))

    wrong = [replace(trial, broken=tuple(map(misled, trial.broken))) for trial in trials]
    found = sum(not each.said.preserved for trial in trials for each in trial.broken)
    assert not located_enough(wrong)
    assert len(misplaced(wrong)) == table(wrong).count(": elsewhere\n") == found


def test_sample_has_every_network_and_many_kinds(trials):
    assert {trial.case.network for trial in trials} == set(SUBJECTS)
    assert len({each.kind for trial in trials for each in trial.broken}) > len(KINDS) / 2


def test_what_is_said_wrongly_is_listed(trials):
    trial = next(trial for trial in trials if any(each.visible for each in trial.broken))
    broken = next(each for each in trial.broken if each.visible and each.visible_quickly)
    blind = replace(broken.said, preserved=True, quick=True, proof="proven")
    alarmed = replace(trial.sound, preserved=False, quick=False, proof="not proven")
    wrong = replace(trial, sound=alarmed, broken=(replace(broken, said=blind),))
    lines = errors([wrong])
    for part in ("alarm in float64", "alarm with --quick", "not proven", "violates, but proven"):
        assert sum(part in line for line in lines) == 1
    assert sum("missed" in line for line in lines) == 2
    assert lines == table([wrong]).split("wrong:\n")[1].splitlines()


def test_a_run_goes_on_where_it_stopped(tmp_path, monkeypatch):
    size, path = Size(3, 6, small=True), tmp_path / "trials.jsonl"
    monkeypatch.setattr("verdict.SHARES", {"mlp": (1.0, 1.0)})
    first = list(run(size, path))
    lines = path.read_text().splitlines()
    path.write_text("\n".join(lines[:2]) + "\n")
    made = []
    monkeypatch.setattr("verdict.tried", lambda case, *_: made.append(case) or first[2])
    assert list(run(size, path)) == first
    assert made == [first[2].case]
    assert path.read_text().splitlines() == lines


# --- the judges -----------------------------------------------------------------------------


def opened(case, folder):
    teacher, student = case.opened(folder)
    equations = Equations.of(student.network.graph, student.provenance, whole(student))
    return teacher, student, equations


@pytest.fixture
def widened(tmp_path):
    """An MLP whose every hidden layer is wider by copies."""
    return opened(Case("mlp", "net2wider", "float32", 0, 0), tmp_path)


@pytest.mark.parametrize("network", SUBJECTS)
def test_the_list_of_operations_computes_what_the_module_does(network, tmp_path):
    teacher, _ = cases(network, 1, shrink=4)[0].opened(tmp_path)
    tensors = doubles(whole(teacher))
    x = torch.randn(3, *SUBJECTS[network].size, dtype=torch.float64)
    expected = by_module(stock(network), tensors, x)
    found = by_graph(teacher.network.graph, tensors, x)
    assert (found - expected).abs().max() <= 1e-14 * expected.abs().max()


def test_swapped_copies_break_nothing_and_swapped_units_do(widened):
    _, student, equations = widened
    sources = student.provenance.origins["0"].map.sources
    twin = int(np.flatnonzero(sources == sources[-1])[0])
    weight = equations.tensors["2.weight"]

    def swapped(a, b):
        made = weight.copy()
        made[:, [a, b]] = made[:, [b, a]]
        return made

    assert sources[twin] == sources[-1]
    assert not equations.broken_by("2.weight", swapped(twin, len(sources) - 1))
    assert equations.broken_by("2.weight", swapped(0, 1))


def test_moved_share_breaks_nothing_and_lost_share_does(widened):
    _, student, equations = widened
    sources = student.provenance.origins["0"].map.sources
    a, b = np.flatnonzero(sources == sources[-1])[:2]
    weight = equations.tensors["2.weight"]
    moved = weight.astype(np.float64)
    moved[0, b] += moved[0, a]
    moved[0, a] = 0
    lost = weight.copy()
    lost[0, a] = 0
    assert not equations.broken_by("2.weight", moved)
    assert equations.broken_by("2.weight", lost)


def test_fresh_units_are_free_as_long_as_they_are_alike(tmp_path):
    _, student, equations = opened(Case("mlp", "r2wider", "float32", 0, 0), tmp_path)
    units = student.provenance.origins["0"].map.fresh_units
    pair = np.flatnonzero(units == 0)
    weight, bias = equations.tensors["0.weight"], equations.tensors["0.bias"]
    both, one = weight.copy(), weight.copy()
    both[pair] += 1
    one[pair[0]] += 1
    assert len(pair) == 2
    assert not equations.broken_by("0.weight", both)
    assert equations.broken_by("0.weight", one)
    assert equations.broken_by("0.bias", bias + np.eye(len(bias), dtype="f4")[pair[0]])


def test_shifted_map_contradicts_the_rows(widened):
    _, student, equations = widened
    right = student.provenance.origins["2"].map
    assert not equations.broken_map("2", right)
    assert equations.broken_map("2", ChannelMap(right.width, np.roll(right.sources, 1)))
    renamed = ChannelMap.with_fresh(right.width, len(right) - right.width)
    assert not equations.broken_map("2", renamed)  # the copies' rows are what fresh units may be


def test_zero_branch_is_zero_in_the_classes(tmp_path):
    _, _, equations = opened(Case("resnet18", "zero-init", "float32", 0, 0, 8), tmp_path)
    assert set(equations.classes["layer2.2.bn2"]) == {NULL}


@pytest.mark.parametrize("network", ["convnet", "googlenet"])
def test_every_kind_of_fault_is_made_and_changes_one_thing(network, tmp_path):
    case = Case(network, "net2wider", "bfloat16", 0, 0, 4)
    _, student, equations = opened(case, tmp_path)
    other = whole(replace(case, teacher_seed=1).opened(tmp_path)[1])
    stale = whole(replace(case, spec_seed=1).opened(tmp_path)[1])
    ground = Ground(equations, [lambda: stale], lambda: other)
    found = faults(ground, (0,), len(KINDS))
    assert {each.kind for each in found} == set(KINDS)
    for each in found:
        if each.content is None:
            assert each.maps[each.place] != student.provenance.origins[each.place].map
        else:
            tensor = equations.tensors[each.place]
            assert (each.content.dtype, each.content.shape) == (tensor.dtype, tensor.shape)
            assert each.content.tobytes() != tensor.tobytes()


def test_one_weight_is_off_by_a_thousandth_or_by_one_number(tmp_path):
    for dtype, most in (("float32", 1.1e-3), ("bfloat16", 2.0**-7)):
        _, _, equations = opened(Case("mlp", "net2wider", dtype, 0, 0), tmp_path)
        ground = Ground(equations, [dict], dict)
        fault = KINDS["one weight off"](ground, np.random.default_rng(0))
        old = equations.tensors[fault.place].astype(np.float64)
        off = np.abs(fault.content.astype(np.float64) - old)
        assert np.count_nonzero(off) == 1
        assert 0 < (off / np.abs(old)).max() <= most


def said(**changes):
    whole = Said(0.0, 1.0, True, 1e-12, True, 1e-6, "proven", (), ())
    return replace(whole, **changes)


def test_sound_student_alone_is_no_error():
    assert errors([Trial(Case("mlp", "net2wider", "float32", 0, 0), "exact", said())]) == []
