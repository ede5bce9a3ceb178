"""New layers and blocks in numbered containers: ``nn.Sequential`` and ``nn.ModuleList``.

The student's numbers are matched with the module's children in order: a child takes the first
number behind its predecessor's that looks like it. What its metadata call new is left out of that,
unless nothing fits otherwise. Numbers without a child are the grown ones; a layer is made from the
student's graph, a block is a copy of one that the container has.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence

from torch import nn
from torch.nn.modules.conv import _ConvNd

from ckgrow.errors import CheckpointError
from ckgrow.fitting.making import LayerMaker, is_activation, make_activation, strides_of
from ckgrow.fitting.paths import Paths, joined
from ckgrow.fitting.residual import is_block, make_block
from ckgrow.graph import Node
from ckgrow.loading import Loaded
from ckgrow.names import shown
from ckgrow.naming import is_grown

Fits = Callable[[nn.Module, int], bool]


def renumber(module: nn.Module, student: Loaded) -> None:
    """Makes room for grown children in every numbered container and puts them there."""
    _renumber(module, "", Paths(student), LayerMaker(student))


def _renumber(module: nn.Module, path: str, paths: Paths, maker: LayerMaker) -> None:
    if isinstance(module, nn.Sequential | nn.ModuleList):
        numbered = list(module._modules) == [str(number) for number in range(len(module))]
        if numbered and len(module):
            _Container(module, path, paths, maker).extend()
    for name, child in module.named_children():
        _renumber(child, joined(path, name), paths, maker)


class _Container:
    """One container beside the student's children at the same path."""

    def __init__(
        self, module: nn.Sequential | nn.ModuleList, path: str, paths: Paths, maker: LayerMaker
    ) -> None:
        self._module = module
        self._path = path
        self._paths = paths
        self._maker = maker
        self._old: Sequence[nn.Module] = list(module)
        self._numbers = paths.numbers(path)

    def extend(self) -> None:
        """Puts the student's new children between the module's own; nothing if there are none."""
        places = self._places()
        if places is None:
            return  # the comparison of keys tells what does not fit
        children: dict[int, nn.Module] = dict(zip(places, self._old, strict=True))
        total = max((*places, *self._numbers)) + 1
        for number in range(total):
            if number not in children:
                children[number] = self._made(number, places)
        self._module._modules.clear()
        for number in range(total):
            self._module._modules[str(number)] = children[number]

    def _places(self) -> list[int] | None:
        """The student's number of every child of the module; None when they do not fit."""
        unchanged = list(range(len(self._old)))
        keyed = {n for n in self._numbers if self._paths.suffixes(self._at(n))}
        if keyed <= set(unchanged) and all(map(self._similar, self._old, unchanged)):
            return unchanged
        new = {number for number in self._numbers if self._paths.is_new(self._at(number))}
        for excluded in (new, set[int]()):
            found = _matched(self._old, excluded, max(self._numbers, default=0), self._alike)
            if found is not None and keyed - set(found):
                return found
        return None

    def _at(self, number: int) -> str:
        return joined(self._path, str(number))

    def _similar(self, child: nn.Module, number: int) -> bool:
        """Tensors of the same names and ranks."""
        path = self._at(number)
        tensors = {name: each.dim() for name, each in child.state_dict().items()}
        header = self._paths.student.header
        sides = {name: len(header.shape(joined(path, name))) for name in self._paths.suffixes(path)}
        return _signature(tensors) == _signature(sides)

    def _alike(self, child: nn.Module, number: int) -> bool:
        """Similar; and where neither has tensors, both an activation or neither."""
        node = self._paths.nodes.get(self._at(number))
        if child.state_dict() or node is None:
            return self._similar(child, number)
        active = type(child).__module__ == nn.ReLU.__module__
        gate = node.op == "Mul"  # the last node of x * sigmoid(x), which is one module
        return active == (is_activation(node) or gate) and self._similar(child, number)

    def _made(self, number: int, places: Sequence[int]) -> nn.Module:
        path = self._at(number)
        node = self._paths.nodes.get(path)
        if isinstance(self._module, nn.Sequential) and is_block(self._paths, path):
            return make_block(self._paths, path, self._maker)
        if not self._paths.suffixes(path):
            if node is None:
                raise CheckpointError(
                    f"the student has no {shown(path)}, but a module must stand there between "
                    "the grown ones; load it from the file that ckgrow wrote"
                )
            return make_activation(node, self._paths.student.network.graph)
        return self._maker.make(node) if node is not None else self._block(number, places)

    def _block(self, number: int, places: Sequence[int]) -> nn.Module:
        """A copy of the block most like the student's, without the parts that it has not."""
        path = self._at(number)
        nodes = _inside(self._paths.nodes, path)
        parts = {name.partition(".")[0] for name in self._paths.suffixes(path)}
        candidates = [
            ((len(_parts(block) - parts), _strides_off(block, nodes), abs(place - number)), block)
            for block, place in zip(self._old, places, strict=True)
            if next(block.parameters(recurse=False), None) is None  # a block, not a layer
        ]
        if not candidates:
            raise CheckpointError(
                f"the student has {shown(path)}, which is like nothing that stands beside it in "
                "the module; write a module that holds it"
            )
        block = copy.deepcopy(min(candidates, key=lambda each: each[0])[1])
        for name in _parts(block) - parts:
            # an empty Sequential passes its input on, whether the forward asks for None or not
            setattr(block, name, nn.Sequential())
        for convolution, node in _convolutions(block, nodes):
            convolution.stride = strides_of(node, convolution)
        if isinstance(getattr(block, "stride", None), int):
            setattr(block, "stride", 1)  # noqa: B010 - blocks behind others never subsample
        return block


def _matched(
    children: Sequence[nn.Module], excluded: set[int], last: int, fits: Fits
) -> list[int] | None:
    """For each child the first number behind the one before that is free and fits."""
    found: list[int] = []
    for child in children:
        start = found[-1] + 1 if found else 0
        numbers = range(start, max(last, start) + 1)
        number = next((n for n in numbers if n not in excluded and fits(child, n)), None)
        if number is None:
            return None
        found.append(number)
    return found


def _signature(ranks: Mapping[str, int]) -> dict[str, int]:
    """Names of a layer's tensors with their ranks; of a block only the names of its parts."""
    kinds: dict[str, int] = {}
    for name, rank in ranks.items():
        first, _, rest = name.partition(".")
        if not is_grown(first) and first != "num_batches_tracked":
            kinds[first] = -1 if rest else rank
    return kinds


def _parts(block: nn.Module) -> set[str]:
    return {name.partition(".")[0] for name in block.state_dict()}


def _inside(nodes: Mapping[str, Node], path: str) -> dict[str, Node]:
    """Nodes of the modules inside ``path``, by their paths in there."""
    start = f"{path}."
    return {name[len(start) :]: node for name, node in nodes.items() if name.startswith(start)}


def _strides_off(block: nn.Module, nodes: Mapping[str, Node]) -> int:
    """How many convolutions of a block have other strides than their nodes."""
    return sum(each.stride != strides_of(node, each) for each, node in _convolutions(block, nodes))


def _convolutions(block: nn.Module, nodes: Mapping[str, Node]) -> Iterator[tuple[_ConvNd, Node]]:
    """Convolutions of a block that have a node among ``nodes``, which are named by their paths."""
    for path, module in block.named_modules():
        if isinstance(module, _ConvNd) and path in nodes and nodes[path].op == "Conv":
            yield module, nodes[path]
