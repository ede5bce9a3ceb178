"""What the tests of targets share: published modules by name, plans of their bare headers."""

from __future__ import annotations

import functools

import pytest
import torchvision
from architecture_oracles import header_of
from student_oracles import on_meta

from ckgrow import spec
from ckgrow.loading import Loaded
from ckgrow.memory import MemoryReader
from ckgrow.planning import make_plan
from ckgrow.registry import architectures


def published(name, **options):
    """The module that ``torchvision/...`` or ``timm/...`` names."""
    library, _, model = name.partition("/")
    if library == "timm":
        timm = pytest.importorskip("timm", reason="timm is an optional oracle")
        return on_meta(timm.create_model, model, **options)
    if model in ("googlenet", "inception_v3"):
        options["init_weights"] = False
    return on_meta(getattr(torchvision.models, model), **options)


def planned(state, *steps, **options):
    """The plan for the header of a state; no tensor is needed."""
    header = header_of(state)
    (adapter,) = (each for each in architectures().values() if each.explain(header).complete)
    network = adapter.build(header, options)
    teacher = Loaded("test", None, MemoryReader({}), "", header, adapter, network, None)
    return make_plan(teacher, spec.from_dict({"steps": list(steps)}))


@functools.cache
def stock(name):
    """The tensors of one of torchvision's models, as names and shapes."""
    return published(f"torchvision/{name}").state_dict()
