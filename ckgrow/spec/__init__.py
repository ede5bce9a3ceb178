"""The growth spec: read from YAML or a mapping, checked, and told what is wrong by line."""

from ckgrow.spec.language import (
    VERSION,
    Spec,
    Teacher,
    Verify,
    canonical,
    from_dict,
    json_schema,
    parse,
    parse_text,
)
from ckgrow.spec.noise import DEFAULT_SCALE, Noise
from ckgrow.spec.section import Fill
from ckgrow.spec.steps import (
    VERBS,
    BranchStep,
    ClassesStep,
    DeepenStep,
    InputsStep,
    KernelStep,
    Step,
    TargetStep,
    WidenStep,
    verb_of,
)

__all__ = [
    "DEFAULT_SCALE",
    "VERBS",
    "VERSION",
    "BranchStep",
    "ClassesStep",
    "DeepenStep",
    "Fill",
    "InputsStep",
    "KernelStep",
    "Noise",
    "Spec",
    "Step",
    "TargetStep",
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
