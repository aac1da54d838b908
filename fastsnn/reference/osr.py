"""Online spiking renormalisation (equations/osr.md), alone and with the LIF behind it. x is [N, C, *].

`affine` is what the forward applies, y = (x - center)*factor + shift, with the running statistics in center and factor
(or the batch's, where the fallback takes them). The gradient is batch normalisation's, rescaled: mean and inverse are
the batch's own, inverse = 1/sqrt(var + eps). Vectors over channels are float64.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..stats import Affine, Moments
from ..types import Forward, LIFParams, LIFState, Saved, replaced, state_dtype
from . import lif, stats

NAME = "reference"


def over_channels(vector: Tensor, x: Tensor) -> Tensor:
    """A vector [C] as it broadcasts over x."""
    return vector.view(-1, *[1] * (x.dim() - 2))


def apply(x: Tensor, affine: Affine) -> Tensor:
    """y in the state's dtype."""
    wide = x.to(state_dtype(x.dtype))
    center, factor, shift = (over_channels(vector.to(wide.dtype), x) for vector in affine)
    return (wide - center) * factor + shift


def normalize(x: Tensor, affine: Affine, moments: bool) -> tuple[Tensor, Moments | None]:
    """y and, where wanted, x's own moments."""
    return apply(x, affine).to(x.dtype), stats.per_channel(x) if moments else None


def reduce(x: Tensor, g: Tensor, mean: Tensor, inverse: Tensor) -> Tensor:
    """[sum g, sum g*xh] per channel, [2, C]; xh = (x - mean)*inverse."""
    columns = g.double().transpose(0, 1).flatten(1)
    normal = (x.double().transpose(0, 1).flatten(1) - mean[:, None]) * inverse[:, None]
    return torch.stack([columns.sum(1), (columns * normal).sum(1)])


def gradient(x: Tensor, g: Tensor, mean: Tensor, inverse: Tensor, factor: Tensor, means: Tensor) -> Tensor:
    """g_x = factor * (g - mean(g) - xh*mean(g*xh)); means = [mean(g), mean(g*xh)]."""
    normal = (x.double() - over_channels(mean, x)) * over_channels(inverse, x)
    mean_g, mean_g_normal = (over_channels(vector, x) for vector in means)
    return (over_channels(factor, x) * (g.double() - mean_g - normal * mean_g_normal)).to(x.dtype)


def lif_forward(
    p: LIFParams, x: Tensor, affine: Affine, state: LIFState, moments: bool
) -> tuple[Forward, Moments | None]:
    """One step of the neuron on y, and x's own moments."""
    out = lif.forward(p, apply(x, affine), state, False)
    return replaced(out, spikes=out.spikes.to(x.dtype)), stats.per_channel(x) if moments else None


def lif_reduce(
    p: LIFParams, x: Tensor, g_s: Tensor, u: Tensor, keep: Tensor | None, mean: Tensor, inverse: Tensor
) -> tuple[Tensor, Tensor]:
    """g_y of the neuron's online rule, and its sums as `reduce`."""
    g_y, *_ = lif.backward(p, Saved(u.dtype, False, u, keep=keep), g_s)
    return g_y.to(x.dtype), reduce(x, g_y, mean, inverse)
