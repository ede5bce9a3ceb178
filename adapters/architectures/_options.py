"""Options of an adapter as a spec states them, checked."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from ckgrow.architecture import Option, Source
from ckgrow.errors import SpecError


class Options:
    """What a spec states over an adapter's defaults.

    Raises SpecError for a name that the adapter does not have, and for a value outside an
    option's choices.
    """

    def __init__(self, known: Sequence[Option], stated: Mapping[str, Any]) -> None:
        self._known = {option.name: option for option in known}
        self._stated = dict(stated)
        for name, value in self._stated.items():
            option = self._known.get(name)
            if option is None:
                raise SpecError(f"there is no option {name!r}; options: {', '.join(self._known)}")
            if option.choices and value not in option.choices:
                raise SpecError(f"option {name!r} is {value!r}; choices: {_listed(option)}")

    def value(self, name: str) -> Any:
        """What is stated, or the default."""
        return self._stated.get(name, self._known[name].default)

    def source(self, name: str, otherwise: Source = "architecture") -> Source:
        """Where the value comes from."""
        return "spec" if name in self._stated else otherwise

    def flag(self, name: str) -> bool:
        """An option that is true or false."""
        value = self.value(name)
        if not isinstance(value, bool):
            raise SpecError(f"option {name!r} is {value!r}; it must be true or false")
        return value

    def positive(self, name: str) -> float:
        """An option that is a number above 0."""
        value = self.value(name)
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise SpecError(f"option {name!r} is {value!r}; it must be a number")
        if not (value > 0 and math.isfinite(value)):
            raise SpecError(f"option {name!r} is {value!r}; it must be finite and above 0")
        return float(value)

    def image(self, name: str, channels: int, side: int) -> tuple[int, int, int]:
        """An option [channels, height, width]; without it ``channels`` by ``side`` by ``side``.

        The channels must be those that the checkpoint's first layer reads.
        """
        value = self.value(name)
        if value is None:
            return channels, side, side
        whole = isinstance(value, list | tuple) and all(
            isinstance(size, int) and not isinstance(size, bool) and size > 0 for size in value
        )
        if not whole or len(value) != 3:
            raise SpecError(f"option {name!r} is {value!r}; write [channels, height, width]")
        if value[0] != channels:
            raise SpecError(
                f"option {name!r} is {list(value)}, but the first layer reads {channels} channels"
            )
        return channels, int(value[1]), int(value[2])


def _listed(option: Option) -> str:
    return ", ".join(str(choice) for choice in option.choices)
