"""What is wrong with a growth spec, and in which words it is refused."""

import pytest

from ckgrow import spec
from ckgrow.errors import SpecError
from ckgrow.spec.messages import MOST_PROBLEMS

WIDEN = "steps:\n  - widen: conv1\n    factor: 2\n"
DEEPEN = "steps:\n  - deepen: layer3\n"
KERNEL = "steps:\n  - kernel: conv1\n    to: 5\n"
BRANCH = "steps:\n  - branch: conv1\n"
INPUTS = "steps:\n  - inputs: {by: 1}\n"
CLASSES = "steps:\n  - classes: {to: 12}\n"
TARGET = "steps:\n  - target: torchvision/resnet34\n"


def refusal(text):
    with pytest.raises(SpecError) as caught:
        spec.parse_text(text, "spec.yaml")
    return str(caught.value)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("3", "spec.yaml:1: the spec must be a mapping; got 3"),
        ("[a]", "the spec must be a mapping; got a list"),
        ("~", "the spec must be a mapping; got nothing"),
        ("seed: 1", "steps is missing"),
        ("seed: 1\nsteps:", "spec.yaml:2: steps has no value"),
        ("steps: []", "steps is empty; it needs at least one step"),
        ("steps: widen", "steps must be a list; got the text 'widen'"),
        ("version: 2\n" + WIDEN, "version 2 is not known; this ckgrow reads version 1"),
        ("version: true\n" + WIDEN, "version must be a whole number; got true"),
        ("version: 1.0\n" + WIDEN, "version must be a whole number; got 1.0"),
        (WIDEN + "seed: -1", "spec.yaml:4: seed must be at least 0; got -1"),
        (WIDEN + "seed: " + "9" * 99, "seed must be less than 9223372036854775808"),
        (WIDEN + "seeds: 1", "unknown key 'seeds' in the spec; did you mean 'seed'?"),
        (WIDEN + "verify: {samples: 0}", "verify.samples must be at least 1; got 0"),
        (WIDEN + "verify: {samples: 5000}", "verify.samples must be at most 4096; got 5000"),
        (WIDEN + "verify: {sample: 1}", "unknown key 'sample' in verify; did you mean 'samples'?"),
        (WIDEN + "verify: 3", "verify must be a mapping; got 3"),
        (WIDEN + "teacher: {architecture: 3}", "teacher.architecture must be text; got 3"),
        (WIDEN + "teacher: {options: x}", "teacher.options must be a mapping; got the text 'x'"),
        (
            WIDEN + "teacher:\n  options:\n    input: 3\n    activation:\n",
            "spec.yaml:7: teacher.options.activation has no value; give it one, or remove the key",
        ),
    ],
)
def test_what_is_wrong_with_a_file(text, said):
    assert said in refusal(text)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "steps: [x]",
            "spec.yaml:1: step 1 must be a mapping with a verb (widen, deepen, kernel, branch, "
            "inputs, classes, target); got the text 'x'",
        ),
        ("steps:\n- factor: 2", "step 1 has no verb; its keys are 'factor'; the verbs are widen"),
        ("steps: [{}]", "step 1 has no verb; its keys are none"),
        ("steps:\n- wident: a", "no verb but the unknown key 'wident'; did you mean 'widen'?"),
        ("steps:\n- width: 5\n  at: sum", "step 1 has no verb; its keys are 'width', 'at'; the"),
        ("steps:\n- class: {by: 1}", "unknown key 'class'; did you mean 'classes'?"),
        ("steps:\n- {widen: a, deepen: b}", "several verbs, 'widen' and 'deepen'; make a step of"),
        (
            "steps: [{widen: a, kernel: b, branch: c}]",
            "has several verbs, 'widen', 'kernel' and 'branch'; make a step of each",
        ),
        (WIDEN + "  - deepen: a\n    layer: 1", "spec.yaml:5: unknown key 'layer' in step 2; did"),
        (WIDEN.replace("factor", "facter"), "spec.yaml:3: unknown key 'facter' in step 1; did you"),
        (WIDEN + "    zzz: 1", "unknown key 'zzz' in step 1; known are widen, factor, to, by,"),
        (WIDEN + '    "\\e[31m": 1', r"unknown key '\x1b[31m' in step 1"),
        (WIDEN.replace(": 2", ": two"), "factor in step 1 must be a number; got the text 'two'"),
        (WIDEN.replace(": 2", ": '2'"), "factor in step 1 must be a number; got the text '2'"),
        (WIDEN.replace(": 2", ": true"), "factor in step 1 must be a number; got true"),
        (WIDEN.replace(": 2", ": [2]"), "factor in step 1 must be a number; got a list"),
        (WIDEN.replace(": 2", ":"), "factor in step 1 has no value; give it one, or remove"),
        (WIDEN.replace(": 2", ": 0"), "factor in step 1 must be greater than 0; got 0"),
        (WIDEN.replace(": 2", ": -1.5"), "factor in step 1 must be greater than 0; got -1.5"),
        (WIDEN.replace(": 2", ": 1e9"), "factor in step 1 must be at most 10000; got 1000000000.0"),
        (WIDEN.replace(": 2", ": .nan"), "spec.yaml:3: .nan is not a finite number"),
        (WIDEN.replace("factor", "to").replace("2", "1.5"), "to in step 1 must be a whole number"),
        (WIDEN.replace("factor", "by").replace("2", "0"), "by in step 1 must be at least 1; got 0"),
        (WIDEN.replace("factor: 2", "to: 99999999999"), "must be at most 2147483648; got 999999"),
        (WIDEN + "    to: 3", "step 1 has 'factor' and 'to', which exclude each other; keep one"),
        (WIDEN.replace("    factor: 2", ""), "needs one of 'factor', 'to', 'by' and 'groups'"),
        (WIDEN + "    groups: 3", "step 1 has 'factor' and 'groups', which exclude each other"),
        (WIDEN.replace("factor", "groups").replace("2", "0"), "groups in step 1 must be at least"),
        (WIDEN + "    multiple_of: 0", "multiple_of in step 1 must be at least 1; got 0"),
        (WIDEN + "    method: 3", "method in step 1 must be text; got 3"),
        (
            WIDEN + "    split: unequl",
            "spec.yaml:4: split in step 1 must be 'unequal', 'select', 'per-channel' or 'uniform'; "
            "got the text 'unequl'; did you mean 'unequal'?",
        ),
        (
            WIDEN + "    copies: no",
            "copies in step 1 must be 'even' or 'random'; got the text 'no'",
        ),
        (WIDEN + "    rescale: 1/2", "rescale in step 1 must be a number; got the text '1/2'"),
        (
            WIDEN + "    noise: zero-sum",
            "must be none, or a mapping such as {kind: zero-sum, scale",
        ),
        (WIDEN + "    noise:", "noise in step 1 has no value"),
        (
            WIDEN + "    noise: {scale: 1, snr_db: 9}",
            "noise in step 1 has 'scale' and 'snr_db', wh",
        ),
        (WIDEN + "    noise: {snr_db: 201}", "noise.snr_db in step 1 must be at most 200; got 201"),
        (
            WIDEN + "    noise: {snr_db: -81}",
            "noise.snr_db in step 1 must be at least -80; got -81",
        ),
        (
            WIDEN + "    noise: {snr: 9}",
            "unknown key 'snr' in noise in step 1; did you mean 'snr_d",
        ),
        (
            WIDEN + "    noise: {match: mean}",
            "must be 'std' or 'mean-and-std'; got the text 'mean'",
        ),
        (
            WIDEN + "    noise: {both: yes}",
            "noise.both in step 1 must be true or false; got the te",
        ),
        (WIDEN + "    placement: centre", "got the text 'centre'; did you mean 'center'?"),
        (WIDEN + "    fill: xaver", "got the text 'xaver'; did you mean 'xavier'?"),
        (WIDEN + "    scale: 0", "scale in step 1 must be greater than 0; got 0"),
        (WIDEN + "    scale: large", "scale in step 1 must be a number; got the text 'large'"),
        (WIDEN + "    zero: both", "zero in step 1 must be 'out' or 'in'; got the text 'both'"),
        (WIDEN + "    fallback: no", "must be 'symmetric' or 'random'; got the text 'no'"),
        (WIDEN + "    calibrate: 3", "calibrate in step 1 must be text; got 3"),
        (WIDEN + "    calibrat: x", "unknown key 'calibrat' in step 1; did you mean 'calibrate'?"),
        (
            WIDEN + "    noise: {kind: zero}",
            "noise.kind in step 1 must be 'zero-sum' or 'gaussian'",
        ),
        (
            WIDEN + "    noise:\n      kind: gaussian\n      scal: 1",
            "spec.yaml:6: unknown key 'scal'",
        ),
        (WIDEN + "    noise: {kind: gaussian, scale: 0}", "noise.scale in step 1 must be greater"),
        (DEEPEN + "    blocks: 1\n    layers: 1", "has 'layers' and 'blocks', which exclude"),
        (DEEPEN + "    at: end\n    after: 1", "has 'at' and 'after', which exclude each other"),
        (DEEPEN + "    layers: 1\n    after: 1", "has 'layers' and 'after', which exclude"),
        (DEEPEN + "    at: start", "at in step 1 must be 'end'; got the text 'start'"),
        (DEEPEN + "    after: 0", "after in step 1 must be at least 1; got 0"),
        (DEEPEN + "    blocks: 1000000", "blocks in step 1 must be at most 1000"),
        (DEEPEN + "    fill: hee", "got the text 'hee'; did you mean 'he'?"),
        (DEEPEN + "    factor: 2", "unknown key 'factor' in step 1; known are deepen, layers,"),
        (
            DEEPEN + "    activation: prelu",
            "must be 'none' or 'p-activation'; got the text 'prelu'",
        ),
        (DEEPEN + "    scale: 1e9", "scale in step 1 must be at most 10000; got 1000000000.0"),
        (DEEPEN + "    calibrate: [a]", "calibrate in step 1 must be text; got a list"),
        (DEEPEN + "    calibrate:", "calibrate in step 1 has no value"),
        (KERNEL.replace("    to: 5\n", ""), "spec.yaml:2: to in step 1 is missing"),
        (
            KERNEL.replace("5", "0"),
            "spec.yaml:3: to in step 1 must be a whole number from 1 to 255,",
        ),
        (KERNEL.replace("5", "257"), "or a list with one for each axis; got 257"),
        (KERNEL.replace("5", "5.0"), "or a list with one for each axis; got 5.0"),
        (KERNEL.replace("5", "5x5"), "or a list with one for each axis; got the text '5x5'"),
        (KERNEL.replace("5", "[3, true]"), "or a list with one for each axis; got true"),
        (KERNEL.replace("5", "[]"), "to in step 1 is empty; give one size, or one for each axis"),
        (KERNEL.replace("to", "too"), "unknown key 'too' in step 1; did you mean 'to'?"),
        (BRANCH + "    at: add", "at in step 1 must be 'sum' or 'concat'; got the text 'add'"),
        (BRANCH + "    width: 0", "width in step 1 must be at least 1; got 0"),
        (BRANCH + "    with: 4", "unknown key 'with' in step 1; did you mean 'width'?"),
        (BRANCH + "    method: [a]", "method in step 1 must be text; got a list"),
        (
            BRANCH + "    fill: one",
            "fill in step 1 must be 'match-std', 'he', 'xavier', 'zeros' or",
        ),
        (BRANCH.replace("conv1", "3"), "branch in step 1 must be text, or a list of texts; got 3"),
        (
            INPUTS.replace("{by: 1}", "1"),
            "inputs in step 1 must be a mapping such as {by: 1}; got 1",
        ),
        (INPUTS.replace("{by: 1}", "{}"), "inputs in step 1 needs one of 'by' and 'to'"),
        (INPUTS.replace("{by: 1}", ""), "inputs in step 1 has no value; give it one, or remove"),
        (INPUTS.replace("1}", "1, to: 4}"), "inputs in step 1 has 'by' and 'to', which exclude"),
        (INPUTS.replace("1}", "0}"), "inputs.by in step 1 must be at least 1; got 0"),
        (INPUTS.replace("by", "bye"), "unknown key 'bye' in inputs in step 1; did you mean 'by'?"),
        (INPUTS + "    fill: he", "unknown key 'fill' in step 1; known are inputs"),
        (CLASSES.replace("12", "1.5"), "classes.to in step 1 must be a whole number; got 1.5"),
        (CLASSES + "    fil: he", "unknown key 'fil' in step 1; did you mean 'fill'?"),
        (TARGET.replace("torchvision/resnet34", "34"), "target in step 1 must be text; got 34"),
        (
            TARGET + "    factor: 2",
            "unknown key 'factor' in step 1; known are target, widen, deepen",
        ),
        (
            TARGET + "    widen: [a, b]",
            "spec.yaml:3: widen in step 1 must be the name of a method, since the step has a "
            "target; got a list",
        ),
        (TARGET + "    kernel: a", "has several verbs, 'kernel' and 'target'; make a step of each"),
    ],
)
def test_what_is_wrong_with_a_step(text, said):
    assert said in refusal(text)


@pytest.mark.parametrize(
    ("pattern", "said"),
    [
        ("{a,b}", "widen in step 1 is a mapping, which YAML makes of '{a,b}'; quote the pattern"),
        ("[34]", "must be text, or a list of texts; got 34; quote the pattern"),
        ("[34].*", 'quote the pattern: widen: "[34].*"'),
        ("*conv", 'quote the pattern: widen: "*conv"'),
        ("3", "must be text, or a list of texts; got 3; quote the pattern"),
        ("[]", "names no layer"),
        ("''", "a pattern is empty"),
        ("'a[b'", "'a[b' has a '[' without its ']'"),
        ("[a, 'b{c']", "'b{c' has a '{' without its '}'"),
        ("", "widen in step 1 has no value"),
    ],
)
def test_what_is_wrong_with_a_pattern(pattern, said):
    message = refusal(WIDEN.replace("conv1", pattern))
    assert message.startswith("spec.yaml:2: ")
    assert said in message


def test_several_problems_are_listed_in_the_order_of_the_file():
    said = refusal(WIDEN.replace("2", "two") + "    splt: a\nverify: 1\nseed: x\n")
    lines = [line.split(": ")[0] for line in said.splitlines()]
    assert lines == ["spec.yaml:3", "spec.yaml:4", "spec.yaml:5", "spec.yaml:6"]


def test_many_problems_are_counted():
    said = refusal("steps:\n" + "- x\n" * 100).splitlines()
    assert len(said) == MOST_PROBLEMS + 1
    assert said[-1] == "... and 95 more problems"


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"steps": [{"widen": "a", "factor": float("inf")}]}, "spec: factor in step 1 must be"),
        ({"steps": [{"widen": "a", "factor": float("nan")}]}, "must be a finite number; got nan"),
        ({"steps": [{"widen": "a", "factor": 10**5000}]}, "got a number of more than 20 digits"),
        ({"steps": [{"widen": "a", "factor": 1 + 2j}]}, "got a Python complex"),
        ({3: 4}, "is a key that is not text"),
        ({"steps": [{3: 4}]}, "step 1 has no verb; its keys are '3'; the verbs are widen,"),
        ({"steps": [{"inputs": {"by": 1}, 3: 4}]}, "3 in step 1 is a key that is not text"),
        ({"steps": [{"kernel": "a", "to": {3}}]}, "for each axis; got a Python set"),
        ({"teacher": {"options": {"a": [float("nan")]}}}, "teacher.options.a.0 must be a value"),
        ({"teacher": {"options": {"a": {1: 2}}}}, "teacher.options.a has a key that is not text"),
        ({"teacher": {"options": {"a": {1, 2}}}}, "got a Python set"),
    ],
)
def test_what_only_python_can_get_wrong(given, said):
    with pytest.raises(SpecError) as caught:
        spec.from_dict(given)
    assert said in str(caught.value)


def test_options_that_hold_themselves_are_refused():
    options = {}
    options["again"] = options
    with pytest.raises(SpecError, match="nested more than 32 deep"):
        spec.from_dict({"teacher": {"options": options}, "steps": [{"deepen": "a"}]})
