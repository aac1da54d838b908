"""Online spiking renormalisation (equations/osr.md), alone and with the LIF behind it. x is [N, C, *].

The forward applies y = (x - center)*factor + bias, with the running statistics in center and factor, or the batch's
where the fallback takes them. The gradient is batch normalisation's, rescaled: mean and inverse are the batch's own,
inverse = 1/sqrt(var + eps). Vectors over channels are float64.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..stats import Moments, Running, Settled, Used, fold, merge, pooled
from ..types import Forward, LIFParams, LIFState, Saved, replaced, state_dtype
from . import lif, ots, stats

NAME = "reference"


def over_channels(vector: Tensor, x: Tensor) -> Tensor:
    """A vector [C] as it broadcasts over x."""
    return vector.view(-1, *[1] * (x.dim() - 2))


def inverse_root(variance: Tensor, eps: float) -> Tensor:
    """1/sqrt(variance + eps)."""
    return (variance.double() + eps).rsqrt()


def affine(x: Tensor, center: Tensor, factor: Tensor, bias: Tensor) -> Tensor:
    """(x - center)*factor + bias in the state's dtype."""
    wide = x.to(state_dtype(x.dtype))
    center, factor, bias = (over_channels(vector.to(wide.dtype), x) for vector in (center, factor, bias))
    return (wide - center) * factor + bias


def apply(x: Tensor, weight: Tensor, bias: Tensor, running: Running) -> Tensor:
    """y of the running statistics alone."""
    factor = weight.double() * inverse_root(running.variance, running.eps)
    return affine(x, running.mean.double(), factor, bias.double()).to(x.dtype)


def accepted(moments: Moments, strict: bool) -> Moments:
    """The moments; where strict, those of no elements in place of NaN and infinity."""
    if not strict:
        return moments
    finite = (moments.mean + moments.m2).isfinite().all()
    return Moments(*(torch.where(finite, value, 0) for value in moments))


def normalising(moments: Moments, running: Running) -> tuple[Tensor | None, Tensor, Tensor]:
    """Whether the deviation of a channel is more than max_ratio times the running one, or less than its max_ratio-th;
    mean and variance that normalise a step of these moments: its own then, else the running ones."""
    mean, variance = running.mean.double(), running.variance.double()
    if running.max_ratio is None:
        return None, mean, variance
    ratio = (moments.variance + running.eps) / (variance + running.eps)
    exceeded = (torch.maximum(ratio, 1 / ratio) > running.max_ratio * running.max_ratio).any() & (moments.n > 0)
    mean, variance = torch.where(exceeded, moments.mean, mean), torch.where(exceeded, moments.variance, variance)
    return exceeded, mean, variance


def used(weight: Tensor, mean: Tensor, variance: Tensor, moments: Moments, eps: float) -> Used:
    """What a step of these moments is normalised with, by this mean and variance."""
    scale, inverse = inverse_root(variance, eps), inverse_root(moments.variance, eps)
    return Used(torch.stack([mean, weight.double() * scale, scale, moments.mean, moments.m2, inverse]), moments.n)


def settle(x: Tensor, weight: Tensor, moments: Moments, running: Running) -> Settled:
    """What normalises a step of x, and its moments into the sequence's and at its end into the running statistics. On
    the CPU a step that strict refuses leaves those as they are: its n is 0."""
    moments = accepted(moments, running.strict)
    _, mean, variance = normalising(moments, running)
    done = used(weight, mean, variance, moments, running.eps)
    sequence, refuses = running.sequence, running.strict and x.numel() > 0
    if sequence is None or (refuses and x.device.type == "cpu" and moments.n == 0):
        return Settled(done)
    add = pooled if sequence.pooled else merge
    total = add(sequence.before, moments) if sequence.before else Moments(*map(Tensor.clone, moments))
    if sequence.ends:
        fold((running.mean, running.variance), sequence.folds, total, sequence.share)
    return Settled(done, total, _refused(moments, sequence.step, sequence.refused) if refuses else sequence.refused)


def _refused(moments: Moments, step: int, earlier: Tensor | None) -> Tensor:
    """The number of the sequence's first step that was left out."""
    earlier = torch.zeros_like(moments.n) if earlier is None else earlier
    return torch.where((earlier == 0) & (moments.n == 0), step, earlier)


def _normalized(x: Tensor, weight: Tensor, bias: Tensor, running: Running) -> tuple[Tensor, Settled]:
    """y in the state's dtype."""
    # the statistics that normalise are copied before a fold writes to them
    settled = settle(x, weight, stats.per_channel(x), running)
    return affine(x, settled.used.center, settled.used.factor, bias.double()), settled


def normalize(x: Tensor, weight: Tensor, bias: Tensor, running: Running) -> tuple[Tensor, Settled]:
    """y of a training step, and what it leaves."""
    y, settled = _normalized(x, weight, bias, running)
    return y.to(x.dtype), settled


def lif_forward(
    p: LIFParams, x: Tensor, weight: Tensor, bias: Tensor, running: Running, state: LIFState
) -> tuple[Forward, Settled]:
    """One step of the neuron on y."""
    y, settled = _normalized(x, weight, bias, running)
    out = lif.forward(p, y, state, False)
    return replaced(out, spikes=out.spikes.to(x.dtype)), settled


def charge(
    p: LIFParams, x: Tensor, weight: Tensor, bias: Tensor, running: Running, v: Tensor | None
) -> tuple[tuple[Tensor, Moments], Settled]:
    """u of the neuron on y, and its moments over the whole tensor: the first pass of OTS."""
    y, settled = _normalized(x, weight, bias, running)
    return ots.charge(p, y, v), settled


def reduce(x: Tensor, g: Tensor, used: Used, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    """[mean g, mean g*xh] per channel, [2, C], xh = (x - mean)*inverse; g_weight and g_bias in their dtype."""
    columns = g.double().transpose(0, 1).flatten(1)
    normal = (x.double().transpose(0, 1).flatten(1) - used.moments.mean[:, None]) * used.inverse[:, None]
    sums = torch.stack([columns.sum(1), (columns * normal).sum(1)])
    # sum g*(x - center)*scale, of x - center = xh/inverse + (mean - center)
    g_weight = used.scale * (sums[1] / used.inverse + sums[0] * (used.moments.mean - used.center))
    return sums / used.n.clamp(min=1), g_weight.to(dtype), sums[0].to(dtype)


def gradient(x: Tensor, g: Tensor, used: Used, means: Tensor) -> Tensor:
    """g_x = factor * (g - mean(g) - xh*mean(g*xh)); means = [mean(g), mean(g*xh)]."""
    normal = (x.double() - over_channels(used.moments.mean, x)) * over_channels(used.inverse, x)
    mean_g, mean_g_normal = (over_channels(vector, x) for vector in means)
    return (over_channels(used.factor, x) * (g.double() - mean_g - normal * mean_g_normal)).to(x.dtype)


def lif_reduce(
    p: LIFParams,
    x: Tensor,
    g_s: Tensor,
    u: Tensor,
    keep: Tensor | None,
    used: Used,
    dtype: torch.dtype,
    threshold: Tensor | None = None,
) -> tuple[Tensor, tuple[Tensor, Tensor, Tensor]]:
    """g_y of the neuron's online rule, and of it what `reduce` gives. threshold: th[t] of OTS, in place of p's."""
    if threshold is None:
        g_y, *_ = lif.backward(p, Saved(u.dtype, False, u, keep=keep), g_s)
    else:
        g_y = ots.backward(p, u, threshold, keep, g_s, u.dtype)
    return g_y.to(x.dtype), reduce(x, g_y, used, dtype)
