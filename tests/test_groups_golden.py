"""What grows together in networks that people know, as tables in ``golden/`` and in words.

A table has a row per group: name, width, runs, number of tensor axes, and its layers. A table that
is deleted is written anew by the test, which then fails once: read the difference.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torchvision
from architecture_oracles import header_of
from test_architecture_resnet import CifarResNet

from ckgrow.coupling import couple
from ckgrow.groups import Grouping, group_channels
from ckgrow.registry import architectures

GOLDEN = Path(__file__).parent / "golden"
NETWORKS = {
    "resnet18": ("resnet", torchvision.models.resnet18),
    "resnet50": ("resnet", torchvision.models.resnet50),
    "googlenet": ("inception", torchvision.models.googlenet),
    "cifar_resnet20_option_a": (
        "resnet",
        lambda: CifarResNet((16, 32, 64), (3, 3, 3), option="A"),
    ),
}


def grouping_of(name: str) -> Grouping:
    architecture, constructor = NETWORKS[name]
    options = {"init_weights": False} if name == "googlenet" else {}
    with torch.device("meta"):
        header = header_of(constructor(**options).state_dict())
    network = architectures()[architecture].build(header, {})
    return group_channels(network.graph, couple(network.graph, header))


def table(grouping: Grouping) -> str:
    rows = [
        f"{group.name:<28} {group.width:>5} x{group.runs:<2} {len(group.axes):>3} axes  "
        f"{'grows' if group.growable else 'fixed':<6} {' '.join(group.layers)}".rstrip()
        for group in grouping.groups.values()
    ]
    return "\n".join(rows) + "\n"


@pytest.mark.parametrize("name", NETWORKS)
def test_table(name):
    path, found = GOLDEN / f"{name}.txt", table(grouping_of(name))
    if not path.exists():
        path.write_text(found)
        pytest.fail(f"{path} was missing and has been written")
    assert found == path.read_text()


def test_the_stem_of_resnet18_is_part_of_its_first_stream():
    group = grouping_of("resnet18").groups["conv1"]
    assert group.layers == ("conv1", "layer1.0.conv2", "layer1.1.conv2")
    assert group.width == 64
    assert "layer1.0.conv1.weight[1]" in group.axes
    assert "layer2.0.downsample.0.weight[1]" in group.axes


def test_resnet50_has_a_stream_per_stage_and_two_inner_groups_per_block():
    groups = {name: each for name, each in grouping_of("resnet50").groups.items() if each.growable}
    assert groups["conv1"].layers == ("conv1",)
    streams = [each for each in groups.values() if len(each.layers) > 1]
    assert [(each.width, len(each.layers)) for each in streams] == [
        (256, 1 + 3),  # the shortcut's convolution, and the last of every block
        (512, 1 + 4),
        (1024, 1 + 6),
        (2048, 1 + 3),
    ]
    inner = [each for each in groups.values() if len(each.layers) == 1 and each.name != "conv1"]
    assert len(inner) == 2 * (3 + 4 + 6 + 3)
    for each in inner:
        # rows, BatchNorm's four, columns of the next convolution
        assert len(each.axes) == 6
        assert each.layers[0].endswith(("conv1", "conv2"))
    assert len(groups) == 1 + 4 + 32


def test_only_input_and_classes_of_resnet50_are_held():
    groups = grouping_of("resnet50").groups.values()
    assert [each.name for each in groups if not each.growable] == ["input", "fc"]


def test_option_a_stages_are_edges_around_one_another():
    grouping = grouping_of("cifar_resnet20_option_a")
    core, second, third = (grouping.layers[f"layer{n}.2.conv2"].groups for n in (1, 2, 3))
    assert len(core) == 1
    edge = next(iter(set(second) - set(core)))
    outer = next(iter(set(third) - set(second)))
    assert set(third) == {*core, edge, outer}
    assert [grouping.groups[name].width for name in (*core, edge, outer)] == [16, 16, 32]
    assert [grouping.groups[name].runs for name in (*core, edge, outer)] == [1, 2, 2]
    assert grouping.own_groups(grouping.layers["layer3.2.conv2"]) == (outer,)


def test_every_branch_of_googlenet_grows_by_itself():
    grouping = grouping_of("googlenet")
    for block in ("3a", "3b", "4a", "4b", "4c", "4d", "4e", "5a", "5b"):
        ends = [f"inception{block}.{end}.conv" for end in ("branch1", "branch2.1", "branch3.1")]
        ends.append(f"inception{block}.branch4.1.conv")
        for name in ends:
            assert grouping.groups[name].layers == (name,)
            assert grouping.groups[name].growable
