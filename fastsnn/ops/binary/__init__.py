"""Binary synapses (equations/empf.md): the weight transform with its gradient, packed weights and their product."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from ... import backends
from ...reference import binary as reference
from ...reference.binary import OUTPUTS, Geometry, output_shape
from ...types import FLOATING
from ..common.autograd import first_order
from ..common.dispatch import by_operators
from . import graph, passes

SPIKES = (torch.float32, torch.bfloat16, torch.float16)  # what packed weights multiply
LARGEST = 2**31 - 1  # fan-in


def _check_weight(weight: Tensor) -> None:
    if weight.dtype not in FLOATING:
        raise TypeError(f"weight has dtype {weight.dtype}; allowed: {', '.join(map(str, FLOATING))}")
    if weight.dim() < 2 or weight[:1].numel() == 0:
        raise ValueError(f"weight has shape {tuple(weight.shape)}; a synapse has [out, in, *kernel], none of them 0")


class Binarize(torch.autograd.Function):
    """scale_o * sign(W) with the straight-through gradient."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor, scaled: bool) -> Tensor:
        ctx.save_for_backward(weight)
        ctx.kernels = backends.select("binary", weight)
        return passes.binarize(ctx.kernels, weight, scaled)

    @staticmethod
    @first_order
    def backward(ctx: Any, g_out: Tensor) -> Any:
        (weight,) = ctx.saved_tensors
        return passes.binarize_gradient(ctx.kernels, weight, g_out), None


def binarize(weight: Tensor, scaled: bool = True) -> Tensor:
    """W_b = scale_o * sign(W), scale_o = mean |W| per output channel, detached; sign(0) = 0 (EM-PF, Hao et al. 2024).

    weight [out, in, *kernel]. scaled False: the bare sign. The gradient passes where -1 <= W <= 1, without the scale.
    Raises TypeError or ValueError for other weights, and for NaN or infinite ones on the CPU.
    """
    through = by_operators(weight)
    _check_weight(weight)
    if through:
        return graph.binarize(weight=weight, scaled=scaled)
    return Binarize.apply(weight, scaled)


class Packed(NamedTuple):
    """Packed weights: words [blocks, taps, words, 16] int32, bits a weight, shape [out, in, *kernel], scale [out]."""

    words: Tensor
    bits: int
    shape: torch.Size
    scale: Tensor | None


def words_shape(shape: torch.Size, bits: int) -> tuple[int, int, int, int]:
    """The shape of the words of packed weights [out, in, *kernel]. Raises ValueError for a fan-in beyond int32."""
    outputs, inputs, taps = shape[0], shape[1], shape[2:].numel()
    if inputs * taps > LARGEST:
        raise ValueError(f"weight has shape {tuple(shape)}: a fan-in of {inputs * taps}; at most {LARGEST}")
    return -(-outputs // OUTPUTS), taps, -(-inputs * bits // 32), OUTPUTS


@torch.no_grad()
def pack(weight: Tensor, scaled: bool = True) -> Packed:
    """sign(W) in 1 bit a weight, or in 2 where a weight is zero; scale_o = mean |W| in float32, or None.

    weight [out, in] or [out, in, height, width]. Raises TypeError or ValueError for another one, or one that holds NaN
    or infinite values, or has a fan-in beyond int32.
    """
    _check_weight(weight)
    if weight.dim() not in (2, 4):
        raise ValueError(f"weight has shape {tuple(weight.shape)}; linear and two-dimensional convolutions are packed")
    words_shape(weight.shape, 1)
    if not weight.isfinite().all():
        raise ValueError("weight holds NaN or infinite values; binary weights need finite ones")
    sign, scale = reference.forward(weight, False)
    bits = 2 if bool((sign == 0).any()) else 1
    return Packed(reference.pack(sign, bits), bits, weight.shape, scale.float() if scaled else None)


def unpack(packed: Packed) -> Tensor:
    """The binary weights [out, in, *kernel] in float32."""
    sign = reference.unpack(packed.words, packed.bits, packed.shape)
    return sign if packed.scale is None else sign * packed.scale.view(-1, *[1] * (sign.dim() - 1))


def _check_product(x: Tensor, packed: Packed, bias: Tensor | None) -> None:
    if x.dtype not in SPIKES:
        raise TypeError(f"spikes have dtype {x.dtype}; packed weights multiply {', '.join(map(str, SPIKES))}")
    if packed.bits not in (1, 2) or tuple(packed.words.shape) != words_shape(packed.shape, packed.bits):
        raise ValueError(
            f"words have shape {tuple(packed.words.shape)} and {packed.bits} bits; weights of shape "
            f"{tuple(packed.shape)} do not pack to that"
        )
    if packed.words.dtype != torch.int32 or packed.words.device != x.device:
        raise ValueError(f"words are {packed.words.dtype} on {packed.words.device}; spikes need int32 on {x.device}")
    for name, value in (("scale", packed.scale), ("bias", bias)):
        if value is not None and (tuple(value.shape) != (packed.shape[0],) or value.device != x.device):
            raise ValueError(
                f"{name} has shape {tuple(value.shape)} on {value.device}; one value an output is needed "
                f"({packed.shape[0]}) on {x.device}"
            )
    given = (x, packed.scale, bias)
    if torch.is_grad_enabled() and any(tensor is not None and tensor.requires_grad for tensor in given):
        raise RuntimeError("packed weights are for inference: use torch.no_grad(), or train the binary layer itself")


def _product(x: Tensor, packed: Packed, bias: Tensor | None, geometry: Geometry) -> Tensor:
    product: Any = graph.packed_product if by_operators(x, bias) else passes.product
    stride, padding, dilation = geometry
    return product(
        x=x,
        words=packed.words,
        bits=packed.bits,
        shape=packed.shape,
        scale=packed.scale,
        bias=bias,
        stride=stride,
        padding=padding,
        dilation=dilation,
    )


def packed_linear(x: Tensor, packed: Packed, bias: Tensor | None = None) -> Tensor:
    """y = W_b x + bias with packed W_b [out, in]: x [*, in] in float32, bfloat16 or float16, accumulated in float32.

    For inference: RuntimeError where an operand requires gradient, TypeError or ValueError where they do not fit.
    """
    _check_product(x, packed, bias)
    if len(packed.shape) != 2 or x.dim() < 1 or x.shape[-1] != packed.shape[1]:
        raise ValueError(f"spikes have shape {tuple(x.shape)}; weights {tuple(packed.shape)} take [*, in]")
    return _product(x, packed, bias, Geometry())


def packed_conv2d(x: Tensor, packed: Packed, bias: Tensor | None = None, geometry: Geometry | None = None) -> Tensor:
    """Convolution of x [N, in, height, width] with packed W_b [out, in, *kernel]; types and errors as packed_linear."""
    _check_product(x, packed, bias)
    geometry = geometry or Geometry()
    if len(packed.shape) != 4 or x.dim() != 4 or x.shape[1] != packed.shape[1]:
        raise ValueError(
            f"spikes have shape {tuple(x.shape)}; weights {tuple(packed.shape)} take [N, in, height, width]"
        )
    if min(output_shape(x.shape, packed.shape, geometry)[2:]) < 1:
        raise ValueError(f"spikes of {tuple(x.shape[2:])} are smaller than the kernel {tuple(packed.shape[2:])}")
    return _product(x, packed, bias, geometry)
