"""What a step of a spec did to the network, in words and numbers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from ckgrow.methods.method import Preserves


@dataclass(frozen=True)
class StepReport:
    """What one step does.

    ``widths`` are (before, after) by group, ``kernels`` the same by convolution, each a size per
    axis, ``added`` new layers and blocks, ``defect`` what
    inserted layers change for want of representable values, relative to what passes through them.
    """

    where: str
    summary: str
    method: str
    preserves: Preserves
    matched: tuple[str, ...]
    skipped: Mapping[str, str] = field(default_factory=dict)
    widths: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    kernels: Mapping[str, tuple[tuple[int, ...], tuple[int, ...]]] = field(default_factory=dict)
    added: tuple[str, ...] = ()
    defect: float = 0.0
    warnings: tuple[str, ...] = ()
