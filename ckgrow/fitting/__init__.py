"""Puts a student into a stock module, so that it can be trained where the teacher was.

A student of unusual widths or depth fits no constructor. ``load_into`` takes the teacher's module
and changes it until it has exactly the student's tensors: numbered containers get the new layers
and blocks, other grown layers run through a forward hook or on a block's shortcut, tensors and
the attributes that follow them are set. Then the module's own forward is compared with the
student's graph.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from ckgrow.errors import SpecError
from ckgrow.header import common_prefix
from ckgrow.loading import Loaded, Tensors, Wish, load

if TYPE_CHECKING:
    from torch import nn

Module = TypeVar("Module", bound="nn.Module")


def load_into(
    module: Module,
    student: str | Path | Tensors,
    *,
    architecture: str | None = None,
    options: Mapping[str, Any] | None = None,
    weights: str | None = None,
    check: bool = True,
) -> Module:
    """Makes ``module`` the student, in place, and returns it.

    ``module`` is of the class the teacher was trained in, at any width; ``student`` a path or
    tensors by name. ``architecture``, ``options`` and ``weights`` are as for ``inspect``, needed
    only where the student's own metadata is missing. Wrapper prefixes (``module.``,
    ``_orig_mod.``) of either side are seen through.

    Tensors take the student's dtype and stay on the module's device. Parameters remain the same
    objects, with their ``requires_grad``; gradients of those that changed are dropped, so an
    optimizer that has taken a step must be built anew. Hooks and training mode stay as they are.

    With ``check``, the module's output on a small random batch, in eval mode, must be that of the
    student's graph in float64. Without it a forward with widths in its code is not found out:
    the module has the student's tensors and may fail, or compute something else, when it runs.

    Raises CheckpointError (or another CkgrowError) when the student does not fit, or when the
    forward does not follow its tensors; the module is then as it was.
    """
    from torch import nn

    from ckgrow.fitting.snapshot import Snapshot

    if not isinstance(module, nn.Module):
        raise SpecError(f"load_into needs a torch.nn.Module, not a {type(module).__name__}")
    with load(student, Wish(architecture, options or {}, weights)) as loaded:
        snapshot = Snapshot(module)
        try:
            _fit(module, loaded, check)
        except BaseException:
            snapshot.restore()
            raise
    return module


def _fit(module: nn.Module, student: Loaded, check: bool) -> None:
    from ckgrow.fitting.agreement import check_forward
    from ckgrow.fitting.grown import insert_grown_layers
    from ckgrow.fitting.numbered import renumber
    from ckgrow.fitting.residual import insert_grown_blocks
    from ckgrow.fitting.shortcuts import insert_on_shortcuts
    from ckgrow.fitting.tensors import set_tensors

    wrapper = common_prefix(module.state_dict())
    inner = module.get_submodule(wrapper.rstrip("."))
    own = set(inner.modules())
    renumber(inner, student)
    insert_on_shortcuts(inner, student)
    insert_grown_layers(inner, student)
    insert_grown_blocks(inner, student)
    for each in set(inner.modules()) - own:
        each.training = inner.training
    set_tensors(inner, student)
    if check:
        check_forward(module, student)
