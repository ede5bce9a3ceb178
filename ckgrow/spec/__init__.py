"""The growth spec: read from YAML or a mapping, checked, and told what is wrong by line."""

from ckgrow.spec.language import (
    VERBS,
    VERSION,
    DeepenStep,
    Noise,
    Spec,
    Step,
    Teacher,
    Verify,
    WidenStep,
    canonical,
    from_dict,
    json_schema,
    parse,
    parse_text,
    verb_of,
)

__all__ = [
    "VERBS",
    "VERSION",
    "DeepenStep",
    "Noise",
    "Spec",
    "Step",
    "Teacher",
    "Verify",
    "WidenStep",
    "canonical",
    "from_dict",
    "json_schema",
    "parse",
    "parse_text",
    "verb_of",
]
