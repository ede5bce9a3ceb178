"""Names that others chose: printed safely, sorted naturally, matched by pattern, guessed.

Tensor names, layer names and keys of a file may hold anything, terminal escapes included, and may
be a megabyte long. Nothing prints one except through :func:`shown`.
"""

from __future__ import annotations

import difflib
import itertools
import math
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ckgrow.errors import SpecError

SHOWN_LENGTH = 80
"""Longest printed form of a name, in characters, before it is shortened in the middle."""

PATTERN_LENGTH = 200
"""Longest pattern, in characters."""

PATTERN_ALTERNATIVES = 64
"""Most patterns that the braces of one pattern may stand for."""

_PLAIN = re.compile(r"[\w.\-/:@]+")
_URL = re.compile(r"[a-z][a-z0-9+.-]+://", re.IGNORECASE)
_SECRETS = re.compile(r"(?<=://)[^/?]+(?=@)|(?<=\?).+", re.DOTALL)
_STAR = "*"
_GUESS_LENGTH = 200  # difflib takes the square of the length
_GUESS_CANDIDATES = 5_000


def shown(name: str) -> str:
    """``name`` as it may be printed: on one line, without control characters, not too long.

    Plain names come out as they are. Others are quoted, with everything unprintable (control
    characters, terminal escapes, text direction marks, lone surrogates) escaped as Python does.
    """
    if len(name) <= SHOWN_LENGTH and _PLAIN.fullmatch(name):
        return name
    if len(name) <= SHOWN_LENGTH:
        escaped = "".join(map(_escaped, name))
        if len(escaped) <= SHOWN_LENGTH:
            return f"'{escaped}'"
    head = _fitting(name, SHOWN_LENGTH // 2)
    tail = _fitting(reversed(name), SHOWN_LENGTH // 4)
    return f"'{''.join(head)}...{''.join(reversed(tail))}' ({len(name)} characters)"


def shown_path(path: str | Path) -> str:
    """``path`` as it may be printed: as it is, or quoted and escaped when it would not print.

    The password and the query of a URL, which may be a signature, are left out.
    """
    text = without_secrets(str(path))
    return text if text.isprintable() else ascii(text)


def without_secrets(place: str) -> str:
    """``place`` with dots for the user, the password and the query of a URL; not for printing."""
    return _SECRETS.sub("...", place) if _URL.match(place) else place


def secrets_of(place: str) -> tuple[str, ...]:
    """What ``without_secrets`` replaces, the first first."""
    return tuple(_SECRETS.findall(place)) if _URL.match(place) else ()


def _escaped(character: str) -> str:
    if character in "\\'":
        return "\\" + character
    if character.isprintable():
        return character
    return character.encode("unicode_escape").decode("ascii")


def _fitting(characters: Iterable[str], budget: int) -> list[str]:
    """The first characters, escaped, that fit into ``budget`` columns."""
    pieces: list[str] = []
    for piece in map(_escaped, characters):
        budget -= len(piece)
        if budget < 0:
            break
        pieces.append(piece)
    return pieces


def quoted(name: str) -> str:
    """``name`` as it may be printed, in quotes."""
    text = shown(name)
    return text if text.startswith("'") else f"'{text}'"


def first_few(texts: Sequence[str], most: int = 6) -> str:
    """Texts with commas between; how many more there are, beyond ``most``."""
    said = ", ".join(texts[:most])
    return f"{said} and {len(texts) - most} more" if len(texts) > most else said


def by(sizes: Iterable[object]) -> str:
    """Sizes as people write them: ``3 x 3``."""
    return " x ".join(map(str, sizes))


def guess(word: str, candidates: Iterable[str]) -> str:
    """``; did you mean ...?`` to end a message with, "" where nothing is near."""
    near = nearest(word, candidates, 1)
    return f"; did you mean {quoted(near[0])}?" if near else ""


def nearest(word: str, candidates: Iterable[str], n: int = 3) -> list[str]:
    """Up to ``n`` of ``candidates`` that ``word`` may have been meant to be, the likeliest first.

    Close spellings come first, whatever their case, then names that contain the word. Only the
    first few thousand candidates of ordinary length are looked at.
    """
    word = word[:_GUESS_LENGTH].lower()
    ordinary = (name for name in candidates if len(name) <= _GUESS_LENGTH)
    by_lower: dict[str, list[str]] = {}
    for name in itertools.islice(ordinary, _GUESS_CANDIDATES):
        by_lower.setdefault(name.lower(), []).append(name)
    close = difflib.get_close_matches(word, by_lower, n)
    containing = (lower for lower in by_lower if word and word in lower)
    likely = dict.fromkeys(itertools.chain(close, containing))
    return [name for lower in likely for name in by_lower[lower]][:n]


def natural_key(name: str) -> tuple[tuple[str, int, str], ...]:
    """Sort key that compares runs of digits as numbers: ``layers.9`` before ``layers.10``.

    Runs of any length are compared; names that differ only in leading zeros keep a fixed order.
    """
    runs = re.findall(r"([^0-9]*)0*([0-9]*)", name)
    return (*((text, len(digits), digits) for text, digits in runs), (name, 0, ""))


@dataclass(frozen=True)
class Pattern:
    """A glob over whole layer names.

    ``*`` is any text, dots included; ``?`` any one character; ``[34]``, ``[a-c]`` and ``[!0]`` one
    character of a set or outside it; ``{a,b}`` either text (not nested). Upper and lower case
    differ. A name always matches the pattern that is spelled like it.

    Raises SpecError for an empty or overlong pattern, and for brackets and braces that do not
    close. Matching takes time proportional to the length of the name times that of the pattern:
    every piece between stars has a fixed length, so its first occurrence is as good as any.
    """

    text: str
    _expressions: tuple[re.Pattern[str], ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not self.text:
            raise SpecError("a pattern is empty; give the name of a layer, or '*' for all")
        if len(self.text) > PATTERN_LENGTH:
            raise SpecError(
                f"pattern {shown(self.text)} is longer than {PATTERN_LENGTH} characters; "
                "split it into a list of patterns"
            )
        expressions = tuple(re.compile(text, re.DOTALL) for text in _expressions(self.text))
        object.__setattr__(self, "_expressions", expressions)

    @property
    def is_literal(self) -> bool:
        """Whether the pattern is just a name, without a wildcard in it."""
        return not any(character in self.text for character in "*?[{")

    def matches(self, name: str) -> bool:
        """Whether the whole of ``name`` fits the pattern."""
        return name == self.text or any(
            expression.fullmatch(name) is not None for expression in self._expressions
        )


def _expressions(text: str) -> Iterator[str]:
    """One regular expression for every way of choosing from the braces of a pattern."""
    choices = list(_choices(text))
    if math.prod(map(len, choices)) > PATTERN_ALTERNATIVES:
        raise SpecError(
            f"the braces of pattern {shown(text)} stand for more than {PATTERN_ALTERNATIVES} "
            "patterns; use '*' or a list of patterns"
        )
    for chosen in itertools.product(*choices):
        yield _expression([item for items in chosen for item in items])


def _expression(items: list[str]) -> str:
    """A regular expression that never backtracks over a star, from single characters and stars."""
    pieces = [""]
    for item in items:
        if item == _STAR:
            pieces.append("")
        else:
            pieces[-1] += item
    if len(pieces) == 1:
        return pieces[0]
    first, *middle, last = pieces
    return first + "".join(f"(?>.*?{piece})" for piece in middle if piece) + ".*" + last


def _choices(text: str) -> Iterator[list[list[str]]]:
    """The pattern as a sequence of alternatives, each a list of items; most have only one."""
    position = 0
    while position < len(text):
        if text[position] == "{":
            alternatives: list[list[str]] = [[]]
            position += 1
            while position < len(text) and text[position] != "}":
                if text[position] == "{":
                    raise SpecError(f"pattern {shown(text)} has braces inside braces; use a list")
                if text[position] == ",":
                    alternatives.append([])
                    position += 1
                else:
                    item, position = _item(text, position)
                    alternatives[-1].append(item)
            if position == len(text):
                raise SpecError(f"pattern {shown(text)} has a '{{' without its '}}'")
            position += 1
            yield alternatives
        else:
            item, position = _item(text, position)
            yield [[item]]


def _item(text: str, position: int) -> tuple[str, int]:
    """One star or the regular expression of one character, and where the next item starts."""
    character = text[position]
    if character == "*":
        return _STAR, position + 1
    if character == "?":
        return ".", position + 1
    if character != "[":
        return re.escape(character), position + 1
    end = text.find("]", position + 1)
    if end < 0:
        raise SpecError(f"pattern {shown(text)} has a '[' without its ']'")
    return _character_set(text, text[position + 1 : end]), end + 1


def _character_set(text: str, inside: str) -> str:
    """The regular expression for ``[inside]`` of the pattern ``text``."""
    negated = inside.startswith("!")
    members = inside.removeprefix("!")
    if not members or members.startswith("^"):
        raise SpecError(
            f"pattern {shown(text)} has '[{shown(inside) if inside else ''}]'; "
            "write [34] for one of these characters, [!34] for any other"
        )
    parts = []
    position = 0
    while position < len(members):
        low = high = members[position]
        if members[position + 1 : position + 2] == "-" and position + 2 < len(members):
            high = members[position + 2]
            position += 2
        if low > high:
            raise SpecError(f"pattern {shown(text)} has the range {low}-{high}, which is empty")
        parts.append(f"{re.escape(low)}-{re.escape(high)}")
        position += 1
    return f"[{'^' if negated else ''}{''.join(parts)}]"
