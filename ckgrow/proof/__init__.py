"""Proof that a student computes its teacher's function for every input, without running either.

Labels (``ckgrow.labels``) are led through both graphs by the rules of the ops. The rows of the
teacher's layers get labels of their own; those of the student's get what the student's record
claims of them, once the tensors bear it out:

- a row of source copy(o): over the columns that carry one label, its weights add up to those of
  the teacher's row o, and to 0 where the teacher has none; the biases are equal;
- rows of one fresh unit have equal sums and biases;
- a row of source zero has sums 0 and bias 0; columns that are zero are free.

Per-channel parameters are those of the source. What a step inserted has to be what its certificate
says: an identity, a branch that adds zero, a BatchNorm that undoes itself, a dense product. If all
of that holds and the outputs carry the same labels, the functions are equal. Nothing is taken from
the code that made the student, and nothing of its record is believed that its tensors do not show.
"""

from ckgrow.proof.certificate import Check, Finding, GroupCheck, Proof, Traces
from ckgrow.proof.claims import Claims
from ckgrow.proof.proving import prove, traced_proof

__all__ = [
    "Check",
    "Claims",
    "Finding",
    "GroupCheck",
    "Proof",
    "Traces",
    "prove",
    "traced_proof",
]
