"""Weight standardisation on one core."""

from __future__ import annotations

import torch
from torch import Tensor

from ..backends import register
from ..backends.core import Core
from ..reference import standardize as reference
from .operands import DTYPES

_WEIGHT = "where, rows: int, cols: int, dtype: dtype, eps: float, weight: input, gain: input"
SIGNATURES = {
    "standardize_forward": f"{_WEIGHT}, mean: >float64, inverse: >float64, out: >input",
    "standardize_backward": (
        f"{_WEIGHT}, mean: float64, inverse: float64, g_out: input, g_weight: >input, g_gain: >input"
    ),
}


class StandardizeKernels:
    """Weight-standardisation kernels of one core; signatures as fastsnn.reference.standardize."""

    def __init__(self, core: Core) -> None:
        self.NAME, self._core, self._where = core.name, core.checked(SIGNATURES), core.where

    def forward(self, weight: Tensor, gain: Tensor, eps: float) -> tuple[Tensor, Tensor, Tensor]:
        rows, cols = len(weight), weight[0].numel()
        out = torch.empty_like(weight)
        mean = weight.new_empty(rows, dtype=torch.float64)
        inverse = torch.empty_like(mean)
        operands = (weight, gain, mean, inverse, out)
        self._core.standardize_forward(self._where(weight), rows, cols, DTYPES[weight.dtype], eps, *operands)
        return out, mean, inverse

    def backward(
        self, weight: Tensor, gain: Tensor, mean: Tensor, inverse: Tensor, g_out: Tensor, eps: float
    ) -> tuple[Tensor, Tensor]:
        rows, cols = len(weight), weight[0].numel()
        g_weight, g_gain = torch.empty_like(weight), torch.empty_like(gain)
        operands = (weight, gain, mean, inverse, g_out, g_weight, g_gain)
        self._core.standardize_backward(self._where(weight), rows, cols, DTYPES[weight.dtype], eps, *operands)
        return g_weight, g_gain


register("standardize", StandardizeKernels, reference)
