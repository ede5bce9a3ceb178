"""JSON documents with one entry changed, and the headers of safetensors files, which are JSON."""

from __future__ import annotations

import json
from random import Random
from typing import Any

from .damage import damaged, number

DTYPES = ("F32", "F64", "BF16", "F16", "I64", "BOOL", "U8", "F8_E4M3", "F4", "C64", "F33", "")
STRINGS = ("", "0.weight", "__metadata__", "../../etc/passwd", "a\0b", "\x1b[31m", "ckgrow", "é")
STRINGS += ("/etc/passwd", "a.safetensors", "x" * 3000, "\ud800", "data", "2.bias", ".", "..")


def json_changed(random: Random, data: bytes) -> bytes:
    """JSON with one entry changed, or with a fault that only its text can have."""
    document = _value_changed(random, json.loads(data))
    text = json.dumps(document, separators=random.choice(((",", ":"), (", ", ": "))))
    if random.random() < 0.1:
        text = random.choice(
            (text + text, " " + text, text[:-1], "[" * 5000, '{"a":' * 3000, text + "\0", "\ufeff")
        )
    elif random.random() < 0.05:  # the same entry twice
        text = text[:-1] + "," + text[1:]
    return text.encode("utf-8", "surrogatepass")


def _value_changed(random: Random, value: Any) -> Any:
    if isinstance(value, dict) and value and random.random() < 0.9:
        key = random.choice(list(value))
        way = random.randrange(12)
        if way == 0:
            return {name: each for name, each in value.items() if name != key}
        if way == 1:
            new = random.choice((*STRINGS, *value, *map(str.upper, value)))
            return {new if name == key else name: each for name, each in value.items()}
        if way == 2:
            return {**value, random.choice(STRINGS): value[key]}
        if way == 3:
            return {**value, key: value[random.choice(list(value))]}
        return {**value, key: _value_changed(random, value[key])}
    if isinstance(value, list) and value and random.random() < 0.9:
        index = random.randrange(len(value))
        way = random.randrange(8)
        if way == 0:
            return value[:index] + value[index + 1 :]
        if way == 1:
            return value + [value[index]] * random.choice((1, 2, 70))
        return [*value[:index], _value_changed(random, value[index]), *value[index + 1 :]]
    if isinstance(value, str) and value.startswith("{") and random.random() < 0.9:
        return json.dumps(_value_changed(random, json.loads(value)))  # the record of growth
    if isinstance(value, str) and random.random() < 0.7:
        return random.choice((*STRINGS, *DTYPES, value[:-1], value + value[-1:], value[::-1]))
    return random.choice(
        (
            *(number(random), number(random), number(random) + 0.5, 1e300, -1, 0, 10**40),
            *(None, True, float("nan"), [], {}, [value], {"a": value}, random.choice(STRINGS)),
        )
    )


def header_changed(random: Random, data: bytes) -> bytes:
    """A safetensors file whose header says something else, with its length made to fit."""
    length = int.from_bytes(data[:8], "little")
    text = data[8 : 8 + length]
    if random.random() < 0.2:
        changed = damaged(random, text)
    else:
        changed = json_changed(random, text)
        if random.random() < 0.5:
            changed += b" " * (-len(changed) % 8)
    return _with_header(changed, data[8 + length :])


def record_changed(random: Random, data: bytes) -> bytes:
    """A safetensors file whose record of growth says something else in up to three places."""
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    record = json.loads(header["__metadata__"]["ckgrow"])
    for _ in range(random.choice((1, 1, 2, 3))):
        record = _value_changed(random, record)
    header["__metadata__"]["ckgrow"] = json.dumps(record)
    return _with_header(json.dumps(header).encode(), data[8 + length :])


def _with_header(text: bytes, data: bytes) -> bytes:
    return len(text).to_bytes(8, "little") + text + data
