"""EM-PF neurons in plain PyTorch: versions I, II and III, forward and backward (equations/empf.md; Hao et al. 2024).

Every backend has these functions. Neurons are [outer, C, inner], sequences [T, outer, C, inner]; parameters are [T, C]
(version II: [C]) in the state's dtype, with C = 1 where all neurons share them. State is float64 for float64 input and
float32 otherwise, sums and statistics float64.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from ..types import state_dtype

NAME = "reference"


class Norm(NamedTuple):
    """Version II between its passes: potential m [outer, C, inner]; the rest [C], inverse = 1/sqrt(var + eps)."""

    m: Tensor
    mean: Tensor
    inverse: Tensor
    alpha: Tensor
    beta: Tensor
    gamma: Tensor
    bias: Tensor
    threshold: Tensor


def along(parameter: Tensor) -> Tensor:
    """A parameter [C] beside neurons [outer, C, inner]."""
    return parameter[:, None]


def leaky(leak: Tensor, v: Tensor | None, x: Tensor) -> Tensor:
    """m[t] = lam_t*v[t-1] + x[t], v[0] = 0."""
    return along(leak) * (torch.zeros_like(x) if v is None else v) + x


def fire(m: Tensor, threshold: Tensor) -> tuple[Tensor, Tensor]:
    """s = (m - th)*f and v = m - s = min(m, th). NaN in m or th shows in s."""
    th = along(threshold)
    v = torch.where(m < th, m, th)
    return m - v, v


def fired_gradient(g_s: Tensor, v: Tensor, threshold: Tensor) -> Tensor:
    """g_m = g_s*f: a neuron that fired is at its threshold."""
    return torch.where(v >= along(threshold), g_s, 0)


def channel_sum(values: Tensor) -> Tensor:
    """Sums of [..., outer, C, inner] over outer and inner, in float64."""
    return values.double().sum((-3, -1))


def forward(
    x: Tensor, v: Tensor | None, leak: Tensor | None, threshold: Tensor, v_seq: bool = False
) -> tuple[Tensor, Tensor | None]:
    """Version I, or III where leak is None: spikes, and v after the last step (every step with v_seq; none for III)."""
    s_rows, v_rows = [], []
    for t, x_t in enumerate(x.to(state_dtype(x.dtype))):
        m = x_t if leak is None else leaky(leak[t], v, x_t)
        s, v = fire(m, threshold[t])
        s_rows.append(s.to(x.dtype))
        v_rows.append(v)
    if leak is None:
        return torch.stack(s_rows), None
    return torch.stack(s_rows), torch.stack(v_rows) if v_seq else v


def backward(
    g_s: Tensor, v_seq: Tensor | None, x: Tensor | None, v: Tensor | None, threshold: Tensor
) -> tuple[Tensor, Tensor | None, Tensor]:
    """g_x = g_s*f, g_lam = sum g_m*v[t-1], g_th = -sum g_s*f. Version III has x in place of v of every step."""
    after = x if v_seq is None else v_seq
    assert after is not None
    state = state_dtype(g_s.dtype)
    g_m = torch.stack([fired_gradient(g_s[t].to(state), after[t].to(state), th) for t, th in enumerate(threshold)])
    g_leak = None
    if v_seq is not None:
        first = torch.zeros_like(v_seq[0]) if v is None else v
        g_leak = channel_sum(g_m.double() * torch.stack([first, *v_seq[:-1]]))
    return g_m.to(g_s.dtype), g_leak, -channel_sum(g_m)


def potential(
    x: Tensor, v: Tensor | None, leak: Tensor, statistics: bool
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """Version II, first pass: m and, with statistics, its mean and biased variance per channel."""
    m = leaky(leak, v, x.to(state_dtype(x.dtype)))
    if not statistics:
        return m, None, None
    var, mean = torch.var_mean(m.double(), (0, 2), correction=0)
    return m, mean, var


def standardized(k: Norm) -> Tensor:
    """xhat = (m - mu)/sqrt(var + eps)."""
    return (k.m - along(k.mean)) * along(k.inverse)


def norm_forward(k: Norm, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Version II, second pass: mh = alpha*m + beta*(gamma*xhat + b); spikes of `dtype`, and v."""
    mh = along(k.alpha) * k.m + along(k.beta) * (along(k.gamma) * standardized(k) + along(k.bias))
    s, v = fire(mh, k.threshold)
    return s.to(dtype), v


def norm_sums(k: Norm, g_s: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    """Version II backward, first pass: sum g_mh and sum g_mh*xhat, from which all parameters' gradients follow."""
    g_mh = fired_gradient(g_s.to(k.m.dtype), v, k.threshold).double()
    return channel_sum(g_mh), channel_sum(g_mh * standardized(k))


def norm_backward(
    k: Norm, g_s: Tensor, v: Tensor, v_prev: Tensor | None, pull: Tensor, pull_xhat: Tensor
) -> tuple[Tensor, Tensor]:
    """Version II backward, second pass: g_x = alpha*g_mh + gamma*inverse*(g_n - mean(g_n) - xhat*mean(g_n*xhat)) with
    g_n = beta*g_mh, and g_lam. pull, pull_xhat [C]: the two means; 0 with running statistics, which are constants."""
    g_mh = fired_gradient(g_s.to(k.m.dtype), v, k.threshold)
    scale = along(k.gamma * k.inverse)
    g_n = along(k.beta) * g_mh
    g_m = along(k.alpha) * g_mh + scale * ((g_n - along(pull)) - standardized(k) * along(pull_xhat))
    g_leak = channel_sum(g_m * (torch.zeros_like(g_m) if v_prev is None else v_prev.double()))
    return g_m.to(g_s.dtype), g_leak
