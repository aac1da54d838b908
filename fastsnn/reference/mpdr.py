"""LIF with membrane potential distribution regularisation in plain PyTorch (equations/rptt.md).

`forward` and `backward` are those of the LIF family and what MPDR adds: moments in, one more gradient of u out.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from ..types import EMPTY, Forward, LIFParams, LIFState, MPDRGradient, Saved, replaced
from . import lif

NAME = lif.NAME
SAVES_U = lif.SAVES_U


def moments(u: Tensor) -> Tensor:
    """Mean and biased variance of each row of u [T, *], as [T, 2] in float64. A spread below the rounding of u counts
    as none; without elements both are NaN."""
    wide = u.double().flatten(1)
    mean = wide.mean(1)
    var = (wide - mean[:, None]).square().mean(1)
    rounding = mean * torch.finfo(u.dtype).eps
    return torch.stack([mean, torch.where(var <= rounding.square(), 0.0, var)], 1)


def loss(moments: Tensor, mean: float, std: float, mu: float) -> Tensor:
    """L_M = ln(sd*/sd) + (sd^2 + (m - mu*)^2)/(2 sd*^2) - 1/2 + mu_M*sd^2 of each row m, sd^2 of the moments."""
    m, var = moments.unbind(-1)
    target = std**2
    return (math.log(target) - var.log()) / 2 + (var + (m - mean).square()) / (2 * target) - 0.5 + mu * var


def z_score(moments: Tensor, threshold: float) -> Tensor:
    """Z = (th - m)/sd of each row m, sd^2 of the moments."""
    m, var = moments.unbind(-1)
    return (threshold - m) / var.sqrt()


def coefficients(moments: Tensor, g_moments: Tensor, n: int) -> Tensor:
    """m, offset and slope of each step, [T, 3], from the gradients of mean and variance [T, 2] of n elements:
    dL/du = g_m/n + (2 g_var/n)*(u - m), without the second term where the variance is 0."""
    mean, var = moments.unbind(1)
    g_mean, g_var = (g_moments / max(n, 1)).unbind(1)
    return torch.stack([mean, g_mean, torch.where(var == 0, 0.0, 2 * g_var)], 1)


def gradient(u: Tensor, mpdr: MPDRGradient) -> Tensor:
    """dL/du through the moments of u [T, *]."""
    m, offset, slope = (row.to(u.dtype).view(-1, *[1] * (u.dim() - 1)) for row in mpdr.rows.unbind(1))
    return offset + slope * (u - m)


@torch.no_grad()
def forward(
    p: LIFParams,
    x: Tensor,
    state: LIFState,
    sequence: bool,
    v_seq: bool = False,
    into: LIFState = EMPTY,
    u_seq: bool = False,
    *,
    moments_out: Tensor | None = None,
) -> Forward:
    """As the LIF family's; writes the moments of every u[t] to moments_out [T, 2]."""
    if moments_out is None:
        return lif.forward(p, x, state, sequence, v_seq, into, u_seq)
    out = lif.forward(p, x, state, sequence, v_seq, into, u_seq=True)
    assert out.u is not None
    moments_out.copy_(moments(out.u if sequence else out.u.unsqueeze(0)))
    # the last u must not keep the memory of all
    return replaced(out, u=out.u[-1].clone()) if sequence and not u_seq else out


def backward(
    p: LIFParams,
    saved: Saved,
    g_s: Tensor | None,
    g_v: Tensor | None = None,
    g_v_seq: Tensor | None = None,
    want_v: bool = False,
    mpdr: MPDRGradient | None = None,
    g_drive: Sequence[Tensor | None] = (),
) -> tuple[Tensor, Tensor | None, Sequence[Tensor], Tensor | None]:
    """As the LIF family's, with MPDR's gradient added to g_u; with mpdr.local, its part of g_x apart."""
    if mpdr is None:
        return lif.backward(p, saved, g_s, g_v, g_v_seq, want_v, None, g_drive)
    g_u = gradient(lif.potentials(p, saved), mpdr)
    if not mpdr.local:
        return lif.backward(p, saved, g_s, g_v, g_v_seq, want_v, g_u, g_drive)
    g_x, g_v_first, g_first, _ = lif.backward(p, saved, g_s, g_v, g_v_seq, want_v, None, g_drive)
    local = p.gain * g_u
    return g_x, g_v_first, g_first, (local if saved.sequence else local[0]).to(saved.dtype)
