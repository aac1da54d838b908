"""Binary synapse (equations/empf.md): W_b = scale_o * sign(W), its straight-through gradient, and packed signs."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

NAME = "reference"
OUTPUTS = 16  # outputs of a block
Pair = tuple[int, int]


class Geometry(NamedTuple):
    """Of a convolution over planes, as (height, width) each."""

    stride: Pair = (1, 1)
    padding: Pair = (0, 0)
    dilation: Pair = (1, 1)


def forward(weight: Tensor, scaled: bool) -> tuple[Tensor, Tensor]:
    """W_b = scale_o * sign(W) and scale_o = mean |W| in float64; `scaled` False: the bare sign."""
    scale = weight.double().flatten(1).abs().mean(1)
    sign = weight.sign()
    return sign * scale.view(-1, *[1] * (weight.dim() - 1)).to(sign) if scaled else sign, scale


def backward(weight: Tensor, g_out: Tensor) -> Tensor:
    """g_W = g_Wb where -1 <= W <= 1, else 0; not multiplied by scale_o."""
    return g_out * (weight.abs() <= 1)


def pack(sign: Tensor, bits: int) -> Tensor:
    """Signs [out, in, *kernel] as int32 words [blocks, taps, words, 16], a block being 16 outputs and a tap a place in
    the kernel. A word holds 32 / bits neighbouring inputs of one output, the first in its lowest bits:
    0 is +1 and 1 is -1 (1 bit), or two's complement (2 bits)."""
    per_word = 32 // bits
    code = sign.flatten(2) if sign.dim() > 2 else sign.unsqueeze(2)
    code = (code < 0).long() if bits == 1 else code.long() & 3
    outputs, inputs, taps = code.shape
    code = F.pad(code, (0, 0, 0, -inputs % per_word, 0, -outputs % OUTPUTS))
    code = code.view(-1, OUTPUTS, code.shape[1] // per_word, per_word, taps).permute(0, 4, 2, 1, 3)
    words = (code << torch.arange(0, 32, bits, device=code.device)).sum(-1)
    return torch.where(words >= 2**31, words - 2**32, words).int()


def unpack(words: Tensor, bits: int, shape: torch.Size) -> Tensor:
    """The signs in float32 that `pack` was given; `shape` is theirs."""
    code = (words.long().unsqueeze(-1) >> torch.arange(0, 32, bits, device=words.device)) & (2**bits - 1)
    sign = 1 - 2 * code if bits == 1 else (code & 1) - (code & 2)
    sign = sign.permute(0, 3, 2, 4, 1).flatten(2, 3).flatten(0, 1)
    return sign[: shape[0], : shape[1]].reshape(shape).float()


def output_shape(x: Any, shape: Any, geometry: Geometry) -> tuple[int, ...]:
    """The shape of the product of spikes of shape `x` with weights of shape `shape`."""
    if len(shape) == 2:
        return (*x[:-1], shape[0])
    if min(*geometry.stride, *geometry.dilation) < 1 or min(geometry.padding) < 0:
        raise ValueError(f"{geometry}: stride and dilation must be at least 1, padding at least 0")
    sides = zip(x[2:], shape[2:], *geometry, strict=True)
    return (x[0], shape[0], *((n + 2 * p - d * (k - 1) - 1) // s + 1 for n, k, s, p, d in sides))


def product(
    x: Tensor,
    words: Tensor,
    bits: int,
    shape: torch.Size,
    scale: Tensor | None,
    bias: Tensor | None,
    geometry: Geometry,
) -> Tensor:
    """y = scale_o * (sign(W) x) + bias over the last dimension of x, or the convolution of x [N, in, *plane].

    Accumulated in float32 (float64 for float64 spikes) and rounded once to x's dtype.
    """
    wide = x if x.dtype == torch.float64 else x.float()
    sign = unpack(words, bits, shape).to(wide.dtype)
    y = F.linear(wide, sign) if len(shape) == 2 else F.conv2d(wide, sign, None, *geometry)
    over = (-1,) + (1,) * (len(shape) - 2)
    if scale is not None:
        y = y * scale.view(over)
    if bias is not None:
        y = y + bias.view(over)
    return y.to(x.dtype)
