"""Names that ckgrow gives to modules, and names that only look like them."""

from __future__ import annotations

from collections import OrderedDict

import pytest
from student_oracles import grown, on_meta, random_state
from torch import nn

from ckgrow.naming import free_name, in_grown, is_grown, ungrown


@pytest.mark.parametrize(
    ("path", "own", "inside", "model"),
    [
        ("conv1_grown1", True, True, "conv1"),
        ("layer1.0.conv1_grown12", True, True, "layer1.0.conv1"),
        ("conv1_grown1.branch.0", False, True, "conv1_grown1.branch.0"),
        ("block.branch_grown2/add", False, True, "block.branch_grown2/add"),
        ("my_grown_layers.0", False, False, "my_grown_layers.0"),
        ("a_grown1b.weight", False, False, "a_grown1b.weight"),
        ("conv1_grown", False, False, "conv1_grown"),
    ],
)
def test_components_tell_what_was_grown(path, own, inside, model):
    assert (is_grown(path), in_grown(path), ungrown(path)) == (own, inside, model)


@pytest.mark.parametrize(
    ("taken", "name"),
    [
        ((), "a_grown1"),
        (("a_grown1.weight", "a_grown2/add"), "a_grown3"),
        (("a_grown10.weight", "a_grown1b", "b.a_grown1", "a_grown2"), "a_grown1"),
        (("a_grown1",), "a_grown2"),
    ],
)
def test_the_first_number_that_is_free(taken, name):
    assert free_name("a", taken) == free_name("a_grown7", taken) == name


def test_a_teacher_whose_own_names_look_grown():
    """Where its student can be loaded does not hang on what its containers are called."""

    def promise(name):
        chain = OrderedDict([("0", nn.Linear(5, 4)), ("1", nn.ReLU()), ("2", nn.Linear(4, 3))])
        module = on_meta(lambda: nn.Sequential(OrderedDict([(name, nn.Sequential(chain))])))
        steps = {"deepen": f"{name}.0"}
        plan = grown(random_state(module), steps, options={"activation": "relu"}).plan
        assert plan.steps[0].added == (f"{name}.2",)
        return plan.stock_loadable

    assert promise("my_grown_layers") == promise("layers")
