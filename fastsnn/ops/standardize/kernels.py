"""Weight standardisation on one core."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ...backends import register
from ...reference import standardize as reference
from ..common.kernels import DTYPES, Family


class StandardizeKernels(Family):
    """Weight-standardisation kernels of one core; signatures as fastsnn.reference.standardize."""

    CALLS = ("standardize_",)

    def _sizes(self, weight: Tensor, eps: float) -> dict[str, Any]:
        rows, cols = weight.shape[0], weight.shape[1:].numel()
        return {"where": self._where(weight), "rows": rows, "cols": cols, "dtype": DTYPES[weight.dtype], "eps": eps}

    def forward(self, weight: Tensor, gain: Tensor, eps: float) -> tuple[Tensor, Tensor, Tensor]:
        out, mean = torch.empty_like(weight), weight.new_empty(weight.shape[0], dtype=torch.float64)
        inverse = torch.empty_like(mean)
        self._core.standardize_forward(
            **self._sizes(weight, eps), weight=weight, gain=gain, mean=mean, inverse=inverse, out=out
        )
        return out, mean, inverse

    def backward(
        self, weight: Tensor, gain: Tensor, mean: Tensor, inverse: Tensor, g_out: Tensor, eps: float
    ) -> tuple[Tensor, Tensor]:
        g_weight, g_gain = torch.empty_like(weight), torch.empty_like(gain)
        given = {"weight": weight, "gain": gain, "mean": mean, "inverse": inverse, "g_out": g_out}
        self._core.standardize_backward(**self._sizes(weight, eps), **given, g_weight=g_weight, g_gain=g_gain)
        return g_weight, g_gain


register("standardize", StandardizeKernels, reference)
