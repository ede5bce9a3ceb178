"""Puts the check together: trains copies of both networks, and looks at what became of the student.

Nothing is written, and nothing of the teacher or student is changed.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch

from ckgrow.errors import CheckpointError
from ckgrow.learning.ancestry import Ancestry
from ckgrow.learning.batch import draw_batch, take_batch
from ckgrow.learning.course import STEPS, Course, safe_rate, train
from ckgrow.learning.diagnosis import diagnose
from ckgrow.learning.labels import read_labels
from ckgrow.learning.network import Trainee
from ckgrow.learning.observing import Grown, Observer, grown_groups, ranks
from ckgrow.learning.report import Learning, Losses
from ckgrow.learning.task import Task, batch_of, labelled_tasks, random_tasks
from ckgrow.verdict.interface import SAME, Interface
from ckgrow.verdict.running import Side
from ckgrow.verdict.samples import Samples

DISTURBED = 0.1
"""Noise, in deviations of each tensor, that makes of a student one that nothing ties together."""
TRAINING = (
    f"{STEPS} steps of gradient descent in training mode, in {{}}, at half the largest rate tried "
    "at which the teacher's own loss falls in every step"
)
NEAR = "what each network computes, plus normal noise of a tenth of its deviation"


def learn(
    teacher: Side,
    student: Side,
    ancestry: Ancestry | None,
    *,
    interface: Interface = SAME,
    inputs: Samples | None = None,
    labels: Path | None = None,
    seed: int = 0,
    progress: Callable[[str], None] = lambda _: None,
) -> Learning:
    """Whether ``student`` can learn, after three steps of gradient descent.

    ``ancestry`` is what the student's record tells, if it tells of this teacher; without it every
    weight counts as new, and layers of one name belong together.
    ``inputs`` are for both sides (``interface.shared``); without them normal ones are drawn from
    ``seed``. ``labels`` is a file of class indices or of outputs that belong to ``inputs``; without
    it targets are random. Raises CheckpointError for inputs or labels that do not fit.
    """
    if not interface.joins(teacher.graph, student.graph):
        raise CheckpointError(
            "whether the student can learn is seen beside its teacher, and their inputs differ: "
            "they cannot be trained on the same samples"
        )
    batch = (
        draw_batch(teacher, student, interface, seed)
        if inputs is None
        else take_batch(inputs, student)
    )
    samples, dtype = batch.samples, torch.float64 if batch.double else torch.float32
    tensors = batch_of(samples.arrays, dtype), batch_of(samples.for_student().arrays, dtype)
    new_teacher = partial(Trainee, teacher, seed, dtype)
    new_student = partial(Trainee, student, seed, dtype)
    if labels is None:
        tasks = random_tasks(new_teacher(), new_student(), tensors, interface, seed)
        targets = NEAR
    else:
        given = read_labels(labels, teacher, student, inputs.count if inputs else samples.count)
        tasks = labelled_tasks(given.first(samples.count).arrays, tensors)
        targets = given.source
    progress("three steps of training on a copy of the teacher")
    rate = safe_rate(new_teacher, tasks[0])
    before = train(new_teacher(), tasks[0], lambda *_: rate)
    _require_trainable(before)
    progress("three steps of training on a copy of the student")
    groups = grown_groups(teacher, student, ancestry)
    network = new_student()
    observer = Observer(network, groups, ancestry)
    after = train(network, tasks[1], lambda *_: rate, observer)
    losses = Losses(before.losses, after.losses, before.gradient, after.gradient)
    seen = observer.tensors()
    looked = observer.groups(_attainable(new_student(), tasks[1], groups, seed))
    slopes = {name: rate * slope for name, slope in observer.slopes.items()}
    members = {each.group.name: each.units.tensors for each in groups}
    diagnosis = diagnose(student.graph, losses, slopes, seen, looked, members, ancestry)
    new, moved = sum(each.new for each in seen), sum(each.moved for each in seen)
    return Learning(
        verdict=diagnosis.verdict,
        reason=diagnosis.reason,
        new=new,
        moved=moved,
        share=moved / new if new else None,
        tensors=seen,
        groups=looked,
        findings=diagnosis.findings,
        losses=losses,
        rate=rate,
        batch=samples.count,
        inputs=samples.source,
        targets=targets,
        training=TRAINING.format("float64" if batch.double else "float32"),
    )


def _require_trainable(teacher: Course) -> None:
    """CheckpointError for a teacher that says nothing of what a student could do."""
    if not math.isfinite(teacher.losses[0]):
        raise CheckpointError(
            "in training mode the teacher computes NaN or infinity on these inputs: whether a "
            "student can learn cannot be seen; give inputs of yours (--inputs)"
        )
    if not teacher.gradient > 0:
        raise CheckpointError(
            "the teacher receives no gradient on these inputs: whether a student can learn cannot "
            "be seen; give inputs of yours (--inputs)"
        )


def _attainable(
    network: Trainee, task: Task, groups: tuple[Grown, ...], seed: int
) -> list[int | None]:
    """The ranks of the groups with noise on all the weights of a network, which is used up."""
    if not any(each.before for each in groups):
        return [None] * len(groups)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in network.weights.values():
            size = float(weight.square().mean().sqrt()) if weight.numel() else 0.0
            noise = torch.randn(weight.shape, generator=generator, dtype=torch.float64)
            weight += DISTURBED * (size or 1.0) * noise
    gradients = network.gradients(task.loss(network(task.inputs)))
    return ranks(groups, gradients)
