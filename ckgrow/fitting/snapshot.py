"""What a module was before it was touched."""

from __future__ import annotations

from typing import Any

from torch import nn


class Snapshot:
    """Remembers a module with everything inside it, without copying a tensor.

    Nothing here writes into the storage of a tensor, so references to the old ones are enough.
    """

    def __init__(self, module: nn.Module) -> None:
        self._attributes: list[tuple[nn.Module, dict[str, Any], dict[str, dict[str, Any]]]] = []
        for each in module.modules():
            attributes = dict(vars(each))
            # parameters, buffers, submodules and hooks live in dictionaries that others refer to
            inner = {k: dict(v) for k, v in attributes.items() if isinstance(v, dict)}
            self._attributes.append((each, attributes, inner))
        self._parameters = [(each, each.data, each.grad) for each in module.parameters()]

    def restore(self) -> None:
        """Makes the module what it was: the same objects with the same contents."""
        for module, attributes, inner in self._attributes:
            vars(module).clear()
            vars(module).update(attributes)
            for name, contents in inner.items():
                attributes[name].clear()
                attributes[name].update(contents)
        for parameter, data, gradient in self._parameters:
            parameter.grad = None  # a gradient must have the shape of its parameter
            parameter.data = data
            parameter.grad = gradient
