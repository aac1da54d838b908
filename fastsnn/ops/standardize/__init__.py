"""Weight standardisation: checks, autograd.Function and the functional entry."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from ... import backends
from ...types import FLOATING
from ..common.autograd import first_order
from ..common.dispatch import by_operators
from . import graph, passes

EPS = 1e-4


class Standardized(NamedTuple):
    """W_hat as computed, with the statistics its gradient needs."""

    value: Tensor
    mean: Tensor
    inverse: Tensor


def check(weight: Tensor, gain: Tensor) -> None:
    """Raises TypeError or ValueError where weight [out, *] and gain [out, 1, ...] do not fit."""
    if weight.dtype not in FLOATING:
        raise TypeError(f"weight has dtype {weight.dtype}; allowed: {', '.join(str(d) for d in FLOATING)}")
    if weight.dim() < 2 or weight[:1].numel() < 2:
        raise ValueError(
            f"weight has shape {tuple(weight.shape)}; its unbiased variance needs [out, *] with a fan-in of at least 2"
        )
    if gain.numel() != len(weight) or gain.dtype != weight.dtype or gain.device != weight.device:
        raise ValueError(
            f"gain has shape {tuple(gain.shape)}, {gain.dtype} on {gain.device}; it must hold one value an output "
            f"channel ({len(weight)}) of weight's dtype {weight.dtype} on {weight.device}"
        )


def compute(weight: Tensor, gain: Tensor, eps: float = EPS) -> Standardized:
    """W_hat and its statistics, outside autograd."""
    check(weight, gain)
    with torch.no_grad():
        if by_operators(weight, gain):
            return Standardized(*graph.standardize_forward(weight=weight, gain=gain, eps=eps))
        return Standardized(*passes.forward(backends.select("standardize", weight), weight, gain, eps))


def gradient(weight: Tensor, gain: Tensor, done: Standardized, g_out: Tensor, eps: float = EPS) -> tuple[Tensor, ...]:
    """Of weight and gain, outside autograd; done: the result of `compute` on them."""
    if by_operators(weight, gain):
        given = {"weight": weight, "gain": gain, "mean": done.mean, "inverse": done.inverse, "g_out": g_out}
        with torch.no_grad():
            return graph.standardize_backward(**given, eps=eps)
    kernels = backends.select("standardize", weight)
    return passes.gradient(kernels, weight, gain, done.mean, done.inverse, g_out, eps)


class Standardize(torch.autograd.Function):
    """Attaches the gradient of sWS to values computed before, so that several graphs may share them."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor, gain: Tensor, done: Standardized, eps: float) -> Tensor:
        ctx.save_for_backward(weight, gain, done.mean, done.inverse)
        # a backward pass may run in a thread that knows of no override
        ctx.eps, ctx.kernels = eps, backends.select("standardize", weight)
        return done.value.view_as(done.value)

    @staticmethod
    @first_order
    def backward(ctx: Any, g_out: Tensor) -> Any:
        weight, gain, mean, inverse = ctx.saved_tensors
        g_weight, g_gain = passes.gradient(ctx.kernels, weight, gain, mean, inverse, g_out, ctx.eps)
        return g_weight, g_gain, None, None


def standardize(weight: Tensor, gain: Tensor, eps: float = EPS, done: Standardized | None = None) -> Tensor:
    """W_hat = gain * (W - mean) / sqrt(var*N + eps), per output channel over its fan-in N, var unbiased
    (scaled weight standardisation; Brock et al. 2021, as in Xiao et al. 2022, appendix C.1).

    weight [out, *], gain [out, 1, ...] of one dtype. done: the result of `compute` on the same values.
    Raises TypeError or ValueError for operands that do not fit (a fan-in below 2 has no variance). W_hat and its
    gradient lie in memory as weight does, channels last too.
    """
    if done is None and by_operators(weight, gain):
        check(weight, gain)
        return graph.standardize_forward(weight=weight, gain=gain, eps=eps)[0]
    if done is not None and (done.value.shape != weight.shape or len(done.mean) != len(weight)):
        raise ValueError(
            f"done holds a W_hat of shape {tuple(done.value.shape)} for weight's {tuple(weight.shape)}; it must be "
            "`compute(weight, gain)` of these operands"
        )
    return Standardize.apply(weight, gain, compute(weight, gain, eps) if done is None else done, eps)
