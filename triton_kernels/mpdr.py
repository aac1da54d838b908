"""LIF with MPDR (SPEC 7): the kernels of lif.py, whose forward also takes the moments of every u[t] and whose backward
adds two coefficients. Arguments as csrc/core/mpdr.h has them; moments [T, 2] and room [T, programs, 2] are float64.
"""

import triton
import triton.language as tl

from .arguments import load_or, number, store_if
from .lif import advance, charge, potential_after, potential_before, reset_derivative
from .moments import merged, store_block_moments
from .surrogate import surrogate


@triton.jit(do_not_specialize=["T", "leak", "gain", "bias", "threshold", "v_reset"])
def mpdr_forward(
    x_p,
    potential_p,
    trace_p,
    ratio_p,
    keep_p,
    spikes_p,
    u_last_p,
    u_seq_p,
    v_last_p,
    v_seq_p,
    trace_seq_p,
    ratio_last_p,
    room_p,
    T: tl.int64,
    n: tl.int64,
    leak: tl.int64,
    gain: tl.int64,
    bias: tl.int64,
    threshold: tl.int64,
    v_reset: tl.int64,
    FIRST: tl.constexpr,
    GIVEN_V: tl.constexpr,
    HARD: tl.constexpr,
    TRACE: tl.constexpr,
    BLOCK: tl.constexpr,
):
    STATE: tl.constexpr = tl.float64 if x_p.dtype.element_ty == tl.float64 else tl.float32
    leak, gain, bias = number(leak, STATE), number(gain, STATE), number(bias, STATE)
    threshold, v_reset = number(threshold, STATE), number(v_reset, STATE)
    o_n = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)  # [BLOCK]
    m_n = o_n < n

    b_u = load_or(potential_p, o_n, m_n, v_reset if HARD else 0.0, STATE)
    b_a = load_or(trace_p, o_n, m_n, 0.0, STATE)
    b_e = load_or(ratio_p, o_n, m_n, 0.0, STATE)

    for t in range(T):
        o_tn = t * n + o_n
        b_v_prev = potential_before(b_u, t, threshold, v_reset, GIVEN_V, HARD)
        b_r_prev = tl.where(t == 0, 1.0, b_v_prev) if FIRST else b_v_prev
        b_x = tl.load(x_p + o_tn, m_n, 0.0).to(STATE)
        b_keep = load_or(keep_p, o_n, m_n, 1.0, STATE)
        numbers = leak, gain, bias, threshold, v_reset
        b_s, b_u, b_v, b_a, b_e = advance(b_x, b_keep, b_v_prev, b_r_prev, b_u, b_a, b_e, *numbers, HARD, TRACE)
        store_if(u_seq_p, o_tn, b_u, m_n)
        store_if(v_seq_p, o_tn, b_v, m_n)
        store_if(trace_seq_p, o_tn, b_a, m_n)
        store_if(spikes_p, o_tn, b_s, m_n)
        store_block_moments(room_p, t, b_u, m_n, n)

    store_if(u_last_p, o_n, b_u, m_n)
    store_if(v_last_p, o_n, potential_after(b_u, b_u >= threshold, threshold, v_reset, HARD), m_n)
    store_if(ratio_last_p, o_n, b_e, m_n)


@triton.jit
def mpdr_merge(room_p, moments_p, n: tl.int64, EPSILON: tl.constexpr, BLOCK: tl.constexpr):
    """Mean and biased variance of a step. A spread below the rounding of u counts as none."""
    t = tl.program_id(0).to(tl.int64)
    mean, m2 = merged(room_p + 2 * t * tl.cdiv(n, BLOCK), n, BLOCK)
    variance, rounding = m2 / n.to(tl.float64), mean * EPSILON
    tl.store(moments_p + 2 * t, mean)
    tl.store(moments_p + 2 * t + 1, tl.where(variance <= rounding * rounding, 0.0, variance))


@triton.jit
def pull(b_u, moments_p, t, target, precision, share, mu, STATE: tl.constexpr):
    """a1 dL_M/du = offset + slope*(u - m); a layer without spread has no slope."""
    mean, variance = tl.load(moments_p + 2 * t), tl.load(moments_p + 2 * t + 1)
    target, precision = number(target, tl.float64), number(precision, tl.float64)
    share, mu = number(share, tl.float64), number(mu, tl.float64)
    slope = tl.where(variance == 0.0, 0.0, (precision - 1.0 / variance) + 2.0 * mu)
    offset = share * ((mean - target) * precision)
    return offset.to(STATE) + (share * slope).to(STATE) * (b_u - mean.to(STATE))


@triton.jit(
    do_not_specialize=[
        *("T", "leak", "gain", "bias", "threshold", "v_reset", "height", "slope"),
        *("target", "precision", "share", "mu"),
    ]
)
def mpdr_backward_online(
    g_spikes_p,
    keep_p,
    u_p,
    x_p,
    potential_p,
    g_x_p,
    moments_p,
    g_local_p,
    T: tl.int64,
    n: tl.int64,
    leak: tl.int64,
    gain: tl.int64,
    bias: tl.int64,
    threshold: tl.int64,
    v_reset: tl.int64,
    height: tl.int64,
    slope: tl.int64,
    target: tl.int64,
    precision: tl.int64,
    share: tl.int64,
    mu: tl.int64,
    GIVEN_V: tl.constexpr,
    HARD: tl.constexpr,
    SHAPE: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """g_x = gain * (g_s*sg + a1 dL_M/du); with g_local the second part goes there alone."""
    STATE: tl.constexpr = tl.float64 if g_x_p.dtype.element_ty == tl.float64 else tl.float32
    leak, gain, bias = number(leak, STATE), number(gain, STATE), number(bias, STATE)
    threshold, v_reset = number(threshold, STATE), number(v_reset, STATE)
    height, slope = number(height, STATE), number(slope, STATE)
    o_n = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)  # [BLOCK]
    m_n = o_n < n

    b_keep = load_or(keep_p, o_n, m_n, 1.0, STATE)
    b_u = load_or(potential_p, o_n, m_n, v_reset if HARD else 0.0, STATE)

    for t in range(T):
        o_tn = t * n + o_n
        if u_p is None:
            b_v = potential_before(b_u, t, threshold, v_reset, GIVEN_V, HARD)
            b_x = tl.load(x_p + o_tn, m_n, 0.0).to(STATE)
            b_u = charge(b_v, b_x, leak, gain, bias)
        else:
            b_u = tl.load(u_p + o_tn, m_n, 0.0)
        b_g_s = load_or(g_spikes_p, o_tn, m_n, 0.0, STATE)
        b_g_u = (b_g_s * b_keep) * surrogate(b_u - threshold, height, slope, SHAPE)
        b_pull = pull(b_u, moments_p, t, target, precision, share, mu, STATE)
        if g_local_p is None:
            store_if(g_x_p, o_tn, gain * (b_g_u + b_pull), m_n)
        else:
            store_if(g_x_p, o_tn, gain * b_g_u, m_n)
            store_if(g_local_p, o_tn, gain * b_pull, m_n)


@triton.jit(
    do_not_specialize=[
        *("T", "leak", "gain", "threshold", "v_reset", "reset_grad", "height", "slope"),
        *("target", "precision", "share", "mu"),
    ]
)
def mpdr_backward_bptt(
    g_spikes_p,
    keep_p,
    u_p,
    g_v_last_p,
    g_v_seq_p,
    g_x_p,
    g_v_first_p,
    moments_p,
    T: tl.int64,
    n: tl.int64,
    leak: tl.int64,
    gain: tl.int64,
    threshold: tl.int64,
    v_reset: tl.int64,
    reset_grad: tl.int64,
    height: tl.int64,
    slope: tl.int64,
    target: tl.int64,
    precision: tl.int64,
    share: tl.int64,
    mu: tl.int64,
    HARD: tl.constexpr,
    SHAPE: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """g_u = g_s*sg + g_v*dv/du + a1 dL_M/du ; g_x = gain*g_u ; g_v[t-1] = lam*g_u."""
    STATE: tl.constexpr = tl.float64 if g_x_p.dtype.element_ty == tl.float64 else tl.float32
    leak, gain, reset_grad = number(leak, STATE), number(gain, STATE), number(reset_grad, STATE)
    threshold, v_reset = number(threshold, STATE), number(v_reset, STATE)
    height, slope = number(height, STATE), number(slope, STATE)
    o_n = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)  # [BLOCK]
    m_n = o_n < n

    b_keep = load_or(keep_p, o_n, m_n, 1.0, STATE)
    b_g_v = load_or(g_v_last_p, o_n, m_n, 0.0, STATE)

    for i in range(T):
        t = T - 1 - i
        o_tn = t * n + o_n
        b_u = tl.load(u_p + o_tn, m_n, 0.0)
        b_g_s = load_or(g_spikes_p, o_tn, m_n, 0.0, STATE)
        b_sg = surrogate(b_u - threshold, height, slope, SHAPE)
        b_g_after = b_g_v + load_or(g_v_seq_p, o_tn, m_n, 0.0, STATE)
        b_dv_du = reset_derivative(b_u, b_sg, threshold, v_reset, reset_grad, HARD)
        b_g_u = (b_g_s * b_keep) * b_sg + b_g_after * b_dv_du
        b_g_u += pull(b_u, moments_p, t, target, precision, share, mu, STATE)
        store_if(g_x_p, o_tn, gain * b_g_u, m_n)
        b_g_v = leak * b_g_u

    store_if(g_v_first_p, o_n, b_g_v, m_n)
