"""Surrogate derivatives sg(z), z = u - th (equations/lif.md)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def derivative(z: Tensor, shape: str, h: float, k: float) -> Tensor:
    """sg(z) of height h and slope k; the shapes stand in csrc/core/surrogate.h in the same order."""
    kz = (k * z).abs()
    if shape == "sigmoid":
        e = torch.exp(-kz)
        return h * e / ((1 + e) * (1 + e))
    if shape == "triangle":
        return h * (1 - kz).clamp(min=0)
    if shape == "rectangle":
        return h * (z.abs() <= k).to(z)
    if shape == "rect_open":
        return h * (z.abs() < k).to(z)
    if shape == "atan":
        return h * (1 + kz * kz).reciprocal()
    if shape == "piecewise_exp":
        return h * torch.exp(-kz)
    if shape == "soft_sign":
        return h * ((1 + kz) * (1 + kz)).reciprocal()
    if shape == "erf":
        return h * torch.exp(-(kz * kz))
    raise ValueError(f"surrogate shape is {shape!r}; allowed: {', '.join(SHAPES)}")


# in the order of the native core's codes (csrc/core/surrogate.h)
SHAPES = (
    "sigmoid",
    "triangle",
    "rectangle",
    "rect_open",
    "atan",
    "piecewise_exp",
    "soft_sign",
    "erf",
)


class Heaviside(torch.autograd.Function):
    """s = 1 where z >= 0, ds/dz = sg(z)."""

    @staticmethod
    def forward(ctx: Any, z: Tensor, shape: str, h: float, k: float) -> Tensor:
        ctx.save_for_backward(z)
        ctx.surrogate = (shape, h, k)
        return (z >= 0).to(z)

    @staticmethod
    def backward(ctx: Any, g_s: Tensor) -> Any:
        (z,) = ctx.saved_tensors
        return g_s * derivative(z, *ctx.surrogate), None, None, None
