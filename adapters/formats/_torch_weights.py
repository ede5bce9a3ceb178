"""Finds the state dict in a loaded torch file, and refuses tensors that are not plain data."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ckgrow.checkpoint import PROVENANCE_KEY
from ckgrow.errors import CheckpointError, SpecError
from ckgrow.header import Header, TensorSpec, common_prefix
from ckgrow.names import shown

from ._shapes import nbytes_of

if TYPE_CHECKING:
    import torch

USUAL_NAMES = ("state_dict", "model_state_dict", "model")
"""Names of the state dict in a container; the first that is there is the teacher."""

_COUNTERS = frozenset({"n_averaged"})
"""What torch.optim.swa_utils.AveragedModel keeps beside the module."""

_FLOATS = "float64 float32 float16 bfloat16"
_FLOATS8 = "float8_e4m3fn float8_e5m2 float8_e8m0fnu float8_e4m3fnuz float8_e5m2fnuz"
_INTEGERS = "int64 int32 int16 int8 uint64 uint32 uint16 uint8 bool"
_DTYPES = frozenset(f"{_FLOATS} {_FLOATS8} {_INTEGERS}".split())


@dataclass(frozen=True)
class Chosen:
    """The tensors that are the weights, where they stood, and everything else by name."""

    name: str | None
    tensors: Mapping[str, torch.Tensor]
    dropped: tuple[str, ...]


def choose(loaded: Any, weights: str | None, place: str) -> Chosen:
    """The state dict called ``weights``, else the first of the usual names, else all of it.

    ``dropped`` lists what is no weight: the entries beside the state dict, and those in it that
    are no tensors, as ``NAME.KEY``. Raises SpecError when nothing is called ``weights``,
    CheckpointError when there are no tensors.
    """
    if not isinstance(loaded, Mapping):
        raise CheckpointError(
            f"{place} holds a {type(loaded).__name__}, not a state dict; save model.state_dict()"
        )
    if weights is None:
        present = (each for each in USUAL_NAMES if isinstance(loaded.get(each), Mapping))
        name = next(present, None)
    else:
        name = weights
        _require_entry(loaded, weights, place)
    entries: Mapping[Any, Any] = loaded if name is None else loaded[name]
    tensors = tensors_in(entries)
    if not tensors:
        where = place if name is None else f"the entry {shown(name)} of {place}"
        raise CheckpointError(f"{where} holds no tensors; {_alternatives(loaded)}")
    require_names(tensors, place)
    own = {name, PROVENANCE_KEY} if isinstance(loaded.get(PROVENANCE_KEY), str) else {name}
    beside = [] if name is None else [str(key) for key in loaded if key not in own]
    prefix = "" if name is None else f"{name}."
    inside = [f"{prefix}{key}" for key in entries if key not in tensors]
    return Chosen(name, tensors, (*beside, *inside))


def tensors_in(entries: Mapping[Any, Any]) -> dict[Any, torch.Tensor]:
    """The entries of a state dict that are a network's tensors.

    An average of a model counts its updates beside the model, which it wraps: in ``n_averaged``
    beside ``module.conv.weight``. That is no tensor of the network.
    """
    tensors = {key: value for key, value in entries.items() if is_tensor(value)}
    counters = [key for key in tensors if key in _COUNTERS and not tensors[key].ndim]
    if counters:
        rest = {key: each for key, each in tensors.items() if key not in counters}
        if all(isinstance(key, str) for key in rest) and common_prefix(rest):
            return rest
    return tensors


def is_tensor(value: Any) -> bool:
    """Whether it is a tensor of any kind."""
    import torch

    return isinstance(value, torch.Tensor)


def require_names(tensors: Mapping[Any, torch.Tensor], place: str) -> None:
    """CheckpointError unless tensors are called by valid texts."""
    for name in tensors:
        if not isinstance(name, str):
            raise CheckpointError(
                f"{place}: a tensor is called {shown(repr(name))}, a {type(name).__name__}; names "
                "are strings, so rename it and save the file again"
            )
        try:
            name.encode()
        except UnicodeEncodeError:
            raise CheckpointError(
                f"{place}: the tensor name {shown(name)} is no valid Unicode; rename it"
            ) from None


def specs_of(tensors: Mapping[str, torch.Tensor], capacity: int, place: str) -> Header:
    """Dtypes and shapes of tensors that are dense, on the CPU and really in the file.

    ``capacity`` is the number of bytes the file can hold; a tensor that is larger than its
    storage repeats elements, and a few bytes could stand for a terabyte. Raises CheckpointError.
    """
    specs: dict[str, TensorSpec] = {}
    storages: dict[int, int] = {}
    for name, tensor in tensors.items():
        obstacle = _obstacle(tensor)
        if obstacle:
            raise CheckpointError(f"{place}: tensor {shown(name)} {obstacle}, and save it again")
        storage = tensor.untyped_storage()
        if nbytes_of(name, tensor.shape, tensor.element_size(), place) > storage.nbytes():
            raise CheckpointError(
                f"{place}: tensor {shown(name)} of shape {tuple(tensor.shape)} repeats the "
                f"{storage.nbytes()} bytes the file has for it; replace it by its clone(), and "
                "save it again"
            )
        storages[storage.data_ptr()] = storage.nbytes()
        specs[name] = TensorSpec(str(tensor.dtype).removeprefix("torch."), tuple(tensor.shape))
    if sum(storages.values()) > capacity:
        raise CheckpointError(
            f"{place}: its tensors claim {sum(storages.values())} bytes, and the file holds "
            f"{capacity}; it is damaged or forged, fetch or save it again"
        )
    return Header(specs)


def _require_entry(loaded: Mapping[Any, Any], weights: str, place: str) -> None:
    if weights not in loaded:
        raise SpecError(f"{place} has no entry {shown(weights)}; {_alternatives(loaded)}")
    if not isinstance(loaded[weights], Mapping):
        kind = type(loaded[weights]).__name__
        raise SpecError(
            f"the entry {shown(weights)} of {place} is a {kind}, not a state dict; "
            f"{_alternatives(loaded)}"
        )


def _alternatives(loaded: Mapping[Any, Any]) -> str:
    names = [str(key) for key, value in loaded.items() if _is_state_dict(value)]
    if not names:
        return "save model.state_dict() with torch.save"
    return f"choose weights that are there: {_listed(names)}"


def _listed(names: Iterable[str], most: int = 8) -> str:
    texts = [shown(name) for name in names]
    more = [f"and {len(texts) - most} more"] if len(texts) > most else []
    return ", ".join(texts[:most] + more)


def _is_state_dict(value: Any) -> bool:
    return isinstance(value, Mapping) and any(is_tensor(each) for each in value.values())


def _obstacle(tensor: torch.Tensor) -> str | None:
    """Why a tensor is not plain dense data, and what to do about it; None when it is."""
    import torch

    if tensor.is_quantized:
        return "is quantized; dequantize() it"
    if tensor.is_nested:
        return "is nested; store its parts as tensors of their own"
    if tensor.layout != torch.strided:
        return "is sparse; make it dense with to_dense()"
    if type(tensor) not in (torch.Tensor, torch.nn.Parameter):
        return f"is a {type(tensor).__name__}, more than a tensor; store plain tensors"
    if tensor.device.type != "cpu":
        return f"has no data, only a shape (device {tensor.device.type}); load its weights"
    dtype = str(tensor.dtype).removeprefix("torch.")
    if dtype not in _DTYPES:
        kind = "is complex" if tensor.is_complex() else "is not supported"
        return f"has dtype {dtype}, which {kind}; store it as real tensors"
    return None
