"""The bytes of an ONNX model but for the numbers of its tensors, and where those go.

The onnx package makes every message; here they are put together, because the numbers are streamed
to offsets that have to be known before: a model is its fields, then its graph, whose initialisers
come last, each with its numbers at its end.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from onnx import ModelProto, TensorProto, helper

from ckgrow.checkpoint import Content
from ckgrow.errors import CheckpointError
from ckgrow.header import TensorSpec
from ckgrow.names import shown
from ckgrow.version import VERSION

from ._onnx_graph import IR_VERSION, OPSET, graph_of
from ._onnx_parsing import WRITER
from ._onnx_types import GRAPH, INITIALIZER, NUMBERS, RAW
from ._onnx_wire import BYTES

_PAGE = 4096
_ALIGNMENT = 64  # of tensors smaller than a few pages
_SMALL = 1 << 20


@dataclass(frozen=True)
class Place:
    """Where the numbers of a tensor are: ``location`` is relative to the model's folder."""

    location: str
    offset: int


@dataclass(frozen=True)
class Layout:
    """The ``pieces`` of a model by their offsets, ``size`` bytes with what is between them.

    ``start`` is the first piece, which has the metadata. ``offsets`` are those of tensors whose
    numbers stand in the model.
    """

    pieces: Mapping[int, bytes]
    offsets: Mapping[str, int]
    size: int

    @property
    def start(self) -> bytes:
        """The piece that the file begins with."""
        return self.pieces[0]


def beside(content: Content, location: str) -> tuple[dict[str, Place], int]:
    """Places for all tensors in one further file, and its size.

    Large tensors begin at a page, so that they can be mapped. Empty ones stay in the model: some
    readers take a length of 0 for all that follows.
    """
    places: dict[str, Place] = {}
    end = 0
    for name, spec in content.header.items():
        if not spec.nbytes:
            continue
        alignment = _ALIGNMENT if spec.nbytes < _SMALL else _PAGE
        begin = -(-end // alignment) * alignment
        places[name] = Place(location, begin)
        end = begin + spec.nbytes
    return places, end


def compose(content: Content, places: Mapping[str, Place], where: str) -> Layout:
    """The layout of a model whose tensors are in ``places``, those that are in none in itself.

    Raises CheckpointError for what the format cannot hold.
    """
    _require_names(content, where)
    graph = graph_of(content).SerializeToString(deterministic=True)
    tensors = {
        name: _tensor(name, spec, places.get(name), where) for name, spec in content.header.items()
    }
    body = len(graph) + sum(
        len(text) + (0 if name in places else content.header[name].nbytes)
        for name, text in tensors.items()
    )
    start = _model(content) + _key(GRAPH, body) + graph
    pieces, offsets, run, begin = {}, {}, [start], 0
    for name, text in tensors.items():
        run.append(text)
        if name not in places:
            pieces[begin] = b"".join(run)
            offsets[name] = begin + len(pieces[begin])
            run, begin = [], offsets[name] + content.header[name].nbytes
    if run:
        pieces[begin] = b"".join(run)
    return Layout(pieces, offsets, begin + sum(map(len, run)))


def _model(content: Content) -> bytes:
    """The fields of the model besides its graph."""
    model = ModelProto(
        ir_version=IR_VERSION,
        producer_name=WRITER,
        producer_version=VERSION,
        opset_import=[helper.make_opsetid("", OPSET)],
    )
    for key, value in content.metadata.items():
        model.metadata_props.add(key=key, value=value)
    return model.SerializeToString(deterministic=True)


def _tensor(name: str, spec: TensorSpec, place: Place | None, where: str) -> bytes:
    """An initialiser, up to its numbers where those follow it."""
    if spec.dtype not in NUMBERS:
        raise CheckpointError(
            f"{where}: ONNX cannot hold tensor {shown(name)} of dtype {spec.dtype}"
        )
    tensor = TensorProto(name=name, dims=spec.shape, data_type=NUMBERS[spec.dtype])
    if place is not None:
        tensor.data_location = TensorProto.EXTERNAL
        stated = {"location": place.location, "offset": place.offset, "length": spec.nbytes}
        for key, value in stated.items():
            tensor.external_data.add(key=key, value=str(value))
    text = tensor.SerializeToString(deterministic=True)
    numbers = 0
    if place is None:
        text += _key(RAW, spec.nbytes)
        numbers = spec.nbytes
    return _key(INITIALIZER, len(text) + numbers) + text


def _key(number: int, size: int) -> bytes:
    """The beginning of a field of ``size`` bytes."""
    return _varint(number << 3 | BYTES) + _varint(size)


def _varint(value: int) -> bytes:
    encoded = bytearray()
    while value >= 0x80:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)


def _require_names(content: Content, where: str) -> None:
    """What protocol buffers refuse, or the checker of ONNX."""
    for text in (*content.header, *content.metadata, *content.metadata.values()):
        try:
            text.encode()
        except UnicodeEncodeError:
            raise CheckpointError(
                f"{where}: the name {shown(text)} is no valid Unicode; rename it"
            ) from None
    if "" in content.header:
        raise CheckpointError(f"{where}: ONNX cannot hold a tensor without a name; rename it")
