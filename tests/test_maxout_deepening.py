"""New layers behind maxout units: the replicated-column identity, and a factor in front of it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from student_oracles import (
    assert_same_function,
    deviation,
    grown,
    grown_graph,
    outputs_of,
    random_arrays,
    random_state,
)
from test_coupling import case, ints, node
from test_maxout import EXACT, MaxoutNet, inputs, maxout

TEACHER = (6, 5, 4, 3)
RENAMED = {"fc1_grown1": "fc2", "bn1_grown1": "bn2", "fc2": "fc3", "bn2": "bn3", "fc3": "fc4"}


def one_deeper(tensors):
    """Keys of a student that is deeper behind fc1 as a plain network of that depth has them."""
    return {
        ".".join([RENAMED.get(key.split(".")[0], key.split(".")[0]), *key.split(".")[1:]]): each
        for key, each in tensors.items()
    }


@pytest.mark.parametrize("pieces", [2, 3, 5])
@pytest.mark.parametrize("norm", [False, True])
def test_replicated_columns_are_the_identity_of_maxout(pieces, norm):
    module = MaxoutNet(TEACHER, pieces, norm).eval()
    state = random_state(module)
    student = grown(state, {"deepen": "fc1"}, options=maxout(pieces))
    weight = student.tensors["fc1_grown1.weight"]
    assert torch.equal(weight, torch.eye(5).repeat_interleave(pieces, dim=0))
    assert student.plan.preserves == ("eval" if norm else "exact")
    assert "keeps them locked together" in student.plan.steps[0].warnings[-1]
    deeper = MaxoutNet((6, 5, 5, 4, 3), pieces, norm).eval()
    before = outputs_of(module, state, inputs(6))
    after = outputs_of(deeper, one_deeper(student.tensors), inputs(6))
    assert deviation(before, after) <= EXACT


def test_replicated_columns_with_measured_statistics(tmp_path):
    module = MaxoutNet(TEACHER, 3, norm=True).eval()
    state = random_state(module)
    np.save(tmp_path / "x.npy", inputs(6, 64).numpy())
    step = {"deepen": "fc1", "calibrate": str(tmp_path / "x.npy")}
    student = grown(state, step, options=maxout(3))
    mean = student.tensors["bn1_grown1.running_mean"]
    assert (mean != 0).all()
    assert torch.equal(mean.view(5, 3), mean.view(5, 3)[:, :1].expand(5, 3))
    deeper = MaxoutNet((6, 5, 5, 4, 3), 3, norm=True).eval()
    before = outputs_of(module, state, inputs(6))
    assert deviation(before, outputs_of(deeper, one_deeper(student.tensors), inputs(6))) <= 1e-9


def test_weights_with_inputs_first():
    made = case(
        {"a.w": (3, 8), "b.w": (4, 2)},
        [
            node("Gemm", "a", "x", "a.w"),
            node("Reshape", "a/apart", "a", "shape"),
            node("ReduceMax", "a/largest", "a/apart", "last", keepdims=0),
            node("Gemm", "b", "a/largest", "b.w"),
        ],
        {},
        x=(3,),
        shape=ints(-1, 4, 2),
        last=ints(2),
    )
    tensors = random_arrays(made.header)
    plan, student = grown_graph(made.graph, tensors, {"deepen": "a"})
    assert (student["a_grown1.w"] == np.repeat(np.eye(4), 2, axis=1)).all()
    assert_same_function(made.graph, tensors, plan, student)


def test_a_grown_maxout_layer_grows_on():
    module = MaxoutNet(TEACHER, 2).eval()
    state = random_state(module)
    steps = [{"deepen": "fc1", "layers": 2}, {"widen": "*", "by": 4}]
    student = grown(state, *steps, options=maxout(2))

    def forward(x):
        for name in ("fc1", "fc1_grown1", "fc1_grown2", "fc2", "fc3"):
            weight, bias = (student.tensors[f"{name}.{part}"] for part in ("weight", "bias"))
            x = x @ weight.double().T + bias.double()
            x = x if name == "fc3" else x.view(len(x), -1, 2).max(-1).values
        return x

    assert len(student.tensors["fc1_grown1.weight"]) > 10
    assert deviation(outputs_of(module, state, inputs(6)), (forward(inputs(6)),)) <= EXACT


def test_a_factor_in_front_of_the_maximum():
    module = MaxoutNet(TEACHER, 2).eval()
    state = random_state(module)
    student = grown(state, {"deepen": "fc1", "method": "netmorph"}, options=maxout(2))
    product = student.tensors["fc1_grown1.weight"].double() @ student.tensors["fc1.weight"].double()
    assert student.tensors["fc1_grown1.weight"].shape == (10, 10)
    assert torch.allclose(product, state["fc1.weight"].double(), atol=1e-6)
