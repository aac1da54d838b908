"""OSR (equations/osr.md), alone and with the LIF behind it. Arguments as csrc/core/stats.h has them.

x, y and their gradients are [outer, channels, inner]; vectors over channels are float64. Sums are float64 and in two
stages: a program adds up one part of the elements of a block of channels, and another kernel takes the parts together.
A tile is [BLOCK_J, BLOCK_C]: elements of each channel, channels.
"""

import triton
import triton.language as tl

from .arguments import load_or, number, numbers, store_if, store_slots
from .kernel import kernel
from .lif import advance, load_state, step
from .rules.rule import Lif
from .surrogate import surrogate


@triton.jit
def begin_of(i_part, count, parts):
    """A channel's first element in a part, a multiple of 16 so that accesses stay aligned."""
    return tl.where(i_part == parts, count, count * i_part // parts // 16 * 16)


@triton.jit
def part(outer, inner, BLOCK_C: tl.constexpr):
    """This program's channels, and where their elements begin and end."""
    i_part, parts, count = tl.program_id(0).to(tl.int64), tl.num_programs(0), outer * inner
    begin, end = count * i_part // parts // 16 * 16, begin_of(i_part + 1, count, parts)
    return begin, end, tl.program_id(1).to(tl.int64) * BLOCK_C + tl.arange(0, BLOCK_C)


@triton.jit
def tile(j, end, o_c, channels, inner, BLOCK_J: tl.constexpr):
    """Offsets and mask of the tile that begins with element j of each channel."""
    o_j = j + tl.arange(0, BLOCK_J)
    row = (o_j // inner)[:, None] * channels + o_c[None, :]
    return row * inner + (o_j % inner)[:, None], (o_j < end)[:, None] & (o_c < channels)[None, :]


@triton.jit
def origin_of(x_p, begin, o_c, channels, inner):
    """What the elements are summed relative to: each channel's first of the part."""
    o_first = (begin // inner * channels + o_c) * inner + begin % inner
    return tl.load(x_p + o_first, o_c < channels, 0.0).to(tl.float64)


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


@kernel
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
    begin, end, o_c = part(outer, inner, BLOCK_C)
    center, factor = over_tile(center_p, o_c, channels, STATE), over_tile(factor_p, o_c, channels, STATE)
    shift = over_tile(shift_p, o_c, channels, STATE)
    origin = origin_of(x_p, begin, o_c, channels, inner)
    b_sum, b_squares = tl.zeros([BLOCK_J, BLOCK_C], tl.float64), tl.zeros([BLOCK_J, BLOCK_C], tl.float64)
    for j in range(begin, end, BLOCK_J):
        o_x, m_x = tile(j, end, o_c, channels, inner, BLOCK_J)
        b_x = tl.load(x_p + o_x, m_x, 0.0).to(STATE)
        b_d = tl.where(m_x, b_x.to(tl.float64) - origin[None, :], 0.0)
        b_sum += b_d
        b_squares += b_d * b_d
        store_if(y_p, o_x, (b_x - center) * factor + shift, m_x)
    if parts_p is not None:
        store_moments(parts_p, o_c, channels, end - begin, origin, tl.sum(b_sum, 0), tl.sum(b_squares, 0))


@kernel(do_not_specialize=["leak", "gain", "bias", "threshold", "v_reset", "of_rule"])
def osr_lif_forward(
    x_p,
    center_p,
    factor_p,
    shift_p,
    parts_p,
    potential_p,
    slots_p,
    keep_p,
    spikes_p,
    u_p,
    slots_out_p,
    outer: tl.int64,
    channels: tl.int64,
    inner: tl.int64,
    leak: tl.int64,
    gain: tl.int64,
    bias: tl.int64,
    threshold: tl.int64,
    v_reset: tl.int64,
    of_rule,
    FIRST: tl.constexpr,
    GIVEN_V: tl.constexpr,
    HARD: tl.constexpr,
    RULE: tl.constexpr,
    BLOCK_J: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    """One step of the neuron on y, which stays in registers."""
    STATE: tl.constexpr = tl.float64 if x_p.dtype.element_ty == tl.float64 else tl.float32
    leak, gain, bias = number(leak, STATE), number(gain, STATE), number(bias, STATE)
    threshold, v_reset = number(threshold, STATE), number(v_reset, STATE) if HARD else None
    p = Lif(leak, gain, bias, threshold, v_reset, of_rule=numbers(of_rule, STATE))
    begin, end, o_c = part(outer, inner, BLOCK_C)
    center, factor = over_tile(center_p, o_c, channels, STATE), over_tile(factor_p, o_c, channels, STATE)
    shift = over_tile(shift_p, o_c, channels, STATE)
    origin = origin_of(x_p, begin, o_c, channels, inner)
    b_sum, b_squares = tl.zeros([BLOCK_J, BLOCK_C], tl.float64), tl.zeros([BLOCK_J, BLOCK_C], tl.float64)
    for j in range(begin, end, BLOCK_J):
        o_x, m_x = tile(j, end, o_c, channels, inner, BLOCK_J)
        b_x = tl.load(x_p + o_x, m_x, 0.0).to(STATE)
        b_d = tl.where(m_x, b_x.to(tl.float64) - origin[None, :], 0.0)
        b_sum += b_d
        b_squares += b_d * b_d

        b_y = (b_x - center) * factor + shift
        b_keep = load_or(keep_p, o_x, m_x, 1.0, STATE)
        before = load_state(p, potential_p, slots_p, o_x, m_x, RULE.count, STATE)
        now, slots = step(p, b_y, b_keep, before, 0, FIRST, GIVEN_V, RULE)
        store_if(spikes_p, o_x, now.s, m_x)
        store_if(u_p, o_x, now.u, m_x)
        store_slots(slots_out_p, o_x, advance(p, now, slots, RULE), m_x)
    if parts_p is not None:
        store_moments(parts_p, o_c, channels, end - begin, origin, tl.sum(b_sum, 0), tl.sum(b_squares, 0))


@triton.jit
def parts_tile(i, parts, o_c, channels, BLOCK_P: tl.constexpr):
    """Offsets of the first sums of some parts and channels, and which of them there are."""
    o_p = i + tl.arange(0, BLOCK_P)
    return o_p, 2 * o_p[:, None] * channels + o_c[None, :], (o_p < parts)[:, None] & (o_c < channels)[None, :]


@kernel
def osr_merge(
    parts_p,
    mean_p,
    m2_p,
    parts: tl.int64,
    outer: tl.int64,
    channels: tl.int64,
    inner: tl.int64,
    BLOCK_P: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    """Moments of all parts: the mean of their means, and how far these are from it."""
    o_c = tl.program_id(0).to(tl.int64) * BLOCK_C + tl.arange(0, BLOCK_C)
    count = outer * inner
    first = tl.load(parts_p + o_c, o_c < channels, 0.0)[None, :]
    b_sum, b_m2 = tl.zeros([BLOCK_P, BLOCK_C], tl.float64), tl.zeros([BLOCK_P, BLOCK_C], tl.float64)
    for i in range(0, parts, BLOCK_P):
        o_p, o_part, m_part = parts_tile(i, parts, o_c, channels, BLOCK_P)
        b_n = (begin_of(o_p + 1, count, parts) - begin_of(o_p, count, parts)).to(tl.float64)[:, None]
        b_sum += tl.where(m_part, b_n * (tl.load(parts_p + o_part, m_part, 0.0) - first), 0.0)
    mean = first + (tl.sum(b_sum, 0) / count.to(tl.float64))[None, :]
    for i in range(0, parts, BLOCK_P):
        o_p, o_part, m_part = parts_tile(i, parts, o_c, channels, BLOCK_P)
        b_n = (begin_of(o_p + 1, count, parts) - begin_of(o_p, count, parts)).to(tl.float64)[:, None]
        b_delta = tl.load(parts_p + o_part, m_part, 0.0) - mean
        b_part = tl.load(parts_p + o_part + channels, m_part, 0.0) + b_n * (b_delta * b_delta)
        b_m2 += tl.where(m_part, b_part, 0.0)
    o_one = tl.zeros([1, BLOCK_C], tl.int64) + o_c[None, :]
    tl.store(mean_p + o_one, mean, o_one < channels)
    tl.store(m2_p + o_c, tl.sum(b_m2, 0), o_c < channels)


@kernel(do_not_specialize=["gain", "threshold", "height", "slope"])
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
    begin, end, o_c = part(outer, inner, BLOCK_C)
    mean, inverse = over_tile(mean_p, o_c, channels, tl.float64), over_tile(inverse_p, o_c, channels, tl.float64)
    b_sum, b_normal = tl.zeros([BLOCK_J, BLOCK_C], tl.float64), tl.zeros([BLOCK_J, BLOCK_C], tl.float64)
    for j in range(begin, end, BLOCK_J):
        o_x, m_x = tile(j, end, o_c, channels, inner, BLOCK_J)
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


@kernel
def osr_total(parts_p, sums_p, parts: tl.int64, channels: tl.int64, BLOCK_P: tl.constexpr, BLOCK_C: tl.constexpr):
    """Sums of all parts."""
    o_c = tl.program_id(0).to(tl.int64) * BLOCK_C + tl.arange(0, BLOCK_C)
    b_first, b_second = tl.zeros([BLOCK_P, BLOCK_C], tl.float64), tl.zeros([BLOCK_P, BLOCK_C], tl.float64)
    for i in range(0, parts, BLOCK_P):
        _, o_part, m_part = parts_tile(i, parts, o_c, channels, BLOCK_P)
        b_first += tl.load(parts_p + o_part, m_part, 0.0)
        b_second += tl.load(parts_p + o_part + channels, m_part, 0.0)
    tl.store(sums_p + o_c, tl.sum(b_first, 0), o_c < channels)
    tl.store(sums_p + channels + o_c, tl.sum(b_second, 0), o_c < channels)


@kernel
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
    begin, end, o_c = part(outer, inner, BLOCK_C)
    mean, inverse = over_tile(mean_p, o_c, channels, tl.float64), over_tile(inverse_p, o_c, channels, tl.float64)
    factor = over_tile(factor_p, o_c, channels, tl.float64)
    mean_g = over_tile(means_p, o_c, channels, tl.float64)
    mean_g_xh = over_tile(means_p + channels, o_c, channels, tl.float64)
    for j in range(begin, end, BLOCK_J):
        o_x, m_x = tile(j, end, o_c, channels, inner, BLOCK_J)
        b_xh = (tl.load(x_p + o_x, m_x, 0.0).to(tl.float64) - mean) * inverse
        b_g = tl.load(g_p + o_x, m_x, 0.0).to(tl.float64)
        store_if(g_x_p, o_x, (factor * (b_g - mean_g - b_xh * mean_g_xh)).to(STATE), m_x)
