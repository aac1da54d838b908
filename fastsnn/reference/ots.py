"""The LIF step whose threshold is a tensor (equations/ots.md), in the two passes of OTS. `threshold` is float64, []."""

from __future__ import annotations

import torch
from torch import Tensor

from ..stats import Moments
from ..surrogate import formulas
from ..types import LIFParams, state_dtype
from . import lif, stats

NAME = "reference"


def charge(p: LIFParams, x: Tensor, v: Tensor | None) -> tuple[Tensor, Moments]:
    """u and its moments over the whole tensor."""
    wide = x.to(state_dtype(x.dtype))
    u = lif.charge(p, lif.initial_v(p, wide) if v is None else v, wide)
    return u, stats.whole(u)


def fire(
    p: LIFParams, u: Tensor, threshold: Tensor, trace: Tensor | None, keep: Tensor | None, dtype: torch.dtype
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Spikes where u >= th[t], v after a reset that subtracts th[t] (or to v_reset), and the trace."""
    th = threshold.to(u.dtype)
    fired = u >= th
    v = torch.where(fired, u - th if p.v_reset is None else torch.full_like(u, p.v_reset), u)
    s = fired.to(u) if keep is None else fired.to(u) * keep
    if not p.traced:
        return s.to(dtype), v, None
    return s.to(dtype), v, p.leak * (torch.zeros_like(u) if trace is None else trace) + s


def backward(
    p: LIFParams, u: Tensor, threshold: Tensor, keep: Tensor | None, g_s: Tensor, dtype: torch.dtype
) -> Tensor:
    """g_x = gain * g_s * sg(u - th[t]); the threshold has no gradient."""
    sg = formulas.derivative(u - threshold.to(u.dtype), p.shape, p.height, p.slope)
    masked = g_s.to(u.dtype) if keep is None else g_s.to(u.dtype) * keep
    return (p.gain * (masked * sg)).to(dtype)
