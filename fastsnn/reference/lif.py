"""The LIF family in plain PyTorch: charge, fire, reset, traces and both gradients (SPEC sections 1 to 3).

`forward` and `backward` have the signature every backend has. `state` is the state before the first step;
state tensors are float64 for float64 input and float32 otherwise, spikes have the input's dtype.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..ops.types import EMPTY, Forward, LIFParams, LIFState, Saved, state_dtype
from . import surrogate

NAME = "reference"
SAVES_U = False


def charge(p: LIFParams, v: Tensor, x: Tensor) -> Tensor:
    """u[t] = lam*v[t-1] + x[t]; decay_input and v_reset enter through gain and bias."""
    return (p.leak * v + p.gain * x) + p.bias


def fire(p: LIFParams, u: Tensor) -> Tensor:
    """s[t] = H(u[t] - th), equality fires."""
    return u >= p.threshold


def reset(p: LIFParams, u: Tensor, fired: Tensor) -> Tensor:
    """v[t] = u[t] - th*s[t], or v_reset where it fired."""
    after = u - p.threshold if p.v_reset is None else torch.full_like(u, p.v_reset)
    return torch.where(fired, after, u)


def initial_v(p: LIFParams, x: Tensor) -> Tensor:
    """v[0]: v_reset, or 0 under soft reset."""
    return torch.full_like(x, p.v_start)


def ratio(p: LIFParams, r: Tensor, r_prev: Tensor, u_prev: Tensor) -> Tensor:
    """e[t] of `ndot` = clamp(r[t]/r[t-1], -lam, lam); where r[t-1] = 0, lam with the sign of u[t-1]."""
    lam = torch.full_like(r, p.leak)
    total = torch.where(u_prev >= 0, lam, -lam)
    return torch.where(r_prev == 0, total, (r / r_prev).clamp(-p.leak, p.leak))


def ratio_released(p: LIFParams, num: Tensor, den: Tensor) -> Tensor:
    """e[t] of `ndot_released`: lam where the quotient is not defined, else clamp(num/den, -lam, lam)."""
    q = num / den
    usable = (den != 0) & num.isfinite() & den.isfinite() & q.isfinite()
    return torch.where(usable, q.clamp(-p.leak, p.leak), torch.full_like(q, p.leak))


def step(p: LIFParams, x: Tensor, state: LIFState) -> tuple[Tensor, Tensor, Tensor, Tensor | None, Tensor | None]:
    """One step from a full state: s, u, v, a and e."""
    potential = initial_v(p, x) if state.potential is None else state.potential
    s_prev = fire(p, potential) & (not (state.is_v or state.potential is None))
    v_prev = reset(p, potential, s_prev)
    u = charge(p, v_prev, x)
    fired = fire(p, u)
    v = reset(p, u, fired)
    s = fired.to(u) if state.keep is None else fired.to(u) * state.keep
    a_prev = torch.zeros_like(u) if state.trace is None else state.trace
    e_prev = torch.zeros_like(u) if state.ratio is None else state.ratio
    if p.trace == "ottt":
        return s, u, v, p.leak * a_prev + s, None
    if p.trace == "ndot":
        r_prev = torch.ones_like(u) if state.ratio is None else v_prev
        return s, u, v, e_prev * a_prev + s, ratio(p, v, r_prev, potential)
    if p.trace == "ndot_released":
        num = torch.where(fired, v - p.threshold * s, v)
        return s, u, v, ratio_released(p, num, e_prev) * a_prev + s, num
    return s, u, v, None, None


@torch.no_grad()
def forward(
    p: LIFParams,
    x: Tensor,
    state: LIFState,
    sequence: bool,
    v_seq: bool = False,
    into: LIFState = EMPTY,
    u_seq: bool = False,
) -> Forward:
    """All steps of x ([T, *] for a sequence). Returns spikes, u and v after the last step (of every step with
    u_seq, v_seq), the trace of every step and the last ratio. `into`, memory a backend may write the new state
    to, is not used here."""
    steps = x.to(state_dtype(x.dtype)) if sequence else x.to(state_dtype(x.dtype)).unsqueeze(0)
    s_rows, u_rows, v_rows, a_rows = [], [], [], []
    for x_t in steps:
        s, u, v, a, e = step(p, x_t, state)
        state = LIFState(u, False, a, e, state.keep)
        s_rows.append(s.to(x.dtype))
        u_rows.append(u)
        v_rows.append(v)
        if a is not None:
            a_rows.append(a)
    if not sequence:
        return Forward(s_rows[0], u, v, a, e)
    trace = torch.stack(a_rows) if a_rows else None
    u = torch.stack(u_rows) if u_seq else u
    return Forward(torch.stack(s_rows), u, torch.stack(v_rows) if v_seq else v, trace, e)


def potentials(p: LIFParams, saved: Saved) -> Tensor:
    """u[t] of every step, [T, *], saved or recomputed from x."""
    if saved.u is not None:
        return saved.u if saved.sequence else saved.u.unsqueeze(0)
    assert saved.x is not None
    x = saved.x.to(state_dtype(saved.dtype))
    v = initial_v(p, x[0])
    if saved.potential is not None:
        fired = fire(p, saved.potential) & (not saved.is_v)
        v = reset(p, saved.potential, fired)
    rows = []
    for x_t in x:
        u = charge(p, v, x_t)
        v = reset(p, u, fire(p, u))
        rows.append(u)
    return torch.stack(rows)


def reset_derivative(p: LIFParams, u: Tensor, sg: Tensor) -> Tensor:
    """dv/du: 1 - th*sg (soft), (1 - s) + (r - u)*sg (hard); detach_reset drops the sg term."""
    if p.v_reset is None:
        return 1 - p.reset_grad * sg
    return (~fire(p, u)).to(u) + p.reset_grad * ((p.v_reset - u) * sg)


def backward(
    p: LIFParams,
    saved: Saved,
    g_s: Tensor | None,
    g_v: Tensor | None = None,
    g_v_seq: Tensor | None = None,
    want_v: bool = False,
    g_u_more: Tensor | None = None,
) -> tuple[Tensor, Tensor | None]:
    """g_x and, for BPTT where wanted, g_v[0]. Online rules: g_x[t] = gain*g_s[t]*sg(u[t] - th).
    BPTT: g_u = g_s*sg + g_v*dv/du ; g_x = gain*g_u ; g_v[t-1] = lam*g_u. g_u_more [T, *] is added to g_u."""
    us = potentials(p, saved)
    dtype = saved.dtype
    g_rows = us.new_zeros(us.shape) if g_s is None else g_s.to(us.dtype).reshape(us.shape)
    if saved.keep is not None:
        g_rows = g_rows * saved.keep
    sg = surrogate.derivative(us - p.threshold, p.shape, p.height, p.slope)
    if p.online:
        g_us = g_rows * sg
        g_x = p.gain * (g_us if g_u_more is None else g_us + g_u_more)
        return (g_x if saved.sequence else g_x[0]).to(dtype), None
    carry = torch.zeros_like(us[0]) if g_v is None else g_v.clone()
    rows = []
    for t in reversed(range(len(us))):
        if g_v_seq is not None:
            carry = carry + g_v_seq[t]
        g_u = g_rows[t] * sg[t] + carry * reset_derivative(p, us[t], sg[t])
        g_u = g_u if g_u_more is None else g_u + g_u_more[t]
        carry = p.leak * g_u
        rows.append(p.gain * g_u)
    g_x = torch.stack(rows[::-1])
    return (g_x if saved.sequence else g_x[0]).to(dtype), carry if want_v else None
