"""Weight standardisation; W_hat and its gradient lie in memory as the weight."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from ..common import layout


def forward(kernels: Any, weight: Tensor, gain: Tensor, eps: float) -> tuple[Tensor, Tensor, Tensor]:
    """W_hat, mean and 1/sqrt(var*N + eps)."""
    weight = layout.rows(weight)
    value, mean, inverse = kernels.forward(weight, gain.contiguous(), eps)
    return layout.like(value, weight), mean, inverse


def gradient(
    kernels: Any, weight: Tensor, gain: Tensor, mean: Tensor, inverse: Tensor, g_out: Tensor, eps: float
) -> tuple[Tensor, Tensor]:
    """Of weight and gain."""
    weight = layout.rows(weight)
    gain, mean, inverse = map(Tensor.contiguous, (gain, mean, inverse))
    g_weight, g_gain = kernels.backward(weight, gain, mean, inverse, layout.like(g_out, weight), eps)
    return layout.like(g_weight, weight), g_gain
