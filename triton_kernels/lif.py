"""LIF forward and backward, with and without MPDR: one program a block of neurons, the T loop inside it, state in
registers.

Arguments as csrc/core/arguments.h has them: x, spikes, gradients of spikes and x [T, n]; `_seq` [T, n]; all
else [n]; None: not wanted (outputs) or zero (inputs). State is float64 for float64 input and float32 otherwise.
The rules' parameters come as the bits of float64 and are rounded to the state's type once. A new state may take
the memory of the old one, which is read before.
"""

import triton
import triton.language as tl

from .arguments import load_or, number, store_if
from .moments import store_block_moments
from .mpdr import pull
from .surrogate import surrogate
from .trace import NDOT, NDOT_RELEASED, NONE, ratio, ratio_released


@triton.jit
def charge(v, x, leak, gain, bias):
    """u[t] = lam * v[t-1] + gain * x[t] + bias."""
    return (leak * v + gain * x) + bias


@triton.jit
def potential_after(u, fired, threshold, v_reset, HARD: tl.constexpr):
    if HARD:
        return tl.where(fired, v_reset, u)
    else:
        return tl.where(fired, u - threshold, u)


@triton.jit
def potential_before(u_prev, t, threshold, v_reset, GIVEN_V: tl.constexpr, HARD: tl.constexpr):
    """v[t-1] of u[t-1]; the potential before the first step may be v already."""
    fired = (u_prev >= threshold) & (t > 0) if GIVEN_V else u_prev >= threshold
    return potential_after(u_prev, fired, threshold, v_reset, HARD)


@triton.jit
def decay_of(u, e, leak, threshold, TRACE: tl.constexpr):
    """What a[t-1] is multiplied by, and of `ndot_released` the ratio's operand e[t] (else as it was)."""
    if TRACE == NDOT:
        return e, e
    elif TRACE == NDOT_RELEASED:
        v = potential_after(u, u >= threshold, threshold, 0.0, False)
        e_now = tl.where(u >= threshold, v - threshold, v)
        return ratio_released(e_now, e, leak), e_now
    else:
        return leak, e


@triton.jit
def fire(u, a, decay, keep, threshold, TRACE: tl.constexpr):
    """s[t] and the trace a[t] = decay * a[t-1] + s[t] of the rules that have one (else as it was)."""
    s = tl.where(u >= threshold, keep, 0.0)
    if TRACE == NONE:
        return s, a
    else:
        return s, decay * a + s


@triton.jit
def ratio_after(u, r_prev, u_prev, e, leak, threshold, TRACE: tl.constexpr):
    """e[t] of `ndot`, for the next step."""
    if TRACE == NDOT:
        return ratio(potential_after(u, u >= threshold, threshold, 0.0, False), r_prev, u_prev, leak)
    else:
        return e


@triton.jit
def reset_derivative(u, sg, threshold, v_reset, reset_grad, HARD: tl.constexpr):
    """dv/du of the reset, BPTT only."""
    if HARD:
        kept = tl.where(u >= threshold, 0.0, 1.0)
        return kept + reset_grad * ((v_reset - u) * sg)
    else:
        return 1.0 - reset_grad * sg


@triton.jit(do_not_specialize=["T", "leak", "gain", "bias", "threshold", "v_reset"])
def lif_forward(
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
    """FIRST: t = 1 of a sequence, r[0] = 1 (ndot). GIVEN_V: the potential was already reset. room: moments of every
    u[t] are wanted."""
    STATE: tl.constexpr = tl.float64 if x_p.dtype.element_ty == tl.float64 else tl.float32
    leak, gain, bias = number(leak, STATE), number(gain, STATE), number(bias, STATE)
    threshold, v_reset = number(threshold, STATE), number(v_reset, STATE)
    o_n = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)  # [BLOCK]
    m_n = o_n < n

    b_u = load_or(potential_p, o_n, m_n, v_reset if HARD else 0.0, STATE)
    b_a = load_or(trace_p, o_n, m_n, 0.0, STATE)
    b_e = load_or(ratio_p, o_n, m_n, 0.0, STATE)

    # a division keeps in registers what was loaded before it and is used after it
    for t in range(T):
        o_tn = t * n + o_n
        b_u_prev = b_u
        b_v_prev = potential_before(b_u_prev, t, threshold, v_reset, GIVEN_V, HARD)
        b_u = charge(b_v_prev, tl.load(x_p + o_tn, m_n, 0.0).to(STATE), leak, gain, bias)
        b_decay, b_e = decay_of(b_u, b_e, leak, threshold, TRACE)
        b_keep = load_or(keep_p, o_n, m_n, 1.0, STATE)
        b_s, b_a = fire(b_u, b_a, b_decay, b_keep, threshold, TRACE)
        store_if(u_seq_p, o_tn, b_u, m_n)
        store_if(v_seq_p, o_tn, potential_after(b_u, b_u >= threshold, threshold, v_reset, HARD), m_n)
        store_if(trace_seq_p, o_tn, b_a, m_n)
        store_if(spikes_p, o_tn, b_s, m_n)
        b_r_prev = tl.where(t == 0, 1.0, b_v_prev) if FIRST else b_v_prev
        b_e = ratio_after(b_u, b_r_prev, b_u_prev, b_e, leak, threshold, TRACE)
        if room_p is not None:
            store_block_moments(room_p, t, b_u, m_n, n)

    store_if(u_last_p, o_n, b_u, m_n)
    store_if(v_last_p, o_n, potential_after(b_u, b_u >= threshold, threshold, v_reset, HARD), m_n)
    store_if(ratio_last_p, o_n, b_e, m_n)


@triton.jit(
    do_not_specialize=[
        *("T", "leak", "gain", "bias", "threshold", "v_reset", "height", "slope"),
        *("target", "precision", "share", "mu"),
    ]
)
def lif_backward_online(
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
    """g_x[t] = gain * (g_s[t]*sg(u[t] - th) + a1 dL_M/du), the second part where there are moments; with g_local it
    goes there alone. Without u it is recomputed from x and the potential, as the forward computed it."""
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
        if moments_p is not None:
            b_pull = pull(b_u, moments_p, t, target, precision, share, mu, STATE)
            if g_local_p is None:
                b_g_u += b_pull
            else:
                store_if(g_local_p, o_tn, gain * b_pull, m_n)
        store_if(g_x_p, o_tn, gain * b_g_u, m_n)


@triton.jit(
    do_not_specialize=[
        *("T", "leak", "gain", "threshold", "v_reset", "reset_grad", "height", "slope"),
        *("target", "precision", "share", "mu"),
    ]
)
def lif_backward_bptt(
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
    """g_u = g_s*sg + g_v*dv/du (+ a1 dL_M/du where there are moments) ; g_x = gain*g_u ; g_v[t-1] = lam*g_u, back in
    time from u of every step [T, n]."""
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
        if moments_p is not None:
            b_g_u += pull(b_u, moments_p, t, target, precision, share, mu, STATE)
        store_if(g_x_p, o_tn, gain * b_g_u, m_n)
        b_g_v = leak * b_g_u

    store_if(g_v_first_p, o_n, b_g_v, m_n)
