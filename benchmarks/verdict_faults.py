"""Twelve kinds of single faults, as benchmarks/verdict.py puts them into sound students.

A fault replaces one tensor, or the recorded map of one layer. What it changes is drawn from a seed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from verdict_equations import LAYERS, Equations

from ckgrow.graph import Node
from ckgrow.maps import ChannelMap

Arrays = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Fault:
    """``content`` for the tensor ``place``, or ``maps`` for the layer ``place`` and its likes."""

    kind: str
    place: str
    content: np.ndarray | None = None
    maps: Mapping[str, ChannelMap] = field(default_factory=dict)


@dataclass(frozen=True)
class Ground:
    """A sound student, and tensors of its relatives that a mistake could mix up with its own.

    ``stale`` are those of the same teacher grown otherwise (from another seed, by other steps),
    ``strange`` those of another teacher grown by the same spec.
    """

    equations: Equations
    stale: Sequence[Callable[[], Arrays]]
    strange: Callable[[], Arrays]

    @property
    def tensors(self) -> Arrays:
        """The student's."""
        return self.equations.tensors

    def weights(self) -> list[str]:
        """Weights of layers."""
        return [node.inputs[1] for node in self._nodes(*LAYERS)]

    def biases(self) -> list[str]:
        """Biases of layers, and the betas of BatchNorms."""
        layers = [node.input(2) for node in self._nodes(*LAYERS)]
        return [name for name in layers if name] + self.norms(2)

    def norms(self, *positions: int) -> list[str]:
        """Parameters of BatchNorms: 1 gamma, 2 beta, 3 mean, 4 variance."""
        nodes = self._nodes("BatchNormalization")
        return [node.inputs[position] for node in nodes for position in positions]

    def before_concatenations(self) -> list[str]:
        """Layers that a concatenation reads with no other layer in between; else all layers."""
        graph = self.equations.graph
        makers = graph.producers()
        found: list[str] = []
        waiting = [name for node in self._nodes("Concat") for name in node.inputs]
        while waiting:
            node = makers.get(waiting.pop())
            if node is not None and node.op in LAYERS:
                found.append(node.name)
            elif node is not None and node.op not in ("Concat", "Add"):
                waiting.append(node.inputs[0])
        return found or [node.name for node in self._nodes(*LAYERS)]

    def reader(self, tensor: str) -> Node:
        """The node that a tensor belongs to."""
        return self.equations.graph.consumers()[tensor][0]

    def _nodes(self, *ops: str) -> list[Node]:
        return [node for node in self.equations.graph.nodes if node.op in ops]


Make = Callable[[Ground, np.random.Generator], Fault | None]


def faults(ground: Ground, seed: tuple[int, ...], count: int) -> list[Fault]:
    """``count`` faults, each of another kind before any kind comes again; each does change bits.

    A kind that a student has no place for (one without kernels cannot have one shifted) leaves its
    turn to the next.
    """
    order = np.random.default_rng(seed).permutation(list(KINDS)).tolist()
    found: list[Fault] = []
    turn = 0
    while len(found) < count:
        made = _drawn(order[turn % len(order)], ground, np.random.default_rng((*seed, turn)))
        turn += 1
        if made is not None:
            found.append(made)
    return found


def _drawn(kind: str, ground: Ground, draw: np.random.Generator) -> Fault | None:
    """A fault of a kind, if a few draws find a place where it makes a difference."""
    for _ in range(8):
        made = KINDS[kind](ground, draw)
        if made is not None and (made.content is None or _differs(ground, made)):
            return made
    return None


def _differs(ground: Ground, fault: Fault) -> bool:
    assert fault.content is not None
    return fault.content.tobytes() != ground.tensors[fault.place].tobytes()


def _one(names: list[str], draw: np.random.Generator) -> str:
    return names[draw.integers(len(names))]


def _changed(kind: str, place: str, old: np.ndarray, wide: np.ndarray) -> Fault:
    """A tensor computed in float64 in its own dtype again; what was not touched is as it was."""
    return Fault(kind, place, np.ascontiguousarray(wide.astype(old.dtype)))


def _weight_off(ground: Ground, draw: np.random.Generator) -> Fault | None:
    """One weight times 1.001, or the next number where the dtype has none so near."""
    place = _one(ground.weights(), draw)
    old = ground.tensors[place]
    used = np.flatnonzero(old)
    if not len(used):
        return None
    made = old.copy().reshape(-1)
    where = used[draw.integers(len(used))]
    made[where] = (made[where].astype(np.float64) * 1.001).astype(old.dtype)
    if made[where] == old.reshape(-1)[where]:
        bits = made.view({2: np.uint16, 4: np.uint32}[old.dtype.itemsize])
        bits[where] += 1
    return Fault("one weight off", place, made.reshape(old.shape))


def _channel_scaled(ground: Ground, draw: np.random.Generator) -> Fault:
    place = _one([*ground.weights(), *ground.norms(1)], draw)
    old = ground.tensors[place]
    wide = old.astype(np.float64)
    wide[draw.integers(len(wide))] *= 1.5
    return _changed("channel scaled", place, old, wide)


def _sign_flipped(ground: Ground, draw: np.random.Generator) -> Fault | None:
    place = _one(ground.weights(), draw)
    made = ground.tensors[place].copy()
    used = np.flatnonzero(made)
    if not len(used):
        return None
    made.reshape(-1)[used[draw.integers(len(used))]] *= -1
    return Fault("sign flipped", place, made)


def _channels_swapped(ground: Ground, draw: np.random.Generator) -> Fault | None:
    """Two rows of a weight, or two of its columns."""
    place = _one(ground.weights(), draw)
    made = np.moveaxis(ground.tensors[place], int(draw.integers(2)), 0).copy()
    if len(made) < 2:
        return None
    dim = 0 if made.shape == ground.tensors[place].shape else 1
    a, b = draw.choice(len(made), 2, replace=False)
    made[[a, b]] = made[[b, a]]
    return Fault("channels swapped", place, np.ascontiguousarray(np.moveaxis(made, 0, dim)))


def _share_undivided(ground: Ground, draw: np.random.Generator) -> Fault | None:
    """One copy's column is the whole weight of its source, as if it had not been divided."""
    place = _one(ground.weights(), draw)
    classes = ground.equations.classes[ground.reader(place).inputs[0]]
    several = [each for each in set(classes) if not each.fresh and classes.count(each) > 1]
    if not several:
        return None
    copied = sorted(several, key=repr)[draw.integers(len(several))]
    columns = [column for column, each in enumerate(classes) if each == copied]
    old = ground.tensors[place]
    wide = old.astype(np.float64)
    wide[:, columns[draw.integers(len(columns))]] = wide[:, columns].sum(1)
    return _changed("share not divided", place, old, wide)


def _bias_dropped(ground: Ground, draw: np.random.Generator) -> Fault | None:
    if not ground.biases():
        return None
    place = _one(ground.biases(), draw)
    return Fault("bias dropped", place, np.zeros_like(ground.tensors[place]))


def _wrong_statistics(ground: Ground, draw: np.random.Generator) -> Fault | None:
    """A BatchNorm's means or variances, each of the channel before."""
    if not ground.norms(3):
        return None
    place = _one(ground.norms(3, 4), draw)
    return Fault("statistics of the wrong channel", place, np.roll(ground.tensors[place], 1))


def _kernel_shifted(ground: Ground, draw: np.random.Generator) -> Fault | None:
    """Every kernel of a layer one place further, zeros where it was."""
    places = [
        name for name in ground.weights() if max(ground.tensors[name].shape[2:], default=1) > 1
    ]
    if not places:
        return None
    place = _one(places, draw)
    made = np.roll(ground.tensors[place], 1, axis=-1)
    made[..., 0] = 0
    return Fault("kernel shifted", place, made)


def _stale(ground: Ground, draw: np.random.Generator) -> Fault | None:
    """A tensor as another seed or other steps would have made it."""
    relative = ground.stale[int(draw.integers(len(ground.stale)))]
    return _mixed_up("stale tensor", ground, relative(), draw)


def _strange(ground: Ground, draw: np.random.Generator) -> Fault | None:
    """The tensor of another teacher's student."""
    return _mixed_up("tensor of another teacher", ground, ground.strange(), draw)


def _mixed_up(kind: str, ground: Ground, others: Arrays, draw: np.random.Generator) -> Fault | None:
    read = [*ground.weights(), *ground.biases(), *ground.norms(1, 3, 4)]
    own = ground.tensors
    alike = [name for name in read if name in others and others[name].shape == own[name].shape]
    other = [name for name in alike if others[name].tobytes() != own[name].tobytes()]
    if not other:
        return None
    place = _one(other, draw)
    return Fault(kind, place, others[place])


def _map_off(ground: Ground, draw: np.random.Generator) -> Fault | None:
    """A layer's recorded sources, each that of the channel before.

    Perhaps those of all layers with the same map: then the record contradicts the tensors only.
    """
    place = _one(ground.before_concatenations(), draw)
    origins = ground.equations.record.origins
    right = origins[place].map
    wrong = ChannelMap(right.width, np.roll(right.sources, 1))
    likes = [layer for layer, each in origins.items() if each.map == right]
    layers = likes if draw.integers(2) else [place]
    return (
        None
        if wrong == right
        else Fault("map off by one", place, maps=dict.fromkeys(layers, wrong))
    )


def _transposed(ground: Ground, draw: np.random.Generator) -> Fault | None:
    shapes = {name: ground.tensors[name].shape for name in ground.weights()}
    square = [name for name, shape in shapes.items() if shape[0] == shape[1] > 1]
    if not square:
        return None
    place = _one(square, draw)
    made = np.ascontiguousarray(ground.tensors[place].swapaxes(0, 1))
    return Fault("square matrix transposed", place, made)


KINDS: Mapping[str, Make] = {
    "one weight off": _weight_off,
    "channel scaled": _channel_scaled,
    "sign flipped": _sign_flipped,
    "channels swapped": _channels_swapped,
    "share not divided": _share_undivided,
    "bias dropped": _bias_dropped,
    "statistics of the wrong channel": _wrong_statistics,
    "kernel shifted": _kernel_shifted,
    "stale tensor": _stale,
    "map off by one": _map_off,
    "square matrix transposed": _transposed,
    "tensor of another teacher": _strange,
}
