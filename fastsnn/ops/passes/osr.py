"""Online spiking renormalisation of a training step, with the statistics across processes, and its gradient."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ...stats import Affine, Gathering, Moments, sum_over
from ...types import Forward, LIFParams, LIFState
from .. import layout


class Running(NamedTuple):
    """What a step normalises with. max_ratio and strict: as `fastsnn.OSR`'s."""

    mean: Tensor
    variance: Tensor
    eps: float
    max_ratio: float | None
    strict: bool

    def exceeded(self, moments: Moments, max_ratio: float) -> Tensor:
        """Whether a channel's deviation is more than max_ratio times the running one, or less than its max_ratio-th."""
        ratio = (moments.variance + self.eps) / (self.variance.double() + self.eps)
        return (torch.maximum(ratio, 1 / ratio) > max_ratio * max_ratio).any()

    def accepted(self, moments: Moments) -> Moments:
        """The moments. Where strict, NaN and infinity raise FloatingPointError; on a device, which nothing waits for,
        they are those of no elements."""
        if not self.strict:
            return moments
        finite = (moments.mean + moments.m2).isfinite().all()
        if finite.device.type != "cpu":
            return Moments(*(torch.where(finite, value, 0) for value in moments))
        if not bool(finite):
            raise FloatingPointError("the input holds NaN or infinity; its statistics are not accumulated")
        return moments


class Used(NamedTuple):
    """What a step was normalised with, scale = 1/sqrt(variance + eps) and factor = weight*scale; the step's own moments
    over all ranks, and 1/sqrt(their variance + eps). [C] (n: []), float64."""

    center: Tensor
    factor: Tensor
    scale: Tensor
    mean: Tensor
    m2: Tensor
    inverse: Tensor
    n: Tensor

    @property
    def moments(self) -> Moments:
        return Moments(self.n, self.mean, self.m2)


class Coming:
    """`Used` of a step whose moments are still on their way between processes: what asks for them waits."""

    def __init__(self, affine: Affine, scale: Tensor, eps: float, gathering: Gathering) -> None:
        self._affine, self._scale, self._eps, self._gathering = affine, scale, eps, gathering

    @property
    def moments(self) -> Moments:
        return self._gathering.moments

    def used(self) -> Used:
        return _used(self._affine, self._scale, self.moments, self._eps)


def _used(affine: Affine, scale: Tensor, moments: Moments, eps: float) -> Used:
    inverse = (moments.variance + eps).rsqrt()
    return Used(affine.center, affine.factor, scale, moments.mean, moments.m2, inverse, moments.n)


def arrived(used: Used | Coming) -> Used:
    return used.used() if isinstance(used, Coming) else used


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


def _normalized(
    weight: Tensor, bias: Tensor, running: Running, group: Any, run: Callable[[Affine, bool], Any]
) -> tuple[Any, Used | Coming]:
    """run(affine, moments wanted) with the running statistics or, where the fallback wants it, with the batch's. A
    device decides that alone, and runs the second pass in any case."""
    affine, scale = affine_of(running.mean, running.variance, weight, bias, running.eps)
    out, moments = run(affine, True)
    if group is not None:
        gathering = Gathering(moments, group)
        if running.max_ratio is None and not running.strict:
            return out, Coming(affine, scale, running.eps, gathering)
        moments = gathering.moments
    moments = running.accepted(moments)
    if running.max_ratio is not None:
        exceeded = running.exceeded(moments, running.max_ratio)
        if exceeded.device.type != "cpu" or bool(exceeded):
            own, own_scale = affine_of(moments.mean, moments.variance, weight, bias, running.eps)
            affine = Affine(*(torch.where(exceeded, *pair) for pair in zip(own, affine, strict=True)))
            scale = torch.where(exceeded, own_scale, scale)
            out, _ = run(affine, False)
    return out, _used(affine, scale, moments, running.eps)


def renormalize(
    kernels: Any, x: Tensor, weight: Tensor, bias: Tensor, running: Running, group: Any
) -> tuple[Tensor, Used | Coming]:
    """y. x: of `laid_out`."""
    check_enough(x, group)
    return _normalized(weight, bias, running, group, lambda affine, own: kernels.normalize(x, affine, own))


def renormalized_lif(
    kernels: Any,
    p: LIFParams,
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    running: Running,
    state: LIFState,
    group: Any,
) -> tuple[Forward, Used | Coming]:
    """A step of the neuron on y. x: of `laid_out`, and the state in its memory order."""
    check_enough(x, group)
    return _normalized(weight, bias, running, group, lambda affine, own: kernels.lif_forward(p, x, affine, state, own))


def _gradients(
    kernels: Any, x: Tensor, g: Tensor, sums: Tensor, used: Used, group: Any, dtype: torch.dtype
) -> tuple[Tensor, Tensor, Tensor]:
    """g_x, g_weight and g_bias from g = g_y and its sums. Under DistributedDataParallel means are over all ranks, and
    the parameters' gradients this rank's, which it averages."""
    means = (sums if group is None else sum_over(sums, group)) / used.n.clamp(min=1)
    g_x = kernels.gradient(x, g, used.mean, used.inverse, used.factor, means)
    # sum g*(x - center)*scale, of x - center = xh/inverse + (mean - center)
    g_weight = used.scale * (sums[1] / used.inverse + sums[0] * (used.mean - used.center))
    return g_x, g_weight.to(dtype), sums[0].to(dtype)


def renormalize_gradient(
    kernels: Any, x: Tensor, g: Tensor, used: Used, group: Any, dtype: torch.dtype
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of x, weight and bias, the latter of `dtype`."""
    g = layout.like(g, x)
    sums = kernels.reduce(x, g, used.mean, used.inverse)
    return _gradients(kernels, x, g, sums, used, group, dtype)


def renormalized_lif_gradient(
    kernels: Any,
    p: LIFParams,
    x: Tensor,
    g_s: Tensor,
    u: Tensor,
    keep: Tensor | None,
    used: Used,
    group: Any,
    dtype: torch.dtype,
) -> tuple[Tensor, Tensor, Tensor]:
    """As `renormalize_gradient`, behind the neuron."""
    g, sums = kernels.lif_reduce(p, x, layout.like(g_s, x), u, keep, used.mean, used.inverse)
    return _gradients(kernels, x, g, sums, used, group, dtype)
