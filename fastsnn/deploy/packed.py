"""Layers that hold packed binary weights, and the network made of them."""

from __future__ import annotations

import copy
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from ..nn import BinaryConv2d, BinaryLinear, plain, reset
from ..nn.tree import hooked, replace
from ..ops import binary as op
from ..ops.binary import Geometry, Packed

__all__ = ["PackedConv2d", "PackedLinear", "pack"]


class _Packed(nn.Module):
    """Packed weights as buffers: words, scale (or None), bias (or None)."""

    words: Tensor
    scale: Tensor | None
    bias: Tensor | None

    def __init__(self, layer: Any, packed: Packed) -> None:
        super().__init__()
        self.bits, self.shape = packed.bits, packed.shape
        self.register_buffer("words", packed.words)
        self.register_buffer("scale", packed.scale)
        self.register_buffer("bias", None if layer.bias is None else layer.bias.detach().clone())
        self.eval()

    @property
    def packed(self) -> Packed:
        """What the functional entries take."""
        return Packed(self.words, self.bits, self.shape, self.scale)

    def extra_repr(self) -> str:
        outputs, inputs, *kernel = self.shape
        size = f", kernel_size={tuple(kernel)}" if kernel else ""
        return f"{inputs}, {outputs}{size}, bits={self.bits}, scale={self.scale is not None}"


class PackedLinear(_Packed):
    """A BinaryLinear for inference: the same product from packed weights, without gradient."""

    def forward(self, x: Tensor) -> Tensor:
        """y = W_b x + b for x [*, in] in float32, bfloat16 or float16."""
        return op.packed_linear(plain(x), self.packed, self.bias)


class PackedConv2d(_Packed):
    """A BinaryConv2d for inference: the same convolution from packed weights, without gradient."""

    def __init__(self, layer: BinaryConv2d, packed: Packed) -> None:
        if layer.groups != 1:
            raise ValueError(f"groups is {layer.groups}; only convolutions with groups=1 are packed")
        super().__init__(layer, packed)
        stride, dilation, padding = layer.stride, layer.dilation, layer.padding
        self.ends: list[int] | None = None
        self.mode = "constant" if layer.padding_mode == "zeros" else layer.padding_mode
        if isinstance(padding, str) or self.mode != "constant":
            self.ends = list(layer._reversed_padding_repeated_twice)
            padding = (0, 0)
        self.geometry = Geometry(stride, padding, dilation)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        """y = W_b * x + b for x [N, in, height, width] in float32, bfloat16 or float16."""
        x = plain(x) if self.ends is None else F.pad(plain(x), self.ends, mode=self.mode)
        return op.packed_conv2d(x, self.packed, self.bias, self.geometry)


KINDS: dict[type[nn.Module], type[_Packed]] = {BinaryLinear: PackedLinear, BinaryConv2d: PackedConv2d}


def refuse_training(net: nn.Module, purpose: str) -> None:
    """Raises ValueError, with names, where a module is in training mode."""
    training = [name or type(module).__name__ for name, module in net.named_modules() if module.training]
    if training:
        raise ValueError(f"{', '.join(training[:3])} in training mode; call net.eval() before {purpose}")


def pack(net: nn.Module) -> nn.Module:
    """A copy of `net` for inference, its binary layers packed: 1 bit a weight, or 2 in a layer that has a zero weight.

    All else is copied as it is, neurons start anew. `fastsnn.deploy.sizes` says what was chosen. `net` stays as it was.
    Raises ValueError where a module is in training mode, a weight is NaN or infinite, or a layer cannot be packed,
    TypeError for a layer of a class derived from them, or with forward hooks.
    """
    refuse_training(net, "packing")
    packed = copy.deepcopy(net)
    reset(packed)
    return replace(packed, _pack_layer)


def _pack_layer(name: str, layer: Any) -> nn.Module:
    if not isinstance(layer, (BinaryLinear, BinaryConv2d)):
        return layer
    own = type(layer) in KINDS
    if not own or hooked(layer):
        what = "has forward hooks" if own else f"is {type(layer).__name__}, derived from a binary layer"
        raise TypeError(
            f"{name or type(layer).__name__} {what}: what that adds cannot be packed. Make the network with "
            "fastsnn.BinaryLinear and BinaryConv2d themselves (parametrizations and pruning removed first)"
        )
    try:
        return KINDS[type(layer)](layer, op.pack(layer.weight, layer.scale))
    except (TypeError, ValueError) as error:
        raise type(error)(f"{name or type(layer).__name__}: {error}") from error
