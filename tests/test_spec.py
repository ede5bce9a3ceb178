"""The growth spec: what is read from a file or a mapping, and the page that explains it."""

import re
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
from pydantic import ValidationError

import ckgrow
from ckgrow import spec
from ckgrow.errors import FileError, SpecError
from ckgrow.methods import methods

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "spec.md").read_text(encoding="utf-8")
WIDEN = "steps:\n  - widen: conv1\n    factor: 2\n"
DEEPEN = "steps:\n  - deepen: layer3\n"
KERNEL = "steps:\n  - kernel: conv1\n    to: 5\n"
BRANCH = "steps:\n  - branch: conv1\n"
INPUTS = "steps:\n  - inputs: {by: 1}\n"
CLASSES = "steps:\n  - classes: {to: 12}\n"
TARGET = "steps:\n  - target: torchvision/resnet34\n"


def only_step(text):
    (step,) = spec.parse_text(text).steps
    return step


def test_defaults():
    read = spec.parse_text(WIDEN)
    assert (read.version, read.seed, read.verify.samples) == (1, 0, 16)
    assert (read.teacher.architecture, read.teacher.options) == (None, {})
    (step,) = read.steps
    assert isinstance(step, spec.WidenStep)
    assert step.widen == ("conv1",)
    assert (step.factor, step.to, step.by, step.multiple_of) == (2.0, None, None, None)
    assert (step.method, step.split, step.copies) == ("net2wider", "unequal", "even")
    assert (step.noise, step.rescale, step.placement) == (None, None, None)
    assert (step.fill, step.scale, step.zero, step.fallback) == ("match-std", 1, "out", "symmetric")


def test_defaults_of_deepen():
    step = only_step(DEEPEN)
    assert isinstance(step, spec.DeepenStep)
    assert step.deepen == ("layer3",)
    assert (step.layers, step.blocks, step.after, step.at) == (None, None, None, "end")
    assert (step.method, step.fill, step.scale) == (None, "match-std", 1)
    assert (step.activation, step.calibrate) == ("none", None)


def test_defaults_of_the_other_verbs():
    kernel, branch, inputs, classes, target = (
        only_step(text) for text in (KERNEL, BRANCH, INPUTS, CLASSES, TARGET)
    )
    assert (kernel.kernel, kernel.to) == (("conv1",), 5)
    assert (branch.branch, branch.at, branch.width) == (("conv1",), "sum", None)
    assert (branch.method, branch.fill) == ("netmorph", "match-std")
    assert (inputs.inputs.by, inputs.inputs.to) == (1, None)
    assert (classes.classes.by, classes.classes.to, classes.fill) == (None, 12, "match-std")
    assert (target.target, target.widen) == ("torchvision/resnet34", "net2wider")
    assert target.deepen is None


def test_a_step_has_one_verb_and_keys_of_target_are_none():
    step = only_step(TARGET + "    widen: r2wider\n    deepen: zero-init\n")
    assert isinstance(step, spec.TargetStep)
    assert (step.widen, step.deepen) == ("r2wider", "zero-init")
    assert [spec.verb_of({verb: 0}) for verb in spec.VERBS] == list(spec.VERBS)
    assert [spec.verb_of(only_step(text)) for text in (WIDEN, TARGET)] == ["widen", "target"]
    assert spec.verb_of({"widen": 0, "kernel": 0}) is None
    assert spec.verb_of({3: 0, ("widen",): 0, None: 0}) is None
    assert spec.verb_of([["widen"]]) is spec.verb_of(None) is spec.verb_of("widen") is None


def test_a_prefix_is_taken_off_names_of_layers_only():
    for text in (WIDEN, DEEPEN, KERNEL, BRANCH):
        step = only_step(re.sub("conv1|layer3", "[module.a, a]", text)).without_prefix("module.")
        assert getattr(step, step.verb) == ("a", "a")
    for text in (INPUTS, CLASSES, TARGET):
        step = only_step(text)
        assert step.without_prefix("torch") is step


def test_a_kernel_has_one_size_or_one_for_each_axis():
    assert only_step(KERNEL.replace("5", "[1, 7]")).to == (1, 7)
    assert only_step(KERNEL.replace("5", "[7]")).to == (7,)


def test_everything_given():
    read = spec.parse_text(
        """
        version: 1
        seed: 7
        teacher:
          architecture: convnet
          options: {input: [3, 224, 224], pool: {conv1: max 2}, bias: true, epsilon: 1e-3}
        steps:
          - widen: ["conv*", fc1]
            by: 16
            multiple_of: 8
            split: per-channel
            copies: random
            noise: {kind: gaussian, scale: 0.1}
            rescale: 0.5
          - {deepen: layer3, blocks: 2, after: 1, method: zero-init, fill: he}
        verify: {samples: 4}
        """
    )
    assert read.seed == 7
    assert read.teacher.options == {
        "input": [3, 224, 224],
        "pool": {"conv1": "max 2"},
        "bias": True,
        "epsilon": 0.001,
    }
    widen, deepen = read.steps
    assert widen.widen == ("conv*", "fc1")
    assert widen.noise == spec.Noise(kind="gaussian", scale=0.1)
    assert (deepen.blocks, deepen.after, deepen.method, deepen.fill) == (2, 1, "zero-init", "he")


@pytest.mark.parametrize(
    ("text", "noise", "stated"),
    [
        ("", None, False),
        ("    noise: none", None, True),
        ("    noise: {}", spec.Noise(), True),
        ("    noise: {kind: zero-sum}", spec.Noise(kind="zero-sum"), True),
        ("    noise: {snr_db: 10}", spec.Noise(snr_db=10.0), True),
        ("    noise: {both: true}", spec.Noise(both=True), True),
    ],
)
def test_no_noise_differs_from_noise_that_is_not_stated(text, noise, stated):
    """Methods have noise of their own, which a step may switch off."""
    step = only_step(WIDEN + text)
    assert (step.noise, step.states("noise")) == (noise, stated)
    again = spec.from_dict(spec.canonical(spec.parse_text(WIDEN + text))).steps[0]
    assert (again.noise, again.states("noise")) == (noise, stated)


def test_a_step_knows_where_it_stands():
    read = spec.parse_text(WIDEN + "  # a comment\n  - deepen: fc\n", "my.yaml")
    assert [step.where for step in read.steps] == ["my.yaml:2", "my.yaml:5"]
    read = spec.from_dict(spec.canonical(read))
    assert [step.where for step in read.steps] == ["step 1", "step 2"]


def test_a_spec_cannot_be_changed():
    read = spec.parse_text(WIDEN)
    with pytest.raises(ValidationError, match="frozen"):
        read.steps[0].factor = 3.0


def test_a_file_is_read(tmp_path):
    path = tmp_path / "grow.yaml"
    path.write_text(WIDEN, encoding="utf-8")
    (step,) = spec.parse(path).steps
    assert (step.where, step.folder) == (f"{path}:2", tmp_path)
    again = step.without_prefix("conv")
    assert (again.widen, again.where, again.folder) == (("1",), step.where, step.folder)
    with pytest.raises(FileError, match="cannot be read"):
        spec.parse(tmp_path / "missing.yaml")


def test_reading_a_spec_imports_nothing_heavy():
    program = "import ckgrow.spec, sys; print({'torch', 'numpy', 'onnx'} & set(sys.modules))"
    run = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert run.stdout.strip() == "set()"


def code_blocks(language):
    return [
        textwrap.dedent(block)
        for block in re.findall(rf"^```{language}\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    ]


def teacher_of(example):
    """The file, or the weights of a stock module, that the first line of an example names."""
    place = Path(re.match(r"# for (\S+)\n", example)[1])
    if place.suffix:
        return ROOT / place
    torchvision = pytest.importorskip(place.parts[0])
    return torchvision.models.get_model(place.name).state_dict()


@pytest.mark.parametrize("example", code_blocks("yaml"))
def test_every_example_of_the_page_can_be_done(example, tmp_path):
    path = tmp_path / "spec.yaml"
    path.write_text(example, encoding="utf-8")
    np.savez(tmp_path / "inputs.npz", np.zeros((64, 1, 8, 8), np.float32))  # for `calibrate`
    planned = ckgrow.plan(teacher_of(example), path)
    assert len(planned.steps) == len(spec.parse(path).steps)


@pytest.mark.parametrize("example", code_blocks("python"))
def test_every_program_of_the_page_runs(example):
    exec(example, {})


def test_the_page_explains_every_key():
    schema = spec.json_schema()
    for model in (*schema["$defs"].values(), schema):
        for key in model["properties"]:
            assert f"`{key}`" in PAGE or f"`{key}:" in PAGE, key


@pytest.mark.parametrize(("heading", "verb"), [("Widening", "widen"), ("Deepening", "deepen")])
def test_the_page_names_the_keys_of_every_method(heading, verb):
    section = re.search(rf"^## {heading}\n(.*?)^## ", PAGE, re.MULTILINE | re.DOTALL)[1]
    table = re.search(r"^\| method \| keys of its own.*?\n\n", section, re.MULTILINE | re.DOTALL)[0]
    stated = {
        name: set(re.findall("`(.*?)`", keys))
        for name, keys in re.findall(r"^\| `(.*?)` \| (.*) \|$", table, re.MULTILINE)
    }
    known = {}
    for method in methods():
        if method.verb.startswith(verb):
            known.setdefault(method.name, set()).update(method.options)
    assert stated == known


def test_the_message_on_the_page_is_the_one_given():
    with pytest.raises(SpecError) as caught:
        spec.parse_text(WIDEN.replace("factor", "facter"), "spec.yaml")
    assert str(caught.value) in PAGE
