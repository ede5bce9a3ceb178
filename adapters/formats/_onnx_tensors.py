"""One initialiser of an ONNX model: its dtype and shape, and where its numbers stand."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NoReturn

from ckgrow.errors import CheckpointError
from ckgrow.header import TensorSpec
from ckgrow.names import shown

from ._onnx_types import (
    DATA_TYPE,
    DIMS,
    DOUBLES,
    EXTERNAL,
    FLOATS,
    INT32S,
    INT64S,
    KEY,
    LOCATION,
    NAME,
    NUMPY_NAMES,
    RAW,
    SEGMENT,
    STRINGS,
    UINT64S,
    UNREAD,
    VALUE,
)
from ._onnx_wire import BYTES, VARINT, Field, Wire
from ._shapes import nbytes_of

_DATA = (RAW, FLOATS, INT32S, STRINGS, INT64S, DOUBLES, UINT64S)
_PACKED = {
    "float32": FLOATS,
    "complex64": FLOATS,
    "float64": DOUBLES,
    "complex128": DOUBLES,
    "int64": INT64S,
    "uint32": UINT64S,
    "uint64": UINT64S,
}
"""The typed field of a dtype; those that are not here are packed as int32."""


@dataclass(frozen=True)
class Initialiser:
    """A tensor of a model.

    Its numbers stand from ``offset`` on in ``size`` bytes, as they are in memory or, ``packed``, as
    varints; in the model itself, or in the file ``location`` beside it.
    """

    name: str
    spec: TensorSpec
    offset: int
    size: int
    packed: bool = False
    location: str | None = None


class _Parts:
    """What the fields of a TensorProto say, before it is known to make sense."""

    def __init__(self) -> None:
        self.name = ""
        self.dims: list[int] = []
        self.dtype = 0
        self.data: dict[int, Field] = {}
        self.external: dict[str, str] = {}
        self.elsewhere = False


def initialiser(wire: Wire, message: Field) -> Initialiser:
    """The tensor that ``message`` describes.

    Raises CheckpointError for one that ckgrow cannot read, or whose data does not fit its shape.
    """
    parts = _parts(wire, message)
    where = f"{wire.place}: tensor {shown(parts.name)}"
    spec = _spec(parts, where, wire.place)
    if parts.elsewhere or parts.external:
        return _external(parts, spec, where)
    if not parts.data:
        if spec.nbytes:
            _refuse(f"{where} has no data; save the model again with its weights")
        return Initialiser(parts.name, spec, message.start, 0)
    ((number, data),) = parts.data.items()
    size = data.stop - data.start
    if number == RAW or number in (FLOATS, DOUBLES):
        _require_size(size, spec, where)
        return Initialiser(parts.name, spec, data.start, size)
    if not spec.size <= size <= 10 * spec.size:
        _refuse(f"{where} has {size} bytes of packed numbers for {spec.size} elements; {_AGAIN}")
    return Initialiser(parts.name, spec, data.start, size, packed=True)


def _parts(wire: Wire, message: Field) -> _Parts:
    wire.require(message, BYTES)
    parts = _Parts()
    for field in wire.fields(message.start, message.stop):
        if field.number == DIMS:
            parts.dims += _dims(wire, field)
        elif field.number == DATA_TYPE:
            wire.require(field, VARINT)
            parts.dtype = field.value
        elif field.number == NAME:
            parts.name = wire.text(field)
        elif field.number == LOCATION:
            wire.require(field, VARINT)
            if field.value > 1:
                raise wire.damaged(field.start, "a tensor that is neither here nor elsewhere")
            parts.elsewhere = field.value == 1
        elif field.number == EXTERNAL:
            key, value = entry(wire, field)
            if key in parts.external:
                raise wire.damaged(field.start, f"external data states {shown(key)} twice")
            parts.external[key] = value
        elif field.number == SEGMENT:
            raise wire.damaged(field.start, "a tensor in segments, which no tool writes")
        elif field.number in _DATA:
            wire.require(field, BYTES)
            if field.number in parts.data:
                raise wire.damaged(field.start, "the data of a tensor in two pieces")
            parts.data[field.number] = field
    return parts


def _dims(wire: Wire, field: Field) -> list[int]:
    """One number, or several that are packed; negative ones are large, as they have no sign."""
    if field.kind == VARINT:
        return [field.value]
    wire.require(field, BYTES)
    return list(wire.varints(field))


def entry(wire: Wire, message: Field) -> tuple[str, str]:
    """Key and value of a StringStringEntryProto."""
    wire.require(message, BYTES)
    found = {KEY: "", VALUE: ""}
    for field in wire.fields(message.start, message.stop):
        if field.number in found:
            found[field.number] = wire.text(field)
    return found[KEY], found[VALUE]


def _spec(parts: _Parts, where: str, place: str) -> TensorSpec:
    if parts.dtype not in NUMPY_NAMES:
        dtype = UNREAD.get(parts.dtype, f"dtype number {parts.dtype}")
        _refuse(
            f"{where} is {dtype}, which ckgrow cannot read; save the model without it, in "
            "float32, float16 or bfloat16"
        )
    dtype = NUMPY_NAMES[parts.dtype]
    spec = TensorSpec(dtype, tuple(parts.dims))
    nbytes_of(parts.name, parts.dims, spec.itemsize, place)  # refuses impossible shapes
    expected = _PACKED.get(dtype, INT32S)
    wrong = [number for number in parts.data if number not in (RAW, expected)]
    if wrong or len(parts.data) > 1:
        _refuse(f"{where} holds data of another dtype than its own; {_AGAIN}")
    return spec


def _external(parts: _Parts, spec: TensorSpec, where: str) -> Initialiser:
    if parts.data or not parts.elsewhere:
        _refuse(f"{where} has data in the model and in another file; {_AGAIN}")
    location = parts.external.get("location", "")
    if not location:
        _refuse(f"{where} stands in another file that is not named; {_AGAIN}")
    offset = _whole(parts.external.get("offset", "0"), where)
    size = _whole(parts.external.get("length", str(spec.nbytes)), where)
    _require_size(size, spec, where)
    return Initialiser(parts.name, spec, offset, size, location=location)


def _whole(text: str, where: str) -> int:
    if not (text.isascii() and text.isdecimal() and len(text) < 20):
        _refuse(f"{where} stands at {shown(text)} of its file, which is no number; {_AGAIN}")
    return int(text)


def _require_size(size: int, spec: TensorSpec, where: str) -> None:
    if size != spec.nbytes:
        _refuse(f"{where} has {size} bytes, but its shape and dtype need {spec.nbytes}; {_AGAIN}")


_AGAIN = "the file is damaged, fetch or save it again"


def _refuse(message: str) -> NoReturn:
    raise CheckpointError(message)
