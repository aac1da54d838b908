"""LIF forward and backward, with and without MPDR: one program a block of neurons, the T loop inside it, state in
registers.

Arguments as csrc/core/arguments.h has them: x, spikes, gradients of spikes and x [T, n]; `_seq` [T, n]; all
else [n]; None: not wanted (outputs) or zero (inputs). State is float64 for float64 input and float32 otherwise.
The rules' parameters come as bits of the state's type. A new state may take the memory of the old one, which is read
before.
"""

from typing import Any, NamedTuple

import triton
import triton.language as tl

from .arguments import load_or, number, store_if
from .kernel import kernel
from .moments import store_block_moments
from .mpdr import pull
from .surrogate import surrogate
from .trace import NDOT, NDOT_RELEASED, OTTT, ratio, ratio_released


class Lif(NamedTuple):
    """Parameters in the state's type."""

    leak: Any
    gain: Any
    bias: Any
    threshold: Any
    v_reset: Any


class State(NamedTuple):
    """What some neurons carry from step to step: u[t], the trace a[t], the ratio e[t]."""

    u: Any
    a: Any
    e: Any


@triton.jit
def lif_of(leak, gain, bias, threshold, v_reset, STATE: tl.constexpr):
    """From the parameters' bits."""
    leak, gain, bias = number(leak, STATE), number(gain, STATE), number(bias, STATE)
    return Lif(leak, gain, bias, number(threshold, STATE), number(v_reset, STATE))


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
def fire(p, b_x, b_keep, before, t, GIVEN_V, HARD: tl.constexpr):
    """s, v and u of one step."""
    b_v_prev = potential_before(before.u, t, p.threshold, p.v_reset, GIVEN_V, HARD)
    b_u = charge(b_v_prev, b_x, p.leak, p.gain, p.bias)
    fired = b_u >= p.threshold
    return tl.where(fired, b_keep, 0.0), potential_after(b_u, fired, p.threshold, p.v_reset, HARD), b_u


@triton.jit
def state_after(p, b_s, b_v, b_u, before, t, FIRST, GIVEN_V, TRACE: tl.constexpr):
    """u, a and e after a step; once u and v are stored, a division takes fewer registers."""
    b_a, b_e = before.a, before.e
    if TRACE == OTTT:
        b_a = p.leak * b_a + b_s
    elif TRACE == NDOT:
        b_a = b_e * b_a + b_s
        b_v_prev = potential_before(before.u, t, p.threshold, p.v_reset, GIVEN_V, False)
        b_e = ratio(b_v, tl.where(t == 0, 1.0, b_v_prev) if FIRST else b_v_prev, before.u, p.leak)
    elif TRACE == NDOT_RELEASED:
        num = tl.where(b_u >= p.threshold, b_v - p.threshold * b_s, b_v)
        b_a = ratio_released(num, b_e, p.leak) * b_a + b_s
        b_e = num
    return State(b_u, b_a, b_e)


@triton.jit
def places(BLOCK, T, n, ALIGNED: tl.constexpr):
    """Offsets of this program's neurons, and which of them there are."""
    first = tl.program_id(0).to(tl.int64) * BLOCK
    if not ALIGNED:
        # zero, which Triton does not know: of places that it takes for aligned a thread has neighbours, of those in
        # rows of n it has not, and the two would meet in shared memory
        first += tl.minimum(T, 0)
    o_n = first + tl.arange(0, BLOCK)
    return o_n, o_n < n


@triton.jit
def load_state(p, arrays, o_n, m_n, HARD, STATE: tl.constexpr):
    b_u = load_or(arrays.u, o_n, m_n, p.v_reset if HARD else 0.0, STATE)
    return State(b_u, load_or(arrays.a, o_n, m_n, 0.0, STATE), load_or(arrays.e, o_n, m_n, 0.0, STATE))


@triton.jit
def step(p, b_x, before, optional, t, n, o_n, m_n, FIRST, GIVEN_V, HARD, TRACE: tl.constexpr):
    """Step t of some neurons: their spikes, in the type of x, and the state after it; all else is stored."""
    keep_p, u_seq_p, v_seq_p, trace_seq_p = optional
    b_keep = load_or(keep_p, o_n, m_n, 1.0, before.u.dtype)  # again each step, for want of registers
    b_s, b_v, b_u = fire(p, b_x.to(before.u.dtype), b_keep, before, t, GIVEN_V, HARD)
    store_if(u_seq_p, t * n + o_n, b_u, m_n)
    store_if(v_seq_p, t * n + o_n, b_v, m_n)
    after = state_after(p, b_s, b_v, b_u, before, t, FIRST, GIVEN_V, TRACE)
    store_if(trace_seq_p, t * n + o_n, after.a, m_n)
    return b_s.to(b_x.dtype), after


@triton.jit
def store_last(p, state, last, o_n, m_n, HARD: tl.constexpr):
    u_last_p, v_last_p, ratio_last_p = last
    store_if(u_last_p, o_n, state.u, m_n)
    store_if(v_last_p, o_n, potential_after(state.u, state.u >= p.threshold, p.threshold, p.v_reset, HARD), m_n)
    store_if(ratio_last_p, o_n, state.e, m_n)


@kernel(do_not_specialize=["T", "leak", "gain", "bias", "threshold", "v_reset"])
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
    ALIGNED: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """FIRST: t = 1 of a sequence, r[0] = 1 (ndot). GIVEN_V: the potential was already reset. room: moments of every
    u[t] are wanted."""
    STATE: tl.constexpr = tl.float64 if x_p.dtype.element_ty == tl.float64 else tl.float32
    p = lif_of(leak, gain, bias, threshold, v_reset, STATE)
    initial, last = State(potential_p, trace_p, ratio_p), (u_last_p, v_last_p, ratio_last_p)
    optional = (keep_p, u_seq_p, v_seq_p, trace_seq_p)
    o_n, m_n = places(BLOCK, T, n, ALIGNED)

    state = load_state(p, initial, o_n, m_n, HARD, STATE)
    for t in range(T):
        b_x = tl.load(x_p + (t * n + o_n), m_n, 0.0)
        b_s, state = step(p, b_x, state, optional, t, n, o_n, m_n, FIRST, GIVEN_V, HARD, TRACE)
        store_if(spikes_p, t * n + o_n, b_s, m_n)
        if room_p is not None:
            store_block_moments(room_p, t, state.u, m_n, n)
    store_last(p, state, last, o_n, m_n, HARD)


@triton.jit
def step_local(p, sg, b_g_s, b_x, b_u_prev, optional, pulls_p, t, n, o_n, m_n, GIVEN_V, HARD, SHAPE: tl.constexpr):
    """g_x of a step that no later one reaches, and its u, recomputed where it was not saved."""
    height, slope = sg
    keep_p, u_p, g_local_p = optional
    if u_p is None:
        b_v = potential_before(b_u_prev, t, p.threshold, p.v_reset, GIVEN_V, HARD)
        b_u = charge(b_v, b_x.to(b_u_prev.dtype), p.leak, p.gain, p.bias)
    else:
        b_u = tl.load(u_p + (t * n + o_n), m_n, 0.0)
    b_keep = load_or(keep_p, o_n, m_n, 1.0, b_u.dtype)  # again each step, as forward
    b_g_u = (b_g_s.to(b_u.dtype) * b_keep) * surrogate(b_u - p.threshold, height, slope, SHAPE)
    if pulls_p is not None:
        b_pull = pull(b_u, pulls_p, t, b_u.dtype)
        if g_local_p is None:
            b_g_u += b_pull
        else:
            store_if(g_local_p, t * n + o_n, p.gain * b_pull, m_n)
    return (p.gain * b_g_u).to(b_g_s.dtype), b_u


@kernel(do_not_specialize=["T", "leak", "gain", "bias", "threshold", "v_reset", "height", "slope"])
def lif_backward_online(
    g_spikes_p,
    keep_p,
    u_p,
    x_p,
    potential_p,
    g_x_p,
    pulls_p,
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
    GIVEN_V: tl.constexpr,
    HARD: tl.constexpr,
    SHAPE: tl.constexpr,
    ALIGNED: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """g_x[t] = gain * (g_s[t]*sg(u[t] - th) + dL/du), the second part where there are MPDR's pulls; with g_local it
    goes there alone. Without u it is recomputed from x and the potential, as the forward computed it."""
    STATE: tl.constexpr = tl.float64 if g_x_p.dtype.element_ty == tl.float64 else tl.float32
    DTYPE: tl.constexpr = g_x_p.dtype.element_ty
    p = lif_of(leak, gain, bias, threshold, v_reset, STATE)
    sg, optional = (number(height, STATE), number(slope, STATE)), (keep_p, u_p, g_local_p)
    o_n, m_n = places(BLOCK, T, n, ALIGNED)

    b_u = load_or(potential_p, o_n, m_n, p.v_reset if HARD else 0.0, STATE)
    for t in range(T):
        b_x = load_or(x_p, t * n + o_n, m_n, 0.0, DTYPE)
        b_g_s = load_or(g_spikes_p, t * n + o_n, m_n, 0.0, DTYPE)
        b_g_x, b_u = step_local(p, sg, b_g_s, b_x, b_u, optional, pulls_p, t, n, o_n, m_n, GIVEN_V, HARD, SHAPE)
        store_if(g_x_p, t * n + o_n, b_g_x, m_n)


@triton.jit
def reset_derivative(u, sg, threshold, v_reset, reset_grad, HARD: tl.constexpr):
    """dv/du of the reset, BPTT only."""
    if HARD:
        kept = tl.where(u >= threshold, 0.0, 1.0)
        return kept + reset_grad * ((v_reset - u) * sg)
    else:
        return 1.0 - reset_grad * sg


@triton.jit
def step_back(p, sg, b_g_s, b_g_v, u_p, optional, pulls_p, t, n, o_n, m_n, HARD, SHAPE: tl.constexpr):
    """g_x = gain*g_u and g_v[t-1] = lam*g_u ; g_u = g_s*sg + g_v*dv/du (+ dL/du where there are MPDR's pulls)."""
    height, slope, reset_grad = sg
    keep_p, g_v_seq_p = optional
    b_u = tl.load(u_p + (t * n + o_n), m_n, 0.0)
    b_keep = load_or(keep_p, o_n, m_n, 1.0, b_u.dtype)  # again each step, as forward
    b_g_v += load_or(g_v_seq_p, t * n + o_n, m_n, 0.0, b_u.dtype)
    b_sg = surrogate(b_u - p.threshold, height, slope, SHAPE)
    b_dv_du = reset_derivative(b_u, b_sg, p.threshold, p.v_reset, reset_grad, HARD)
    b_g_u = (b_g_s.to(b_u.dtype) * b_keep) * b_sg + b_g_v * b_dv_du
    if pulls_p is not None:
        b_g_u += pull(b_u, pulls_p, t, b_u.dtype)
    return (p.gain * b_g_u).to(b_g_s.dtype), p.leak * b_g_u


@kernel(do_not_specialize=["T", "leak", "gain", "threshold", "v_reset", "reset_grad", "height", "slope"])
def lif_backward_bptt(
    g_spikes_p,
    keep_p,
    u_p,
    g_v_last_p,
    g_v_seq_p,
    g_x_p,
    g_v_first_p,
    pulls_p,
    T: tl.int64,
    n: tl.int64,
    leak: tl.int64,
    gain: tl.int64,
    threshold: tl.int64,
    v_reset: tl.int64,
    reset_grad: tl.int64,
    height: tl.int64,
    slope: tl.int64,
    HARD: tl.constexpr,
    SHAPE: tl.constexpr,
    ALIGNED: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Back in time from u of every step [T, n]."""
    STATE: tl.constexpr = tl.float64 if g_x_p.dtype.element_ty == tl.float64 else tl.float32
    DTYPE: tl.constexpr = g_x_p.dtype.element_ty
    leak, gain = number(leak, STATE), number(gain, STATE)
    p = Lif(leak, gain, None, number(threshold, STATE), number(v_reset, STATE))
    sg = (number(height, STATE), number(slope, STATE), number(reset_grad, STATE))
    optional = (keep_p, g_v_seq_p)
    o_n, m_n = places(BLOCK, T, n, ALIGNED)

    b_g_v = load_or(g_v_last_p, o_n, m_n, 0.0, STATE)
    for i in range(T):
        t = T - 1 - i
        b_g_s = load_or(g_spikes_p, t * n + o_n, m_n, 0.0, DTYPE)
        b_g_x, b_g_v = step_back(p, sg, b_g_s, b_g_v, u_p, optional, pulls_p, t, n, o_n, m_n, HARD, SHAPE)
        store_if(g_x_p, t * n + o_n, b_g_x, m_n)
    store_if(g_v_first_p, o_n, b_g_v, m_n)
