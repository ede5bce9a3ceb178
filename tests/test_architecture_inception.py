from __future__ import annotations

import pytest
import torch
import torchvision
from architecture_oracles import (
    assert_close,
    assert_complete,
    evaluate,
    header_of,
    images,
    randomized,
    reshaped,
    without,
)
from torch import nn
from torchvision.models.googlenet import BasicConv2d, Inception, InceptionAux
from torchvision.models.inception import InceptionA, InceptionB, InceptionC, InceptionD

from ckgrow.coupling import couple
from ckgrow.errors import SpecError
from ckgrow.header import Header
from ckgrow.registry import architectures

INCEPTION = architectures()["inception"]


def googlenet(**arguments) -> nn.Module:
    return torchvision.models.GoogLeNet(num_classes=12, init_weights=False, **arguments)


def inception_v3(**arguments) -> nn.Module:
    return torchvision.models.Inception3(num_classes=12, init_weights=False, **arguments)


def on_meta(constructor, **arguments) -> Header:
    with torch.device("meta"):
        return header_of(constructor(**arguments).state_dict())


def widened_googlenet() -> nn.Module:
    """torchvision's own modules at widths that no constructor makes."""
    model = googlenet()
    model.conv3 = BasicConv2d(64, 50, kernel_size=3, padding=1)
    arriving = 50
    for number, name in enumerate(("3a", "3b", "4a", "4b", "4c", "4d", "4e", "5a", "5b")):
        widths = [5 + number, 7, 9 + 2 * number, 4, 6 + number, 3]
        setattr(model, f"inception{name}", Inception(arriving, *widths))
        arriving = widths[0] + widths[2] + widths[4] + widths[5]
        if name in ("4a", "4d"):
            head = InceptionAux(arriving, 12)
            head.fc1, head.fc2 = nn.Linear(2048, 77), nn.Linear(77, 12)
            setattr(model, "aux1" if name == "4a" else "aux2", head)
    model.fc = nn.Linear(arriving, 12)
    return model


def widened_inception_v3() -> nn.Module:
    model = inception_v3(aux_logits=False)
    model.Mixed_5b = InceptionA(192, pool_features=11)
    model.Mixed_5c = InceptionA(224 + 11, pool_features=50)
    model.Mixed_5d = InceptionA(224 + 50, pool_features=13)
    model.Mixed_6a = InceptionB(224 + 13)
    arriving = 384 + 96 + 237
    model.Mixed_6b = InceptionC(arriving, channels_7x7=21)
    model.Mixed_7a = InceptionD(768)
    return model


class DigitsInception(nn.Module):
    """A small network of GoogLeNet's blocks, as the shipped teacher has it."""

    def __init__(self):
        super().__init__()
        self.conv1 = BasicConv2d(1, 16, kernel_size=3, padding=1)
        self.inception3a = Inception(16, 8, 8, 12, 4, 6, 5)
        self.inception3b = Inception(31, 9, 8, 12, 4, 6, 5)
        self.inception4a = Inception(32, 10, 8, 12, 4, 7, 5)
        self.fc = nn.Linear(34, 10)

    def forward(self, x):
        x = self.inception3b(self.inception3a(self.conv1(x)))
        x = self.inception4a(nn.functional.max_pool2d(x, 2))
        return self.fc(x.mean(dim=(2, 3)))


def assert_computes(model, size, **options):
    """Every output, auxiliary heads included, against the model's own forward."""
    model = randomized(model)
    model.training = True  # with all submodules in eval mode: only then do the heads run
    state = model.state_dict()
    header = header_of(state)
    assert_complete(INCEPTION, header)
    network = INCEPTION.build(header, {"input": list(size), **options})
    x = images(2, size)
    with torch.no_grad():
        made = model(x)
    theirs = made._asdict() if isinstance(made, tuple) else {"logits": made}
    names = {"aux_logits1": "aux1", "aux_logits2": "aux2", "aux_logits": "aux"}
    expected = {names.get(name, name): value for name, value in theirs.items() if value is not None}
    ours = evaluate(network.graph, state, x)
    assert set(ours) == set(expected)
    for name, value in expected.items():
        assert_close(ours[name], value)
    assert set(network.passthrough) == {name for name in state if "num_batches" in name}
    return network


# The graph computes what the model does


@pytest.mark.parametrize("aux", [True, False])
@pytest.mark.parametrize("size", [(3, 97, 130), (3, 64, 64)])
def test_googlenet_forward(aux, size):
    """Sizes at which ceil_mode and overlapping adaptive windows matter, and where they do not."""
    network = assert_computes(googlenet(aux_logits=aux), size)
    assert network.graph.outputs == (("logits", "aux1", "aux2") if aux else ("logits",))


def test_googlenet_of_any_widths():
    assert_computes(widened_googlenet(), (3, 97, 97))


@pytest.mark.parametrize(
    "model", [googlenet, lambda **each: inception_v3(aux_logits=False, **each)]
)
def test_transform_input(model):
    network = assert_computes(model(transform_input=True), (3, 96, 80), transform_input=True)
    (fact,) = [fact for fact in network.assumptions if fact.fact == "transform_input"]
    assert (fact.value, fact.source) == ("true", "spec")


def test_inception_v3_forward():
    assert_computes(inception_v3(aux_logits=False), (3, 96, 107))


def test_inception_v3_of_any_widths():
    assert_computes(widened_inception_v3(), (3, 90, 90))


def test_inception_v3_with_its_auxiliary_head():
    network = assert_computes(inception_v3(), (3, 299, 299))
    assert network.graph.outputs == ("logits", "aux")


def test_small_network_forward():
    network = assert_computes(DigitsInception(), (1, 8, 8))
    assert all(fact.source == "architecture" for fact in network.assumptions[1:])


def test_epsilon_is_read_from_the_options():
    model = DigitsInception()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eps = 0.1
    assert_computes(model, (1, 8, 8), epsilon=0.1)


# What is recognised, and as what


@pytest.mark.parametrize(
    ("constructor", "phrase"),
    [(googlenet, "torchvision's googlenet"), (inception_v3, "torchvision's inception_v3")],
)
@pytest.mark.parametrize("aux", [True, False])
def test_torchvision_headers(constructor, phrase, aux):
    header = on_meta(constructor, aux_logits=aux)
    assert_complete(INCEPTION, header)
    network = INCEPTION.build(header, {})
    assert set(network.graph.parameters()) | set(network.passthrough) == set(header)
    assert all(fact.source == "architecture" for fact in network.assumptions)
    assert INCEPTION.stock(header) == f"{phrase} with num_classes=12 and aux_logits={aux}"
    assert INCEPTION.stages(network.graph) == ()


def test_usual_inputs():
    for constructor, size in ((googlenet, (3, 224, 224)), (inception_v3, (3, 299, 299))):
        graph = INCEPTION.build(on_meta(constructor), {}).graph
        assert graph.inputs == {"input": ("N", *size)}
    assert INCEPTION.build(on_meta(DigitsInception), {}).graph.inputs == {"input": ("N", 1, 8, 8)}


GOOGLENET = on_meta(googlenet)
INCEPTION_V3 = on_meta(inception_v3)
SMALL = on_meta(DigitsInception)


@pytest.mark.parametrize(
    "header",
    [
        SMALL,
        on_meta(widened_googlenet),
        on_meta(widened_inception_v3),
        reshaped(GOOGLENET, "inception3a.branch3.1.conv.weight", (32, 16, 5, 5)),
        reshaped(GOOGLENET, "aux1.fc2.weight", (13, 1024)),
        reshaped(GOOGLENET, "aux1.fc1.weight", (1025, 2048)),
        reshaped(INCEPTION_V3, "Mixed_6b.branch1x1.conv.weight", (193, 768, 1, 1)),
        reshaped(INCEPTION_V3, "Conv2d_1a_3x3.conv.bias", (32,)),
        without(INCEPTION_V3, "fc.bias"),
        Header({name: GOOGLENET[name] for name in GOOGLENET if not name.startswith("aux2.")}),
    ],
)
def test_no_stock_class(header):
    assert INCEPTION.stock(header) is None


@pytest.mark.parametrize(
    ("header", "groups"),
    [(GOOGLENET, 57 + 2 + 2), (INCEPTION_V3, 94 + 2), (SMALL, 1 + 3 * 6)],
)
def test_every_unit_is_a_group_of_its_own(header, groups):
    """No sums: one group per convolution, and one per hidden layer of a head."""
    coupled = couple(INCEPTION.build(header, {}).graph, header)
    assert len(coupled.counts.keys() - coupled.fixed.keys()) == groups


# What does not fit


@pytest.mark.parametrize(
    ("header", "problem"),
    [
        (
            reshaped(GOOGLENET, "inception3b.branch1.conv.weight", (128, 255, 1, 1)),
            "inception3b.branch1.conv.weight has 255 input channels, but 256 arrive",
        ),
        (
            reshaped(GOOGLENET, "aux1.fc1.weight", (1024, 1152)),
            "aux1.fc1.weight has 1152 inputs, but 2048 arrive",
        ),
        (
            reshaped(INCEPTION_V3, "Mixed_7c.branch3x3_2b.bn.weight", (383,)),
            "Mixed_7c.branch3x3_2b.bn.weight has 383 entries for 384 channels",
        ),
    ],
)
def test_shapes_that_do_not_fit(header, problem):
    explanation = INCEPTION.explain(header)
    assert problem in explanation.problems
    assert not explanation.complete


@pytest.mark.parametrize(
    ("header", "block"),
    [
        (GOOGLENET, "inception4c"),  # as wide as its neighbours: the shapes alone would fit
        (GOOGLENET, "inception5b"),
        (GOOGLENET, "conv2"),
        (SMALL, "inception3a"),
        (INCEPTION_V3, "Mixed_6c"),
    ],
)
def test_a_missing_block_is_named(header, block):
    rest = Header({name: header[name] for name in header if not name.startswith(f"{block}.")})
    explanation = INCEPTION.explain(rest)
    assert {name.split(".")[0] for name in explanation.missing} == {block}
    assert explanation.unexplained == ()
    assert not explanation.complete


@pytest.mark.parametrize(
    ("header", "name"),
    [
        (GOOGLENET, "inception3c.branch1.conv.weight"),
        (GOOGLENET, "AuxLogits.fc.weight"),
        (SMALL, "aux1.conv.conv.weight"),
        (SMALL, "inception3a.branch5.conv.weight"),
        (INCEPTION_V3, "Mixed_8a.branch1x1.conv.weight"),
        (INCEPTION_V3, ""),
    ],
)
def test_keys_without_a_place(header, name):
    explanation = INCEPTION.explain(reshaped(header, name, (8, 8, 1, 1)))
    assert explanation.unexplained == (name,)


def test_nothing_is_not_an_inception_network():
    assert not INCEPTION.explain(Header({})).complete


@pytest.mark.parametrize(
    ("header", "options", "problem"),
    [
        (GOOGLENET, {"transform_input": "yes"}, "it must be true or false"),
        (GOOGLENET, {"aux": True}, "there is no option 'aux'"),
        (SMALL, {"transform_input": True}, "the first layer reads 1 channels"),
        (INCEPTION_V3, {"input": [3, 75, 75]}, "option 'input' [3, 75, 75]: "),
    ],
)
def test_options_that_are_refused(header, options, problem):
    with pytest.raises(SpecError) as caught:
        INCEPTION.build(header, options)
    assert problem in str(caught.value)
