"""Online spiking renormalisation: checks, autograd.Functions and the statistics across processes (SPEC section 5)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from .. import backends
from ..reference import osr as reference
from . import layout
from .autograd import first_order
from .stats import Affine, Moments, gather, sum_over
from .types import FLOATING, Forward, LIFParams, LIFState


def check_input(x: Tensor, channels: int, dims: tuple[int, ...] | None) -> None:
    """Raises TypeError or ValueError where x is not a floating [N, C, *] of `channels` and of allowed dimensions."""
    if not isinstance(x, Tensor) or x.dtype not in FLOATING:
        what = x.dtype if isinstance(x, Tensor) else type(x).__name__
        raise TypeError(f"x is {what}; it must be a tensor of {', '.join(str(d) for d in FLOATING)}")
    if x.dim() < 2 or (dims is not None and x.dim() not in dims):
        allowed = "at least 2" if dims is None else " or ".join(map(str, dims))
        raise ValueError(f"x has shape {tuple(x.shape)}; it must have {allowed} dimensions, [N, C, *]")
    if x.shape[1] != channels:
        raise ValueError(f"x has {x.shape[1]} channels, shape {tuple(x.shape)}; num_features is {channels}")


def check_enough(x: Tensor, group: Any) -> None:
    """Raises ValueError for one element a channel: its gradient would be zero everywhere."""
    if group is None and x.numel() == x.shape[1]:
        raise ValueError(
            f"x has shape {tuple(x.shape)}, one element a channel: training needs more, as batch normalisation does"
        )


def laid_out(x: Tensor) -> Tensor:
    """x where it is contiguous or has its channels last, else a contiguous copy."""
    return x if x.is_contiguous() or x.movedim(1, -1).is_contiguous() else x.contiguous()


def affine_of(mean: Tensor, variance: Tensor, weight: Tensor, bias: Tensor, eps: float) -> tuple[Affine, Tensor]:
    """The affine map of these statistics, and its scale 1/sqrt(variance + eps)."""
    scale = (variance.double() + eps).rsqrt()
    # the running mean moves on before a late backward: keep a copy
    return Affine(mean.to(torch.float64, copy=True), weight.double() * scale, bias.double()), scale


@dataclass
class Running:
    """What a step normalises with. After the call, `moments` are the step's own, over all ranks."""

    mean: Tensor
    variance: Tensor
    eps: float
    max_ratio: float | None
    group: Any
    moments: Any = None

    def exceeded(self, moments: Moments) -> bool:
        """Whether a channel's deviation is more than max_ratio times the running one."""
        if self.max_ratio is None:
            return False
        ratio = (moments.variance + self.eps) / (self.variance.double() + self.eps)
        return bool((ratio > self.max_ratio * self.max_ratio).any())

    def normalized(self, ctx: Any, weight: Tensor, bias: Tensor, run: Any) -> Any:
        """run(affine, moments wanted) with the running statistics or, where the fallback wants it, with the batch's."""
        affine, scale = affine_of(self.mean, self.variance, weight, bias, self.eps)
        out, local = run(affine, True)
        self.moments = moments = local if self.group is None else gather(local, self.group)
        inverse = (moments.variance + self.eps).rsqrt()
        if self.exceeded(moments):
            affine, scale = affine_of(moments.mean, moments.variance, weight, bias, self.eps)
            out, _ = run(affine, False)
        ctx.group, ctx.dtype = self.group, weight.dtype
        ctx.statistics = (affine, scale, moments, inverse)
        return out


def _gradients(ctx: Any, x: Tensor, g: Tensor, sums: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """g_x, g_weight and g_bias from g = g_y and its sums. Under DistributedDataParallel means are over all ranks, and
    the parameters' gradients this rank's, which it averages."""
    affine, scale, moments, inverse = ctx.statistics
    means = (sums if ctx.group is None else sum_over(sums, ctx.group)) / moments.n.clamp(min=1)
    g_x = ctx.kernels.gradient(x, g, moments.mean, inverse, affine.factor, means)
    # sum g*(x - center)*scale, of x - center = xh/inverse + (mean - center)
    g_weight = scale * (sums[1] / inverse + sums[0] * (moments.mean - affine.center))
    return g_x, g_weight.to(ctx.dtype), sums[0].to(ctx.dtype)


class Renormalize(torch.autograd.Function):
    """y of one training step."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, running: Running) -> Tensor:
        ctx.kernels = backends.select("osr", x)
        ctx.save_for_backward(x)
        return running.normalized(ctx, weight, bias, lambda affine, own: ctx.kernels.normalize(x, affine, own))

    @staticmethod
    @first_order
    def backward(ctx: Any, g: Tensor) -> Any:
        (x,) = ctx.saved_tensors
        g = layout.like(g, x)
        _, _, moments, inverse = ctx.statistics
        sums = ctx.kernels.reduce(x, g, moments.mean, inverse)
        return *_gradients(ctx, x, g, sums), None


class RenormalizedLIF(torch.autograd.Function):
    """Spikes of one training step of an online rule behind the normalisation; `out` receives the rest."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        bias: Tensor,
        running: Running,
        p: LIFParams,
        state: LIFState,
        out: list[Forward],
    ) -> Tensor:
        ctx.p, ctx.kernels = p, backends.select("osr", x)
        done = running.normalized(
            ctx, weight, bias, lambda affine, own: ctx.kernels.lif_forward(p, x, affine, state, own)
        )
        ctx.save_for_backward(x, done.u, state.keep)
        out.append(done)
        return done.spikes

    @staticmethod
    @first_order
    def backward(ctx: Any, g_s: Tensor) -> Any:
        x, u, keep = ctx.saved_tensors
        _, _, moments, inverse = ctx.statistics
        g, sums = ctx.kernels.lif_reduce(ctx.p, x, layout.like(g_s, x), u, keep, moments.mean, inverse)
        return *_gradients(ctx, x, g, sums), None, None, None, None


@torch.compiler.disable
def renormalize(x: Tensor, weight: Tensor, bias: Tensor, running: Running) -> Tensor:
    """y = weight*(x - running mean)/sqrt(running variance + eps) + bias of a training step, with OSR's gradient.

    x [N, C, *]; the vectors [C]. running.moments are the step's own afterwards. Raises ValueError for one element a
    channel, BackendError where no backend runs.
    """
    check_enough(x, running.group)
    return Renormalize.apply(laid_out(x), weight, bias, running)


@torch.compiler.disable
def renormalized_lif(
    x: Tensor, weight: Tensor, bias: Tensor, running: Running, p: LIFParams, state: LIFState
) -> Forward:
    """One step of a neuron of an online rule on `renormalize(x, ...)`, in one pass over memory. Errors as there."""
    check_enough(x, running.group)
    x = laid_out(x)
    out: list[Forward] = []
    state = state.map(lambda tensor: layout.like(tensor, x))
    spikes = RenormalizedLIF.apply(x, weight, bias, running, p, state, out)
    return out[0]._replace(spikes=spikes)


def evaluate(x: Tensor, weight: Tensor, bias: Tensor, mean: Tensor, variance: Tensor, eps: float) -> Tensor:
    """The same affine map as in training, with its plain gradient."""
    affine, _ = affine_of(mean, variance, weight, bias, eps)
    if torch.is_grad_enabled() or torch.compiler.is_compiling():
        return reference.apply(x, affine).to(x.dtype)
    return backends.select("osr", x).normalize(laid_out(x), affine, False)[0]
