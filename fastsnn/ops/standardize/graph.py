"""Weight standardisation as operators."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ... import backends
from ..common import layout
from ..common.library import contiguous_like, define, differentiate
from . import passes


def _fake_forward(k: Any) -> tuple[Tensor, Tensor, Tensor]:
    mean = k.weight.new_empty(k.weight.shape[0], dtype=torch.float64)
    return torch.empty_like(layout.rows(k.weight)), mean, torch.empty_like(mean)


@define(
    "standardize_forward",
    "(Tensor weight, Tensor gain, float eps) -> (Tensor value, Tensor mean, Tensor inverse)",
    _fake_forward,
)
def standardize_forward(k: Any) -> tuple[Tensor, Tensor, Tensor]:
    """A backend's standardisation: W_hat, mean and 1/sqrt(var*N + eps)."""
    return passes.forward(backends.select("standardize", k.weight), k.weight, k.gain, k.eps)


def _fake_backward(k: Any) -> tuple[Tensor, Tensor]:
    return torch.empty_like(layout.rows(k.weight)), contiguous_like(k.gain)


@define(
    "standardize_backward",
    "(Tensor weight, Tensor gain, Tensor mean, Tensor inverse, Tensor g_out, float eps) -> "
    "(Tensor g_weight, Tensor g_gain)",
    _fake_backward,
)
def standardize_backward(k: Any) -> tuple[Tensor, Tensor]:
    """A backend's gradient of the standardisation."""
    return passes.gradient(backends.select("standardize", k.weight), *k)


def _keep(ctx: Any, k: Any, output: tuple[Tensor, ...]) -> None:
    _, mean, inverse = output
    ctx.mark_non_differentiable(mean, inverse)
    ctx.save_for_backward(k.weight, k.gain, mean, inverse)
    ctx.eps = k.eps


def _gradient(ctx: Any, g_value: Tensor, *_: Any) -> dict[str, Tensor]:
    weight, gain, mean, inverse = ctx.saved_tensors
    given = {"weight": weight, "gain": gain, "mean": mean, "inverse": inverse}
    g_weight, g_gain = standardize_backward(**given, g_out=g_value, eps=ctx.eps)
    return {"weight": g_weight, "gain": g_gain}


differentiate(standardize_forward, _gradient, _keep)
