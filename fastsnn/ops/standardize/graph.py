"""Weight standardisation as operators."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ... import backends
from ..common import layout
from ..common.autograd import first_order
from ..common.library import call, contiguous_like, define, differentiate
from . import passes


def _fake_standardize_forward(weight: Tensor, gain: Tensor, eps: float) -> tuple[Tensor, Tensor, Tensor]:
    mean = weight.new_empty(weight.shape[0], dtype=torch.float64)
    return torch.empty_like(layout.rows(weight)), mean, torch.empty_like(mean)


@define(
    "standardize_forward",
    "(Tensor weight, Tensor gain, float eps) -> (Tensor value, Tensor mean, Tensor inverse)",
    _fake_standardize_forward,
)
def standardize_forward(weight: Tensor, gain: Tensor, eps: float) -> tuple[Tensor, Tensor, Tensor]:
    """A backend's standardisation: W_hat, mean and 1/sqrt(var*N + eps)."""
    return passes.forward(backends.select("standardize", weight), weight, gain, eps)


def _fake_standardize_backward(
    weight: Tensor, gain: Tensor, mean: Tensor, inverse: Tensor, g_out: Tensor, eps: float
) -> tuple[Tensor, Tensor]:
    return torch.empty_like(layout.rows(weight)), contiguous_like(gain)


@define(
    "standardize_backward",
    "(Tensor weight, Tensor gain, Tensor mean, Tensor inverse, Tensor g_out, float eps) -> "
    "(Tensor g_weight, Tensor g_gain)",
    _fake_standardize_backward,
)
def standardize_backward(
    weight: Tensor, gain: Tensor, mean: Tensor, inverse: Tensor, g_out: Tensor, eps: float
) -> tuple[Tensor, Tensor]:
    """A backend's gradient of the standardisation."""
    return passes.gradient(backends.select("standardize", weight), weight, gain, mean, inverse, g_out, eps)


def _keep_statistics(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    weight, gain, ctx.eps = inputs
    _, mean, inverse = output
    ctx.mark_non_differentiable(mean, inverse)
    ctx.save_for_backward(weight, gain, mean, inverse)


@first_order
def _standardize_gradient(ctx: Any, g_value: Tensor, *_: Any) -> tuple[Tensor | None, ...]:
    return *call(standardize_backward, *ctx.saved_tensors, g_value, ctx.eps), None


differentiate("standardize_forward", _standardize_gradient, _keep_statistics)
