"""What an architecture adapter is: three questions about a checkpoint's header.

1. Which keys do I explain, and which not? (``explain``; the best explanation wins.)
2. What is the graph? (``build``)
3. Which stages are there, and what are their blocks called? (``stages``; the core clones blocks.)

It may also know published networks by name (``targets``); how to grow into one, the core finds out.

An adapter emits a graph and nothing else: what widens together is inferred from it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from ckgrow.graph import Graph
from ckgrow.header import Header

Source = Literal["checkpoint", "architecture", "spec", "default"]


@dataclass(frozen=True)
class Assumption:
    """A fact that keys and shapes do not hold, or hold only in part.

    ``source`` says where it comes from: the ``checkpoint`` itself, the ``architecture`` as
    published, the ``spec``, or merely a ``default``. Steps whose exactness rests on a default
    are refused.
    """

    fact: str
    value: str
    source: Source


@dataclass(frozen=True)
class Option:
    """One option of an adapter, as ``teacher.options`` of a spec or ``--option name=value``."""

    name: str
    default: Any
    help: str
    choices: tuple[str, ...] = ()


@dataclass(frozen=True)
class Explanation:
    """How well an adapter explains a header.

    ``explained`` are the keys that have a place in the architecture, ``unexplained`` the others,
    ``missing`` names that the architecture needs and the header lacks, ``problems`` sentences on
    shapes that do not fit. It is ``complete`` when nothing is left over.
    """

    explained: frozenset[str]
    unexplained: tuple[str, ...]
    missing: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()

    @property
    def complete(self) -> bool:
        """Every key has a place and every place a key of the right shape."""
        return not (self.unexplained or self.missing or self.problems) and bool(self.explained)


@dataclass(frozen=True)
class Network:
    """What an adapter makes of a header.

    ``passthrough`` names the keys that no node reads and that travel unchanged
    (``num_batches_tracked``, an anchor buffer); ``options`` are those that were stated.
    """

    graph: Graph
    assumptions: tuple[Assumption, ...] = ()
    passthrough: tuple[str, ...] = ()
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Stage:
    """A run of blocks that can be made longer.

    ``blocks`` are module paths whose last component is the block's number, in order
    (``layer3.0``, ``layer3.1``). Nodes of a block carry its path before ``.`` or ``/``.
    """

    name: str
    blocks: tuple[str, ...]


@dataclass(frozen=True)
class Target:
    """A published network of one family, as a checkpoint may grow into it.

    ``header`` has the tensors that its own constructor makes for the checkpoint's input channels
    and classes; ``options`` are those that build the network that this constructor computes.
    """

    header: Header
    options: Mapping[str, Any] = field(default_factory=dict)


Targeting = Callable[[Graph, Header], Target]
"""Makes the target for a network of the family, given by its graph and tensors."""


class Architecture(Protocol):
    """An architecture adapter. ``name`` is what ``teacher.architecture`` says.

    ``targets`` are published networks by name (``torchvision/resnet34``); may be empty.
    """

    name: str
    summary: str
    options: tuple[Option, ...]
    targets: Mapping[str, Targeting]

    def explain(self, header: Header) -> Explanation:
        """Which keys have a place here. Cheap; never raises on a foreign header."""
        ...

    def build(self, header: Header, options: Mapping[str, Any]) -> Network:
        """The network of a header that ``explain`` calls complete.

        ``options`` holds only what the spec states; every other option takes its default.
        Raises CheckpointError when shapes do not fit, SpecError when an option is wrong.
        """
        ...

    def stages(self, graph: Graph) -> tuple[Stage, ...]:
        """The stages of a graph of this architecture, grown layers included; may be empty."""
        ...

    def stock(self, header: Header) -> str | None:
        """Where a checkpoint with this header loads ``strict``, as a phrase; None if nowhere.

        For instance ``torchvision's resnet34`` or ``an MLP of the same widths``.
        """
        ...
