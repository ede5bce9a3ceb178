"""The other forms of a growth spec, its JSON and its JSON Schema, for specs of every kind."""

import json
from itertools import chain, combinations

import jsonschema
import pytest
from hypothesis import Phase, find, given, settings
from hypothesis import strategies as st

from ckgrow import spec
from ckgrow.errors import SpecError

VALIDATOR = jsonschema.Draft202012Validator(spec.json_schema())
UNSHRUNK = settings(phases=[Phase.generate], database=None)

NAMES = st.sampled_from(["a", "layer*.conv[12]", "{a,b}"])
PATTERNS = NAMES | st.lists(NAMES, min_size=1, max_size=2)
METHODS = st.sampled_from(["net2wider", "r2wider", "zero-init"])
FILLS = st.sampled_from(["match-std", "he", "xavier", "zeros", "copy"])
RATIOS = st.floats(0.1, 10) | st.integers(1, 10_000)
COUNTS = st.integers(1, 1000)
PATHS = st.sampled_from(["inputs.npz", "a folder/é.npz"])


def mappings(required, *choices, **optional):
    """Mappings with all the required keys, the keys of one choice, and any of the optional ones."""
    several = [st.fixed_dictionaries(required | each, optional=optional) for each in choices]
    return st.one_of(several or [st.fixed_dictionaries(required, optional=optional)])


noises = mappings(
    {},
    {},
    {"scale": RATIOS},
    {"snr_db": st.floats(-80, 200)},
    kind=st.sampled_from(["zero-sum", "gaussian"]),
    match=st.sampled_from(["std", "mean-and-std"]),
    both=st.booleans(),
)
amounts = mappings({}, {"by": COUNTS}, {"to": COUNTS})
STEPS = {
    "widen": mappings(
        {"widen": PATTERNS},
        {"factor": RATIOS},
        {"to": COUNTS},
        {"by": COUNTS},
        {"groups": COUNTS},
        multiple_of=COUNTS,
        method=METHODS,
        placement=st.sampled_from(["end", "center", "interleave"]),
        split=st.sampled_from(["unequal", "select", "per-channel", "uniform"]),
        copies=st.sampled_from(["even", "random"]),
        noise=st.just("none") | noises,
        rescale=RATIOS,
        fill=FILLS,
        scale=RATIOS,
        zero=st.sampled_from(["in", "out"]),
        fallback=st.sampled_from(["symmetric", "random"]),
        calibrate=PATHS,
    ),
    "deepen": mappings(
        {"deepen": PATTERNS},
        {},
        {"layers": COUNTS},
        {"blocks": COUNTS},
        {"blocks": COUNTS, "after": COUNTS},
        {"at": st.just("end")},
        method=METHODS,
        fill=FILLS,
        scale=RATIOS,
        activation=st.sampled_from(["none", "p-activation"]),
        calibrate=PATHS,
    ),
    "kernel": mappings(
        {
            "kernel": PATTERNS,
            "to": st.integers(1, 255) | st.lists(st.integers(1, 255), min_size=1, max_size=3),
        }
    ),
    "branch": mappings(
        {"branch": PATTERNS},
        at=st.sampled_from(["sum", "concat"]),
        width=COUNTS,
        method=METHODS,
        fill=FILLS,
    ),
    "inputs": mappings({"inputs": amounts}),
    "classes": mappings({"classes": amounts}, fill=FILLS),
    "target": mappings({"target": st.just("timm/resnet152")}, widen=METHODS, deepen=METHODS),
}
specs = mappings(
    {"steps": st.lists(st.one_of(list(STEPS.values())), min_size=1, max_size=3)},
    seed=st.integers(0, 2**63 - 1),
    teacher=st.just({"options": {"a": [1, "b"]}}),
)


def one_of_each(mappings, model):
    """A value for every key that the model has; an error where no mapping is tried with it."""
    return {
        key: find(mappings, lambda each, key=key: key in each, settings=UNSHRUNK)[key]
        for key in model.model_fields
    }


def up_to(most, keys):
    return chain.from_iterable(combinations(keys, count) for count in range(most + 1))


@given(specs)
def test_the_canonical_form_is_json_and_means_the_same(given_spec):
    first = spec.from_dict(given_spec)
    canonical = spec.canonical(first)
    again = spec.from_dict(json.loads(json.dumps(canonical)))
    assert spec.canonical(again) == canonical
    for one, other in zip(first.steps, again.steps, strict=True):
        assert dict(one) == dict(other)
        assert one.states("noise") == other.states("noise")


@given(specs)
def test_the_json_schema_takes_every_spec_and_its_canonical_form(given_spec):
    VALIDATOR.validate(given_spec)
    VALIDATOR.validate(spec.canonical(spec.from_dict(given_spec)))


def steps_with_any_keys():
    """Three keys of every verb at most, and all that may stand in the mappings inside a step."""
    for verb, model in spec.VERBS.items():
        values = one_of_each(STEPS[verb], model)
        for keys in up_to(3, values):
            yield {key: values[key] for key in keys}
    values = one_of_each(noises, spec.Noise)
    for keys in up_to(5, values):
        yield {"widen": "a", "factor": 2, "noise": {key: values[key] for key in keys}}
    for keys in up_to(2, ("by", "to")):
        yield {"inputs": dict.fromkeys(keys, 3)}


def test_the_json_schema_refuses_what_is_refused():
    taken = 0
    for step in steps_with_any_keys():
        document = {"steps": [step]}
        try:
            spec.from_dict(document)
        except SpecError:
            assert not VALIDATOR.is_valid(document), step
        else:
            assert VALIDATOR.is_valid(document), step
            taken += 1
    assert taken > 100


@pytest.mark.parametrize("defaults", ["", ", split: unequal, scale: 1, method: net2wider"])
def test_the_canonical_form_holds_the_defaults_of_the_file_and_none_of_steps(defaults):
    text = f"steps: [{{widen: conv1, factor: 2{defaults}}}]"
    assert spec.canonical(spec.parse_text(text)) == {
        "version": 1,
        "seed": 0,
        "teacher": {"options": {}},
        "steps": [{"widen": ["conv1"], "factor": 2.0, "method": "net2wider"}],
        "verify": {"samples": 16},
    }


def test_the_json_schema_knows_every_key_and_no_null():
    schema = spec.json_schema()
    assert schema["$schema"].endswith("2020-12/schema")
    assert schema["required"] == ["steps"]
    assert schema["properties"]["version"]["const"] == 1
    widen = schema["$defs"]["WidenStep"]
    assert widen["additionalProperties"] is False
    assert widen["oneOf"] == [{"required": [size]} for size in ("factor", "to", "by", "groups")]
    assert widen["properties"]["factor"]["type"] == "number"
    assert widen["properties"]["noise"]["anyOf"][0] == {"const": "none"}
    assert "default" not in widen["properties"]["noise"]
    assert widen["properties"]["widen"]["anyOf"][0]["type"] == "string"
    for model in (*schema["$defs"].values(), schema):
        assert all("description" in field for field in model["properties"].values())
    assert "null" not in json.dumps(schema)
