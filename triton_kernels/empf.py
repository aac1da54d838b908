"""EM-PF (equations/empf.md): passes over blocks of neurons; passes with sums, a program one part of one channel.

Arguments as csrc/core/empf.h has them: neurons [outer, channels, inner], n in all; parameters [T, channels] in the
state's type; sums float64 [parts, T, channels]; None: absent.
"""

from collections.abc import Callable
from typing import Any

import triton
import triton.language as tl

from .arguments import load_or, store_if
from .kernel import kernel
from .launch import ALIGNED, INTERPRETED, OPTIONS, SUM_BLOCK, block_of
from .operands import Call, cdiv


@triton.jit
def clipped(m, threshold):
    """v[t] = min(m, th) = m - s; NaN in m or th shows in s."""
    return tl.where(m < threshold, m, threshold)


@triton.jit
def fired_gradient(g_s, v, threshold):
    """g_m = g_s*f, f from v: a neuron that fired is at its threshold."""
    return tl.where(v >= threshold, g_s, 0.0)


@triton.jit
def channel_of(o_n, channels, inner):
    return o_n // inner % channels


@triton.jit
def part_of(n, channels, parts):
    """This program's channel and part of it, and the neurons of the channel where that begins and ends."""
    i, count = tl.program_id(0).to(tl.int64), n // channels
    channel, part = i // parts, i % parts
    return channel, part, count * part // parts, count * (part + 1) // parts


@triton.jit
def neuron_of(o_i, channel, channels, inner):
    """The i-th neuron of a channel."""
    return (o_i // inner * channels + channel) * inner + o_i % inner


@kernel(do_not_specialize=["T"])
def empf_forward(
    x_p,
    v_p,
    leak_p,
    threshold_p,
    spikes_p,
    v_last_p,
    v_seq_p,
    T: tl.int64,
    n: tl.int64,
    channels: tl.int64,
    inner: tl.int64,
    BLOCK: tl.constexpr,
):
    """Versions I and III (no leak): m = lam_t*v[t-1] + x, s = m - v, v = min(m, th_t)."""
    STATE: tl.constexpr = tl.float64 if x_p.dtype.element_ty == tl.float64 else tl.float32
    o_n = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)  # [BLOCK]
    m_n = o_n < n
    o_c = channel_of(o_n, channels, inner)
    b_v = load_or(v_p, o_n, m_n, 0.0, STATE)
    for t in range(T):
        o_tn, o_tc = t * n + o_n, t * channels + o_c
        b_threshold = tl.load(threshold_p + o_tc)
        b_m = tl.load(x_p + o_tn, m_n, 0.0).to(STATE)
        if leak_p is not None:
            b_m = tl.load(leak_p + o_tc) * b_v + b_m
        b_v = clipped(b_m, b_threshold)
        store_if(spikes_p, o_tn, b_m - b_v, m_n)
        store_if(v_seq_p, o_tn, b_v, m_n)
    store_if(v_last_p, o_n, b_v, m_n)


@kernel(do_not_specialize=["T", "parts"])
def empf_backward(
    g_spikes_p,
    v_seq_p,
    x_p,
    v_p,
    threshold_p,
    g_x_p,
    g_leak_p,
    g_threshold_p,
    T: tl.int64,
    n: tl.int64,
    channels: tl.int64,
    inner: tl.int64,
    parts: tl.int64,
    BLOCK: tl.constexpr,
):
    """g_x = g_s*f, g_th = -sum g_s*f, g_lam = sum g_m*v[t-1]; version III has x in place of v of every step."""
    STATE: tl.constexpr = tl.float64 if g_x_p.dtype.element_ty == tl.float64 else tl.float32
    channel, part, begin, end = part_of(n, channels, parts)
    for t in range(T):
        threshold = tl.load(threshold_p + t * channels + channel)
        b_sum, b_sum_v = tl.zeros([BLOCK], tl.float64), tl.zeros([BLOCK], tl.float64)
        for i in range(begin, end, BLOCK):
            o_i = i + tl.arange(0, BLOCK)
            m_i = o_i < end
            o_n = neuron_of(o_i, channel, channels, inner)
            o_tn = t * n + o_n
            b_g_s = tl.load(g_spikes_p + o_tn, m_i, 0.0).to(STATE)
            if v_seq_p is None:
                b_after = tl.load(x_p + o_tn, m_i, 0.0).to(STATE)
            else:
                b_after = tl.load(v_seq_p + o_tn, m_i, 0.0)
            b_g_m = fired_gradient(b_g_s, b_after, threshold)
            store_if(g_x_p, o_tn, b_g_m, m_i)
            b_sum -= b_g_m.to(tl.float64)
            if v_seq_p is not None:
                b_first = load_or(v_p, o_n, m_i & (t == 0), 0.0, STATE)
                b_before = tl.where(t == 0, b_first, tl.load(v_seq_p + o_tn - n, m_i & (t > 0), 0.0))
                b_sum_v += b_g_m.to(tl.float64) * b_before.to(tl.float64)
        o_sum = (part * T + t) * channels + channel
        tl.store(g_threshold_p + o_sum, tl.sum(b_sum, 0))
        if g_leak_p is not None:
            tl.store(g_leak_p + o_sum, tl.sum(b_sum_v, 0))


@kernel(do_not_specialize=["parts"])
def empf_potential(
    x_p,
    v_p,
    leak_p,
    m_p,
    shift_p,
    sums_p,
    squares_p,
    n: tl.int64,
    channels: tl.int64,
    inner: tl.int64,
    parts: tl.int64,
    BLOCK: tl.constexpr,
):
    """Version II: m = lam*v[t-1] + x and the sums of m - shift and its square, shift the channel's first m."""
    STATE: tl.constexpr = tl.float64 if x_p.dtype.element_ty == tl.float64 else tl.float32
    channel, part, begin, end = part_of(n, channels, parts)
    leak = tl.load(leak_p + channel)
    o_first = channel * inner
    first_v = tl.load(v_p + o_first) if v_p is not None else leak * 0.0
    shift = (leak * first_v + tl.load(x_p + o_first).to(STATE)).to(tl.float64)
    b_sum, b_squares = tl.zeros([BLOCK], tl.float64), tl.zeros([BLOCK], tl.float64)
    for i in range(begin, end, BLOCK):
        o_i = i + tl.arange(0, BLOCK)
        m_i = o_i < end
        o_n = neuron_of(o_i, channel, channels, inner)
        b_m = leak * load_or(v_p, o_n, m_i, 0.0, STATE) + tl.load(x_p + o_n, m_i, 0.0).to(STATE)
        tl.store(m_p + o_n, b_m, m_i)
        b_d = tl.where(m_i, b_m.to(tl.float64) - shift, 0.0)
        b_sum += b_d
        b_squares += b_d * b_d
    if sums_p is not None:
        tl.store(sums_p + part * channels + channel, tl.sum(b_sum, 0))
        tl.store(squares_p + part * channels + channel, tl.sum(b_squares, 0))
        tl.store(shift_p + channel, shift)


@kernel
def empf_norm_forward(
    m_p,
    mean_p,
    inverse_p,
    alpha_p,
    beta_p,
    gamma_p,
    bias_p,
    threshold_p,
    spikes_p,
    v_last_p,
    n: tl.int64,
    channels: tl.int64,
    inner: tl.int64,
    BLOCK: tl.constexpr,
):
    """mh = alpha*m + beta*(gamma*xhat + b), s = mh - v, v = min(mh, th)."""
    o_n = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)  # [BLOCK]
    m_n = o_n < n
    o_c = channel_of(o_n, channels, inner)
    b_m = tl.load(m_p + o_n, m_n, 0.0)
    b_xhat = (b_m - tl.load(mean_p + o_c)) * tl.load(inverse_p + o_c)
    b_normed = tl.load(gamma_p + o_c) * b_xhat + tl.load(bias_p + o_c)
    b_mh = tl.load(alpha_p + o_c) * b_m + tl.load(beta_p + o_c) * b_normed
    b_v = clipped(b_mh, tl.load(threshold_p + o_c))
    store_if(spikes_p, o_n, b_mh - b_v, m_n)
    tl.store(v_last_p + o_n, b_v, m_n)


@kernel(do_not_specialize=["parts"])
def empf_norm_sums(
    m_p,
    mean_p,
    inverse_p,
    alpha_p,
    beta_p,
    gamma_p,
    bias_p,
    threshold_p,
    g_spikes_p,
    v_last_p,
    g_mh_p,
    g_mh_xhat_p,
    n: tl.int64,
    channels: tl.int64,
    inner: tl.int64,
    parts: tl.int64,
    BLOCK: tl.constexpr,
):
    """sum g_mh and sum g_mh*xhat."""
    STATE: tl.constexpr = m_p.dtype.element_ty
    channel, part, begin, end = part_of(n, channels, parts)
    mean, inverse = tl.load(mean_p + channel), tl.load(inverse_p + channel)
    threshold = tl.load(threshold_p + channel)
    b_sum, b_sum_xhat = tl.zeros([BLOCK], tl.float64), tl.zeros([BLOCK], tl.float64)
    for i in range(begin, end, BLOCK):
        o_i = i + tl.arange(0, BLOCK)
        m_i = o_i < end
        o_n = neuron_of(o_i, channel, channels, inner)
        b_g_s = tl.load(g_spikes_p + o_n, m_i, 0.0).to(STATE)
        b_g_mh = fired_gradient(b_g_s, tl.load(v_last_p + o_n, m_i, 0.0), threshold).to(tl.float64)
        b_xhat = (tl.load(m_p + o_n, m_i, 0.0) - mean) * inverse
        b_sum += b_g_mh
        b_sum_xhat += b_g_mh * b_xhat.to(tl.float64)
    tl.store(g_mh_p + part * channels + channel, tl.sum(b_sum, 0))
    tl.store(g_mh_xhat_p + part * channels + channel, tl.sum(b_sum_xhat, 0))


@kernel(do_not_specialize=["parts"])
def empf_norm_backward(
    m_p,
    mean_p,
    inverse_p,
    alpha_p,
    beta_p,
    gamma_p,
    bias_p,
    threshold_p,
    g_spikes_p,
    v_last_p,
    v_p,
    pull_p,
    pull_xhat_p,
    g_x_p,
    g_leak_p,
    n: tl.int64,
    channels: tl.int64,
    inner: tl.int64,
    parts: tl.int64,
    BLOCK: tl.constexpr,
):
    """g_x = alpha*g_mh + gamma*inverse*(g_n - mean(g_n) - xhat*mean(g_n*xhat)), g_n = beta*g_mh, and g_lam."""
    STATE: tl.constexpr = m_p.dtype.element_ty
    channel, part, begin, end = part_of(n, channels, parts)
    mean, inverse = tl.load(mean_p + channel), tl.load(inverse_p + channel)
    alpha, beta = tl.load(alpha_p + channel), tl.load(beta_p + channel)
    scale, threshold = tl.load(gamma_p + channel) * inverse, tl.load(threshold_p + channel)
    pull, pull_xhat = tl.load(pull_p + channel), tl.load(pull_xhat_p + channel)
    b_sum = tl.zeros([BLOCK], tl.float64)
    for i in range(begin, end, BLOCK):
        o_i = i + tl.arange(0, BLOCK)
        m_i = o_i < end
        o_n = neuron_of(o_i, channel, channels, inner)
        b_g_s = tl.load(g_spikes_p + o_n, m_i, 0.0).to(STATE)
        b_g_mh = fired_gradient(b_g_s, tl.load(v_last_p + o_n, m_i, 0.0), threshold)
        b_xhat = (tl.load(m_p + o_n, m_i, 0.0) - mean) * inverse
        b_g_m = alpha * b_g_mh + scale * ((beta * b_g_mh - pull) - b_xhat * pull_xhat)
        store_if(g_x_p, o_n, b_g_m, m_i)
        b_before = load_or(v_p, o_n, m_i, 0.0, STATE)
        b_sum += tl.where(m_i, b_g_m.to(tl.float64) * b_before.to(tl.float64), 0.0)
    tl.store(g_leak_p + part * channels + channel, tl.sum(b_sum, 0))


def _in_blocks(kernel: Any, like: str) -> Callable[[Call], None]:
    """Launches a program a block of neurons. like: an operand of theirs."""

    def launch(call: Call) -> None:
        call.n = call.outer * call.channels * call.inner
        block = block_of(call.n, getattr(call, like), of_state=call.n % ALIGNED != 0)
        call.run(kernel, cdiv(call.n, block), BLOCK=block, **OPTIONS)

    return launch


def _in_parts(kernel: Any, like: str) -> Callable[[Call], None]:
    """Launches a program a part of a channel."""

    def launch(call: Call) -> None:
        each = call.outer * call.inner
        call.n = each * call.channels
        block = block_of(cdiv(each, call.parts), getattr(call, like)) if INTERPRETED else SUM_BLOCK
        call.run(kernel, call.channels * call.parts, BLOCK=block, **OPTIONS)

    return launch


LAUNCHES = {
    "empf_forward": _in_blocks(empf_forward, "x"),
    "empf_backward": _in_parts(empf_backward, "g_spikes"),
    "empf_potential": _in_parts(empf_potential, "x"),
    "empf_norm_forward": _in_blocks(empf_norm_forward, "m"),
    "empf_norm_sums": _in_parts(empf_norm_sums, "m"),
    "empf_norm_backward": _in_parts(empf_norm_backward, "m"),
}
