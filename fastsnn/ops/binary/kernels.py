"""Binary synapses on one core."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ...backends import register
from ...reference import binary as reference
from ...reference.binary import Geometry, output_shape
from ..common.kernels import DTYPES, Family

POINT = (1, 1)  # a plane, or a kernel, of one pixel


class BinaryKernels(Family):
    """Binary synapses on one core; signatures as fastsnn.reference.binary."""

    CALLS = ("binarize_", "packed_")

    def _sizes(self, weight: Tensor) -> dict[str, Any]:
        rows, cols = len(weight), weight[0].numel()
        return {"where": self._where(weight), "rows": rows, "cols": cols, "dtype": DTYPES[weight.dtype]}

    def forward(self, weight: Tensor, scaled: bool) -> tuple[Tensor, Tensor]:
        out, scale = torch.empty_like(weight), weight.new_empty(len(weight), dtype=torch.float64)
        self._core.binarize_forward(**self._sizes(weight), scaled=scaled, weight=weight, scale=scale, out=out)
        return out, scale

    def backward(self, weight: Tensor, g_out: Tensor) -> Tensor:
        g_weight = torch.empty_like(weight)
        self._core.binarize_backward(**self._sizes(weight), weight=weight, g_out=g_out, g_weight=g_weight)
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
        in_plane: Sequence[int] = POINT
        out_plane: Sequence[int] = POINT
        if kernel:
            y = x.new_empty(output_shape(x.shape, shape, geometry))
            if not x.is_contiguous() and x.is_contiguous(memory_format=torch.channels_last):
                y = y.contiguous(memory_format=torch.channels_last)
            in_plane, out_plane = x.shape[2:], y.shape[2:]
            x_strides, y_strides = x.stride(), y.stride()
        else:
            y = x.new_empty(*x.shape[:-1], outputs)
            x = x if x.dim() == 2 else x.reshape(-1, inputs)
            x_strides, y_strides = (*x.stride(), 0, 0), (outputs, 1, 0, 0)
        stride, padding, dilation = geometry
        self._core.packed_product(
            where=self._where(x),
            batch=len(x),
            channels=inputs,
            outputs=outputs,
            in_plane=in_plane,
            out_plane=out_plane,
            kernel=kernel or POINT,
            stride=stride,
            padding=padding,
            dilation=dilation,
            x_strides=x_strides,
            y_strides=y_strides,
            bits=bits,
            dtype=DTYPES[x.dtype],
            x=x,
            words=words,
            scale=scale,
            bias=bias,
            y=y,
        )
        return y


register("binary", BinaryKernels, reference)
