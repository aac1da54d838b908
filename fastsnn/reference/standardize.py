"""Weight standardisation (equations/ottt.md), per output channel over its fan-in N, variance unbiased."""

from __future__ import annotations

from torch import Tensor

NAME = "reference"


def forward(weight: Tensor, gain: Tensor, eps: float) -> tuple[Tensor, Tensor, Tensor]:
    """W_hat = gain * (W - mean) / sqrt(var*N + eps). Returns W_hat, mean and 1/sqrt(var*N + eps), in float64."""
    w = weight.double().flatten(1)
    mean = w.mean(1)
    inverse = (w.var(1, unbiased=True) * w.shape[1] + eps).rsqrt()
    out = (w - mean[:, None]) * (gain.double().flatten() * inverse)[:, None]
    return out.view(weight.shape).to(weight.dtype), mean, inverse


def backward(
    weight: Tensor, gain: Tensor, mean: Tensor, inverse: Tensor, g_out: Tensor, eps: float
) -> tuple[Tensor, Tensor]:
    """g_W = inv*gain*(g - mean(g)) - xc*inv^3*N/(N-1)*gain*sum(g*xc), xc = W - mean; g_gain = inv*sum(g*xc)."""
    w, g = weight.double().flatten(1), g_out.double().flatten(1)
    n = w.shape[1]
    xc = w - mean[:, None]
    g_xc = (g * xc).sum(1)
    scale = gain.double().flatten() * inverse
    pull = inverse**3 * (n / (n - 1)) * gain.double().flatten() * g_xc
    g_weight = scale[:, None] * (g - g.mean(1, keepdim=True)) - xc * pull[:, None]
    g_gain = (g_xc * inverse).view(gain.shape)
    return g_weight.view(weight.shape).to(weight.dtype), g_gain.to(gain.dtype)
