"""Binary synapses on one core."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ..backends import register
from ..backends.core import Core
from ..reference import binary as reference
from ..reference.binary import Geometry, output_shape
from .operands import DTYPES

SIGNATURES = {
    "binarize_forward": (
        "where, rows: int, cols: int, dtype: dtype, scaled: bool, weight: input, scale: >float64, out: >input"
    ),
    "binarize_backward": "where, rows: int, cols: int, dtype: dtype, weight: input, g_out: input, g_weight: >input",
    "packed_product": (
        "where, batch: int, channels: int, outputs: int, in: int[2], out: int[2], kernel: int[2], stride: int[2], "
        "padding: int[2], dilation: int[2], x_strides: int[4], y_strides: int[4], bits: int, dtype: dtype, "
        "x: input strided, words: int32, scale: float32?, bias: float32?, y: >input strided"
    ),
}
POINT = (1, 1)  # a plane, or a kernel, of one pixel


class BinaryKernels:
    """Binary synapses on one core; signatures as fastsnn.reference.binary."""

    def __init__(self, core: Core) -> None:
        self.NAME, self._core, self._where = core.name, core.checked(SIGNATURES), core.where

    def forward(self, weight: Tensor, scaled: bool) -> tuple[Tensor, Tensor]:
        out, scale = torch.empty_like(weight), weight.new_empty(len(weight), dtype=torch.float64)
        sizes = len(weight), weight[0].numel(), DTYPES[weight.dtype]
        self._core.binarize_forward(self._where(weight), *sizes, scaled, weight, scale, out)
        return out, scale

    def backward(self, weight: Tensor, g_out: Tensor) -> Tensor:
        g_weight = torch.empty_like(weight)
        sizes = len(weight), weight[0].numel(), DTYPES[weight.dtype]
        self._core.binarize_backward(self._where(weight), *sizes, weight, g_out, g_weight)
        return g_weight

    def product(
        self,
        x: Tensor,
        words: Tensor,
        bits: int,
        shape: torch.Size,
        scale: Tensor | None,
        bias: Tensor | None,
        geometry: Geometry,
    ) -> Tensor:
        outputs, inputs, *kernel = shape
        planes: tuple[Sequence[int], ...]
        if kernel:
            y = x.new_empty(output_shape(x.shape, shape, geometry))
            if not x.is_contiguous() and x.is_contiguous(memory_format=torch.channels_last):
                y = y.contiguous(memory_format=torch.channels_last)
            samples, planes = len(x), (x.shape[2:], y.shape[2:], kernel)
            strides = x.stride(), y.stride()
        else:
            y = x.new_empty(*x.shape[:-1], outputs)
            x = x if x.dim() == 2 else x.reshape(-1, inputs)
            samples, planes = len(x), (POINT, POINT, POINT)
            strides = (*x.stride(), 0, 0), (outputs, 1, 0, 0)
        self._core.packed_product(
            self._where(x),
            samples,
            inputs,
            outputs,
            *planes,
            *geometry,
            *strides,
            bits,
            DTYPES[x.dtype],
            x,
            words,
            scale,
            bias,
            y,
        )
        return y


register("binary", BinaryKernels, reference)
