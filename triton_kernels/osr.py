"""OSR (SPEC 5), alone and with the LIF behind it. Arguments as csrc/core/stats.h has them.

x, y and their gradients are [outer, channels, inner]; vectors over channels are float64. Sums are float64 and in two
stages: a program adds up one part of `outer` for a block of channels, and another kernel takes the parts together in
their order. A tile is [BLOCK_J, BLOCK_C]: elements of a part, channels.
"""

import triton
import triton.language as tl

from .arguments import load_or, number, store_if
from .lif import advance, potential_after
from .surrogate import surrogate


@triton.jit
def part(outer, inner, BLOCK_C: tl.constexpr):
    """This program's first index of `outer`, its elements a channel, its channels."""
    i_part, parts = tl.program_id(0).to(tl.int64), tl.num_programs(0)
    begin = outer * i_part // parts
    size = (outer * (i_part + 1) // parts - begin) * inner
    return begin, size, tl.program_id(1).to(tl.int64) * BLOCK_C + tl.arange(0, BLOCK_C)


@triton.jit
def tile(j, begin, size, o_c, channels, inner, BLOCK_J: tl.constexpr):
    """Offsets and mask of the tile that begins with element j of the part."""
    o_j = j + tl.arange(0, BLOCK_J)
    row = (begin + o_j // inner)[:, None] * channels + o_c[None, :]
    return row * inner + (o_j % inner)[:, None], (o_j < size)[:, None] & (o_c < channels)[None, :]


@triton.jit
def over_tile(vector_p, o_c, channels, TYPE: tl.constexpr):
    """A vector over channels, as it broadcasts over a tile."""
    return tl.load(vector_p + o_c, o_c < channels, 0.0).to(TYPE)[None, :]


@triton.jit
def store_part(parts_p, o_c, channels, first, second):
    """Two vectors of this program's part: parts is [parts, 2, channels]."""
    o_part = tl.program_id(0).to(tl.int64) * 2 * channels + o_c
    tl.store(parts_p + o_part, first, o_c < channels)
    tl.store(parts_p + o_part + channels, second, o_c < channels)


@triton.jit
def store_moments(parts_p, o_c, channels, size, origin, sum, squares):
    """Mean and M2 of a part, from sums of x - origin and of its square."""
    shift = sum / size.to(tl.float64)
    store_part(parts_p, o_c, channels, origin + shift, tl.maximum(squares - sum * shift, 0.0, tl.PropagateNan.ALL))


@triton.jit
def osr_forward(
    x_p,
    center_p,
    factor_p,
    shift_p,
    y_p,
    parts_p,
    outer: tl.int64,
    channels: tl.int64,
    inner: tl.int64,
    BLOCK_J: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    STATE: tl.constexpr = tl.float64 if x_p.dtype.element_ty == tl.float64 else tl.float32
    begin, size, o_c = part(outer, inner, BLOCK_C)
    center, factor = over_tile(center_p, o_c, channels, STATE), over_tile(factor_p, o_c, channels, STATE)
    shift = over_tile(shift_p, o_c, channels, STATE)
    origin = tl.load(x_p + (begin * channels + o_c) * inner, o_c < channels, 0.0).to(tl.float64)
    b_sum, b_squares = tl.zeros([BLOCK_J, BLOCK_C], tl.float64), tl.zeros([BLOCK_J, BLOCK_C], tl.float64)
    for j in range(0, size, BLOCK_J):
        o_x, m_x = tile(j, begin, size, o_c, channels, inner, BLOCK_J)
        b_x = tl.load(x_p + o_x, m_x, 0.0).to(STATE)
        b_d = tl.where(m_x, b_x.to(tl.float64) - origin[None, :], 0.0)
        b_sum += b_d
        b_squares += b_d * b_d
        store_if(y_p, o_x, (b_x - center) * factor + shift, m_x)
    if parts_p is not None:
        store_moments(parts_p, o_c, channels, size, origin, tl.sum(b_sum, 0), tl.sum(b_squares, 0))


@triton.jit(do_not_specialize=["leak", "gain", "bias", "threshold", "v_reset"])
def osr_lif_forward(
    x_p,
    center_p,
    factor_p,
    shift_p,
    parts_p,
    potential_p,
    trace_p,
    ratio_p,
    keep_p,
    spikes_p,
    u_p,
    trace_out_p,
    ratio_out_p,
    outer: tl.int64,
    channels: tl.int64,
    inner: tl.int64,
    leak: tl.int64,
    gain: tl.int64,
    bias: tl.int64,
    threshold: tl.int64,
    v_reset: tl.int64,
    FIRST: tl.constexpr,
    GIVEN_V: tl.constexpr,
    HARD: tl.constexpr,
    TRACE: tl.constexpr,
    BLOCK_J: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    """One step of the neuron on y, which stays in registers."""
    STATE: tl.constexpr = tl.float64 if x_p.dtype.element_ty == tl.float64 else tl.float32
    leak, gain, bias = number(leak, STATE), number(gain, STATE), number(bias, STATE)
    threshold, v_reset = number(threshold, STATE), number(v_reset, STATE)
    begin, size, o_c = part(outer, inner, BLOCK_C)
    center, factor = over_tile(center_p, o_c, channels, STATE), over_tile(factor_p, o_c, channels, STATE)
    shift = over_tile(shift_p, o_c, channels, STATE)
    origin = tl.load(x_p + (begin * channels + o_c) * inner, o_c < channels, 0.0).to(tl.float64)
    b_sum, b_squares = tl.zeros([BLOCK_J, BLOCK_C], tl.float64), tl.zeros([BLOCK_J, BLOCK_C], tl.float64)
    for j in range(0, size, BLOCK_J):
        o_x, m_x = tile(j, begin, size, o_c, channels, inner, BLOCK_J)
        b_x = tl.load(x_p + o_x, m_x, 0.0).to(STATE)
        b_d = tl.where(m_x, b_x.to(tl.float64) - origin[None, :], 0.0)
        b_sum += b_d
        b_squares += b_d * b_d

        b_keep = load_or(keep_p, o_x, m_x, 1.0, STATE)
        b_u_prev = load_or(potential_p, o_x, m_x, v_reset if HARD else 0.0, STATE)
        b_a = load_or(trace_p, o_x, m_x, 0.0, STATE)
        b_e = load_or(ratio_p, o_x, m_x, 0.0, STATE)
        b_v_prev = b_u_prev
        if not GIVEN_V:
            b_v_prev = potential_after(b_u_prev, b_u_prev >= threshold, threshold, v_reset, HARD)
        b_r_prev = tl.full(b_x.shape, 1.0, STATE) if FIRST else b_v_prev
        b_y = (b_x - center) * factor + shift
        numbers = leak, gain, bias, threshold, v_reset
        b_s, b_u, _, b_a, b_e = advance(b_y, b_keep, b_v_prev, b_r_prev, b_u_prev, b_a, b_e, *numbers, HARD, TRACE)
        store_if(spikes_p, o_x, b_s, m_x)
        store_if(u_p, o_x, b_u, m_x)
        store_if(trace_out_p, o_x, b_a, m_x)
        store_if(ratio_out_p, o_x, b_e, m_x)
    if parts_p is not None:
        store_moments(parts_p, o_c, channels, size, origin, tl.sum(b_sum, 0), tl.sum(b_squares, 0))


@triton.jit
def osr_merge(
    parts_p,
    mean_p,
    m2_p,
    parts: tl.int64,
    outer: tl.int64,
    channels: tl.int64,
    inner: tl.int64,
    BLOCK: tl.constexpr,
):
    """Moments of all parts, in their order (Chan, Golub, LeVeque)."""
    o_c = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    m_c = o_c < channels
    mean, m2 = tl.zeros([BLOCK], tl.float64), tl.zeros([BLOCK], tl.float64)
    for i in range(parts):
        begin, end = outer * i // parts, outer * (i + 1) // parts
        before, n = (begin * inner).to(tl.float64), ((end - begin) * inner).to(tl.float64)
        share = n / (before + n)
        delta = tl.load(parts_p + 2 * i * channels + o_c, m_c, 0.0) - mean
        mean += delta * share
        m2 = m2 + tl.load(parts_p + (2 * i + 1) * channels + o_c, m_c, 0.0) + delta * delta * (before * share)
    tl.store(mean_p + o_c, mean, m_c)
    tl.store(m2_p + o_c, m2, m_c)


@triton.jit(do_not_specialize=["gain", "threshold", "height", "slope"])
def osr_reduce(
    x_p,
    g_p,
    mean_p,
    inverse_p,
    parts_p,
    u_p,
    keep_p,
    g_y_p,
    outer: tl.int64,
    channels: tl.int64,
    inner: tl.int64,
    gain: tl.int64,
    threshold: tl.int64,
    height: tl.int64,
    slope: tl.int64,
    LIF: tl.constexpr,
    SHAPE: tl.constexpr,
    BLOCK_J: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    """[sum g, sum g*xh] of a part. With LIF, g is that of the spikes, and g_y = gain * g_s * sg(u - th) is kept."""
    STATE: tl.constexpr = tl.float64 if x_p.dtype.element_ty == tl.float64 else tl.float32
    begin, size, o_c = part(outer, inner, BLOCK_C)
    mean, inverse = over_tile(mean_p, o_c, channels, tl.float64), over_tile(inverse_p, o_c, channels, tl.float64)
    b_sum, b_normal = tl.zeros([BLOCK_J, BLOCK_C], tl.float64), tl.zeros([BLOCK_J, BLOCK_C], tl.float64)
    for j in range(0, size, BLOCK_J):
        o_x, m_x = tile(j, begin, size, o_c, channels, inner, BLOCK_J)
        b_g = tl.load(g_p + o_x, m_x, 0.0).to(STATE)
        if LIF:
            b_z = tl.load(u_p + o_x, m_x, 0.0) - number(threshold, STATE)
            b_sg = surrogate(b_z, number(height, STATE), number(slope, STATE), SHAPE)
            b_g = number(gain, STATE) * ((b_g * load_or(keep_p, o_x, m_x, 1.0, STATE)) * b_sg)
            store_if(g_y_p, o_x, b_g, m_x)
        b_wide = tl.where(m_x, b_g.to(tl.float64), 0.0)
        b_xh = tl.where(m_x, (tl.load(x_p + o_x, m_x, 0.0).to(tl.float64) - mean) * inverse, 0.0)
        b_sum += b_wide
        b_normal += b_wide * b_xh
    store_part(parts_p, o_c, channels, tl.sum(b_sum, 0), tl.sum(b_normal, 0))


@triton.jit
def osr_total(parts_p, sums_p, parts: tl.int64, n: tl.int64, BLOCK: tl.constexpr):
    """Sums of all parts, in their order; n = 2 * channels."""
    o_n = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    b_sum = tl.zeros([BLOCK], tl.float64)
    for i in range(parts):
        b_sum += tl.load(parts_p + i * n + o_n, o_n < n, 0.0)
    tl.store(sums_p + o_n, b_sum, o_n < n)


@triton.jit
def osr_gradient(
    x_p,
    g_p,
    mean_p,
    inverse_p,
    factor_p,
    means_p,
    g_x_p,
    outer: tl.int64,
    channels: tl.int64,
    inner: tl.int64,
    BLOCK_J: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    """g_x = factor * (g - mean(g) - xh * mean(g*xh))."""
    STATE: tl.constexpr = tl.float64 if x_p.dtype.element_ty == tl.float64 else tl.float32
    begin, size, o_c = part(outer, inner, BLOCK_C)
    mean, inverse = over_tile(mean_p, o_c, channels, tl.float64), over_tile(inverse_p, o_c, channels, tl.float64)
    factor = over_tile(factor_p, o_c, channels, tl.float64)
    mean_g = over_tile(means_p, o_c, channels, tl.float64)
    mean_g_xh = over_tile(means_p + channels, o_c, channels, tl.float64)
    for j in range(0, size, BLOCK_J):
        o_x, m_x = tile(j, begin, size, o_c, channels, inner, BLOCK_J)
        b_xh = (tl.load(x_p + o_x, m_x, 0.0).to(tl.float64) - mean) * inverse
        b_g = tl.load(g_p + o_x, m_x, 0.0).to(tl.float64)
        store_if(g_x_p, o_x, (factor * (b_g - mean_g - b_xh * mean_g_xh)).to(STATE), m_x)
