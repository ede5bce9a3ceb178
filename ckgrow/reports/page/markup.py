"""HTML by functions: whatever is not markup already is escaped, so nothing foreign gets through.

Names in checkpoints may hold anything: tags, NUL, marks that turn the text's direction. Every
plain string that becomes part of a page passes :func:`text`; only :func:`tag` makes
:class:`Markup`.
"""

from __future__ import annotations

import html

_VOID = frozenset({"meta", "rect", "line", "image", "path", "br"})


class Markup(str):
    """A piece of HTML that may stand in a page as it is."""

    __slots__ = ()


def text(plain: str) -> Markup:
    """Any string as text: markup escaped, and what does not print written as Python writes it."""
    if isinstance(plain, Markup):
        return plain
    visible = "".join(
        each if each.isprintable() or each == "\n" else ascii(each)[1:-1] for each in plain
    )
    return Markup(html.escape(visible))


def joined(*parts: str) -> Markup:
    """Parts one behind the other."""
    return Markup("".join(map(text, parts)))


def tag(name: str, /, *children: str, **attributes: str | float) -> Markup:
    """An element. An attribute ``class_`` is ``class``, ``stroke_width`` is ``stroke-width``."""
    stated = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{text(_value(value))}"'
        for key, value in attributes.items()
    )
    if name in _VOID and not children:
        return Markup(f"<{name}{stated}/>")
    return Markup(f"<{name}{stated}>{joined(*children)}</{name}>")


def _value(value: str | float) -> str:
    """Coordinates to a hundredth: a page of a thousand bars has no use for more digits."""
    return value if isinstance(value, str) else f"{value:.2f}".rstrip("0").rstrip(".")
