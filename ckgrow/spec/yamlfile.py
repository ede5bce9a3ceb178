"""Reads YAML that people write: plain values, the line of each, and nothing clever.

The language is YAML 1.2 with its core schema (``1e-3`` is a number, ``no`` is text, ``010`` is
ten), less everything that makes a small file mean a large or a surprising value: anchors, aliases,
tags, merge keys, directives, several documents. That is refused from the parser's stream of events,
before a value is built, and so are files that are too long or too deep.
"""

from __future__ import annotations

import io
import os
import re
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError
from ruamel.yaml.events import (
    AliasEvent,
    DocumentStartEvent,
    Event,
    MappingEndEvent,
    MappingStartEvent,
    NodeEvent,
    ScalarEvent,
    SequenceEndEvent,
    SequenceStartEvent,
    StreamEndEvent,
)

from ckgrow.errors import FileError, SpecError
from ckgrow.names import SHOWN_LENGTH, shown, shown_path
from ckgrow.reasons import unreadable
from ckgrow.spec.yaml_scalars import scalar

FILE_BYTES = 1_000_000
"""Largest file that is read."""

DEPTH = 32
"""Deepest nesting of lists and mappings."""

EVENTS = 20_000
"""Most keys, values and brackets in one file."""

Key = str | int
"""A step on the way to a value: the key of a mapping, or the position in a list."""

_UNPRINTABLE = re.compile(
    r"[^\t\n\x20-\x7e\xa0-\u2027\u202f-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]"
)
_UNQUOTED = re.compile(r"\s*(?:-\s+)*(?:(?P<key>[\w-]+):\s+)?(?P<value>[*\[{].*?)\s*(?:\s#.*)?")
_ADVICE = {
    "mapping values are not allowed here": "check the indentation, or quote text with ': ' in it",
}


@dataclass(frozen=True)
class Document:
    """What a YAML file holds, and where.

    ``value`` is made of dicts with text keys, lists, text, whole numbers, finite floats, booleans
    and None. ``name`` is how messages call the file. ``lines`` is empty if there is no file.
    """

    name: str
    value: Any
    lines: dict[tuple[Key, ...], int]

    def line(self, path: Sequence[Key] = ()) -> int:
        """The line, from 1, of the value at ``path``, or of the closest value around it."""
        around = tuple(path)
        while around and around not in self.lines:
            around = around[:-1]
        return self.lines.get(around, 1)

    def where(self, path: Sequence[Key] = ()) -> str:
        """The place of ``path`` as messages begin: ``spec.yaml:7``, or the bare name."""
        return f"{shown_path(self.name)}:{self.line(path)}" if self.lines else shown_path(self.name)


def load(path: str | os.PathLike[str]) -> Document:
    """The document in a file.

    Raises FileError when it cannot be read or is not a regular file (a pipe might never end), and
    SpecError for everything that :func:`loads` refuses.
    """
    name = os.fspath(path)
    try:
        status = os.stat(path)
        if stat.S_ISDIR(status.st_mode):
            raise FileError(f"{shown_path(name)} is a folder; name a YAML file")
        if not stat.S_ISREG(status.st_mode):
            raise FileError(
                f"{shown_path(name)} is not a regular file; write the YAML to a file first"
            )
        with open(path, "rb") as file:
            content = file.read(FILE_BYTES + 1)
    except (OSError, ValueError) as failure:  # a NUL in the path is a ValueError
        raise FileError(f"{shown_path(name)} cannot be read: {unreadable(failure)}") from failure
    if len(content) > FILE_BYTES:
        raise SpecError(f"{shown_path(name)} is larger than {FILE_BYTES} bytes; shorten it")
    try:
        return loads(content.decode("utf-8"), name)
    except UnicodeDecodeError as failure:
        line = content.count(b"\n", 0, failure.start) + 1
        raise SpecError(
            f"{shown_path(name)}:{line}: byte 0x{content[failure.start]:02x} is not UTF-8; "
            "save the file as UTF-8"
        ) from failure


def loads(text: str, name: str) -> Document:
    """The document in ``text``; messages call it ``name``.

    Raises SpecError with the line, the offending text and the fix for text that is not YAML, is
    empty, or uses what this reader does not (see the module).
    """
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    reader = _Reader(name, text)
    if (unprintable := _UNPRINTABLE.search(text)) is not None:
        line = text.count("\n", 0, unprintable.start())
        reader.refuse(
            line, f"the character U+{ord(unprintable[0]):04X} cannot stand here; remove it"
        )
    return reader.document()


class _Reader:
    """Builds one document from the events of ruamel.yaml's parser. Lines count from 0 in here."""

    def __init__(self, name: str, text: str) -> None:
        self._name = name
        self._source = text.split("\n")
        self._events = self._checked(YAML(typ="safe", pure=True).parse(io.StringIO(text)))
        self._lines: dict[tuple[Key, ...], int] = {}

    def refuse(self, line: int, problem: str) -> NoReturn:
        """Raises the error for ``problem`` at ``line``."""
        raise SpecError(f"{shown_path(self._name)}:{line + 1}: {problem}")

    def document(self) -> Document:
        """The only document of the stream."""
        try:
            return self._document()
        except MarkedYAMLError as failure:
            self._refuse_syntax(failure)

    def _document(self) -> Document:
        next(self._events)  # the start of the stream
        start = next(self._events)
        if isinstance(start, StreamEndEvent):
            raise SpecError(f"{shown_path(self._name)} is empty; `ckgrow init` writes a first spec")
        value = self._value(next(self._events), ())
        for event in self._events:
            if isinstance(event, DocumentStartEvent):
                line = event.start_mark.line
                self.refuse(line, "a second document starts here; keep one per file")
        return Document(self._name, value, self._lines)

    def _checked(self, events: Iterator[Event]) -> Iterator[Event]:
        """The events as they are, once what is not allowed has been refused."""
        depth = 0
        for count, event in enumerate(events):
            line = event.start_mark.line
            if count > EVENTS:
                self.refuse(line, f"more than {EVENTS} keys and values; split the file")
            if isinstance(event, DocumentStartEvent) and (event.version or event.tags):
                self.refuse(line, "a line that starts with '%' is not supported; remove it")
            if isinstance(event, NodeEvent):
                self._refuse_reference(event, line)
            if isinstance(event, SequenceStartEvent | MappingStartEvent):
                depth += 1
                if depth > DEPTH:
                    self.refuse(line, f"nested more than {DEPTH} deep; close the brackets")
            elif isinstance(event, SequenceEndEvent | MappingEndEvent):
                depth -= 1
            yield event

    def _refuse_reference(self, event: NodeEvent, line: int) -> None:
        if isinstance(event, AliasEvent):
            text = shown(f"*{event.anchor}")
            hint = self._hint(line) or "quote the pattern, or write the value out"
            self.refuse(line, f"{text} is a YAML alias, which is not supported; {hint}")
        if event.anchor is not None:
            text = shown(f"&{event.anchor}")
            self.refuse(line, f"{text} is a YAML anchor, which is not supported; remove it")
        tag = getattr(event, "tag", None)  # the event that ends a collection has none
        if tag is not None:
            self.refuse(line, f"{shown(str(tag))} is a YAML tag, which is not supported; remove it")

    def _value(self, event: Event, path: tuple[Key, ...]) -> Any:
        self._lines.setdefault(path, event.start_mark.line + 1)
        if isinstance(event, MappingStartEvent):
            return self._mapping(path)
        if isinstance(event, SequenceStartEvent):
            items: list[Any] = []
            while not isinstance(item := next(self._events), SequenceEndEvent):
                items.append(self._value(item, (*path, len(items))))
            return items
        return self._scalar(event)

    def _mapping(self, path: tuple[Key, ...]) -> dict[str, Any]:
        mapping: dict[str, Any] = {}
        while not isinstance(event := next(self._events), MappingEndEvent):
            line = event.start_mark.line
            if not isinstance(event, ScalarEvent):
                problem = "a list or mapping cannot be a key"
                self.refuse(line, f"{problem}; {self._hint(line) or 'use a name'}")
            key = event.value
            if key == "<<" and event.style is None:
                self.refuse(line, "'<<' merges mappings, which is not supported; write them out")
            if key in mapping:
                first = self._lines[*path, key]
                self.refuse(line, f"the key {shown(key)} was given before, in line {first}")
            self._lines[*path, key] = line + 1
            mapping[key] = self._value(next(self._events), (*path, key))
        return mapping

    def _scalar(self, event: Event) -> Any:
        assert isinstance(event, ScalarEvent)  # aliases, the last kind of node, were refused
        if event.style is not None:
            return event.value
        try:
            return scalar(event.value)
        except ValueError as failure:
            self.refuse(event.start_mark.line, str(failure))

    def _refuse_syntax(self, failure: MarkedYAMLError) -> NoReturn:
        """Raises the error for what the parser could not read, in words of this project."""
        mark = failure.problem_mark or failure.context_mark
        line = mark.line if mark is not None else 0
        problem = failure.problem or "this is not YAML"
        if "unexpected end of stream" in problem or "<stream end>" in problem:
            opened = failure.context_mark.line if failure.context_mark is not None else line
            advice = "close the bracket or the quote, and quote patterns"
            self.refuse(opened, f"the file ends before what starts here is closed; {advice}")
        if "'\\t'" in problem:
            self.refuse(line, "a tab stands where YAML wants spaces; use spaces")
        if len(problem) > SHOWN_LENGTH:
            problem = shown(problem)
        hint = self._hint(line) or _ADVICE.get(problem, "check quotes, brackets and indentation")
        source = shown(self._source[min(line, len(self._source) - 1)].strip())
        self.refuse(line, f"{source} is not YAML ({problem}); {hint}")

    def _hint(self, line: int) -> str | None:
        """How to quote what looks like a bare pattern in ``line``, None if nothing does."""
        found = _UNQUOTED.fullmatch(self._source[line]) if line < len(self._source) else None
        if found is None:
            return None
        key, value = found["key"], found["value"]
        if value.startswith("[") and value.endswith("]"):
            return "quote every pattern in the list"
        if '"' in value or len(value) > SHOWN_LENGTH or not value.isprintable():
            return "quote the pattern"
        return f'quote the pattern: {key}: "{value}"' if key else f'quote the pattern: "{value}"'
