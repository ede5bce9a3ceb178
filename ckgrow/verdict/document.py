"""The document of ``verify``: what ``--json`` prints and what Python callers get."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ckgrow.architecture import Assumption
from ckgrow.verdict.comparison import OutputVerdict
from ckgrow.verdict.expectation import Expectation
from ckgrow.verdict.judgement import Judgement


@dataclass(frozen=True)
class Inputs:
    """What both networks were run on."""

    source: str
    samples: int


@dataclass(frozen=True)
class VerifyDocument:
    """The verdict with all that it rests on.

    ``expected`` says whether the verdict is the one that the student's steps promise; ``hashes``
    are those of both checkpoints by side. The last four are None: nobody asked for them.
    """

    schema: str
    preserved: bool
    expected: bool
    reason: str
    outputs: tuple[OutputVerdict, ...]
    expectations: tuple[Expectation, ...]
    inputs: Inputs
    runtimes: tuple[str, ...]
    tolerance: str
    assumptions: tuple[Assumption, ...]
    hashes: Mapping[str, str]
    localisation: None = None
    proof: None = None
    train_mode: None = None
    learning: None = None

    @staticmethod
    def of(
        judgement: Judgement,
        *,
        expected: bool,
        assumptions: Sequence[Assumption],
        hashes: Mapping[str, str],
    ) -> VerifyDocument:
        """The document of a judgement; ``dataclasses.asdict`` makes it JSON."""
        return VerifyDocument(
            "ckgrow.verify/1",
            judgement.preserved,
            expected,
            judgement.reason,
            judgement.outputs,
            judgement.expectations,
            Inputs(judgement.inputs, judgement.samples),
            judgement.runtimes,
            judgement.tolerance,
            tuple(assumptions),
            dict(hashes),
        )
