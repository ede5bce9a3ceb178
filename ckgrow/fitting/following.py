"""Attributes of torch's layers that repeat what the shapes of their tensors say."""

from __future__ import annotations

from typing import Any

from torch import nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd

from ckgrow.errors import CheckpointError
from ckgrow.graph import Node
from ckgrow.names import shown
from ckgrow.ops.conv import window


def follow(module: nn.Module, path: str, node: Node | None) -> None:
    """Makes the attributes of one layer fit its tensors, which are set already.

    ``node`` is what the student's graph computes with them, where it is known. Layers of classes
    that are not torch's own keep their attributes. Raises CheckpointError when the layer's own
    conventions (stride, groups, heads) do not go with the new shapes.
    """
    shape = _shape(module)
    if shape is None:
        return
    match module:
        case _ConvTransposeNd():
            module.in_channels, module.out_channels = shape[0], shape[1] * module.groups
            module.kernel_size = shape[2:]
        case _ConvNd():
            _follow_convolution(module, shape, path, node)
        case nn.Linear():
            module.out_features, module.in_features = shape
        case _NormBase():
            module.num_features = shape[0]
        case nn.LayerNorm() | nn.RMSNorm():
            module.normalized_shape = shape
        case nn.GroupNorm():
            if node is not None:
                module.num_groups = node.get("num_groups", module.num_groups)
            module.num_channels = shape[0]
            _divides(module.num_groups, shape[0], path, "num_groups")
        case nn.PReLU():
            module.num_parameters = shape[0]
        case nn.Embedding():
            module.num_embeddings, module.embedding_dim = shape
        case nn.MultiheadAttention():
            module.embed_dim = module.kdim = module.vdim = shape[1]
            _divides(module.num_heads, shape[1], path, "num_heads")
            module.head_dim = shape[1] // module.num_heads


def _shape(module: nn.Module) -> tuple[int, ...] | None:
    """The shape of the tensor that the attributes of a layer follow."""
    name = "in_proj_weight" if isinstance(module, nn.MultiheadAttention) else "weight"
    tensor: Any = getattr(module, name, None)
    if tensor is None:  # BatchNorm without gamma and beta
        tensor = getattr(module, "running_mean", None)
    return None if tensor is None else tuple(tensor.shape)


def _follow_convolution(
    module: _ConvNd, shape: tuple[int, ...], path: str, node: Node | None
) -> None:
    rows, columns, *kernel = shape
    if node is not None and node.op == "Conv":
        module.groups = node.get("group", 1)
        strides, _, before, after = window(node, len(kernel))
        if strides != module.stride:
            raise CheckpointError(
                f"{shown(path)} moves by {list(strides)} in the student and by "
                f"{list(module.stride)} in the module; give load_into a module of the teacher's "
                "class and options"
            )
        if tuple(kernel) != module.kernel_size:
            _follow_kernel(module, tuple(kernel), before, after, path)
    module.in_channels, module.out_channels = columns * module.groups, rows
    _divides(module.groups, rows, path, "groups")


def _follow_kernel(
    module: _ConvNd,
    kernel: tuple[int, ...],
    before: tuple[int, ...],
    after: tuple[int, ...],
    path: str,
) -> None:
    if before != after:
        raise CheckpointError(
            f"{shown(path)} pads its sides differently in the student ({list(before)} and "
            f"{list(after)}), which {type(module).__name__} cannot do"
        )
    module.kernel_size = kernel
    module.padding = before
    # what a padding_mode other than zeros pads with: last dimension first, both sides
    module._reversed_padding_repeated_twice = [side for side in before[::-1] for _ in range(2)]


def _divides(parts: int, width: int, path: str, attribute: str) -> None:
    if width % parts:
        raise CheckpointError(
            f"{shown(path)} has {attribute} {parts} in the module, which does not divide the "
            f"student's {width} channels; construct the module with the student's {attribute}"
        )
