"""OSR (equations/osr.md), alone and with the LIF behind it. Arguments as csrc/core/osr.h has them.

x, y and their gradients are [outer, channels, inner]; vectors over channels are float64. Sums are float64 and in two
stages: a program adds up one part of the elements of a block of channels, and another kernel takes the parts together.
A tile is [BLOCK_J, BLOCK_C]: elements of each channel, channels.
"""

import math
from typing import Any, NamedTuple

import triton
import triton.language as tl

from .arguments import load_or, number, numbers, store_if, store_slots
from .kernel import kernel
from .launch import AT_HALF_OCCUPANCY, INTERPRETED, OPTIONS, WARPS, given_v, need_workspace
from .lif import advance, load_state, step
from .operands import Call, bits, cdiv
from .rules.rule import Lif, charge
from .surrogate import surrogate

# rows of a step's statistics
CENTER, FACTOR, SCALE = tl.constexpr(0), tl.constexpr(1), tl.constexpr(2)
MEAN, M2, INVERSE = tl.constexpr(3), tl.constexpr(4), tl.constexpr(5)
EXCEEDED, REFUSED = tl.constexpr(1), tl.constexpr(2)  # bits of a channel's verdict


class Norm(NamedTuple):
    """What normalises: y = weight*(x - mean)/sqrt(variance + eps) + bias."""

    weight_p: Any
    bias_p: Any
    mean_p: Any
    variance_p: Any


class Settling(NamedTuple):
    """Where a step's statistics go, and what becomes of its moments."""

    statistics_p: Any
    n_p: Any
    n_before_p: Any
    mean_before_p: Any
    m2_before_p: Any
    total_p: Any
    share_p: Any
    folds_p: Any
    refused_before_p: Any
    refused_p: Any


class Numbers(NamedTuple):
    """eps; weight of a sequence in the running statistics; the step's number in its sequence."""

    eps: Any
    own_share: Any
    t: Any


@triton.jit
def over_channels(vector_p, o_c, channels):
    """A vector over channels in float64."""
    return tl.load(vector_p + o_c, o_c < channels, 0.0).to(tl.float64)


@triton.jit
def statistic(statistics_p, ROW: tl.constexpr, o_c, channels):
    return over_channels(statistics_p + ROW * channels, o_c, channels)


@triton.jit
def store_statistic(statistics_p, ROW: tl.constexpr, o_c, channels, value):
    tl.store(statistics_p + ROW * channels + o_c, value, o_c < channels)


@triton.jit
def inverse_root(variance, eps):
    return 1.0 / tl.sqrt(variance + eps)


@triton.jit
def variance_of(m2, n):
    return m2 / tl.maximum(n, 1.0)


@triton.jit
def rounded(value, pointer):
    """A float64 as an array holds it, through float32 where its type is smaller."""
    dtype: tl.constexpr = pointer.dtype.element_ty
    STATE: tl.constexpr = tl.float64 if dtype == tl.float64 else tl.float32
    return value.to(STATE).to(dtype)


@triton.jit
def affine_of(norm, eps, statistics_p, o_c, channels, count, OWN: tl.constexpr):
    """center, factor and scale; by the step's own statistics or the running ones."""
    if OWN:
        mean = statistic(statistics_p, MEAN, o_c, channels)
        variance = variance_of(statistic(statistics_p, M2, o_c, channels), count.to(tl.float64))
    else:
        mean, variance = over_channels(norm.mean_p, o_c, channels), over_channels(norm.variance_p, o_c, channels)
    scale = inverse_root(variance, eps)
    return mean, over_channels(norm.weight_p, o_c, channels) * scale, scale


@triton.jit
def fold(norm, moments, own_share, o_c, kept, n, mean, m2, old_mean, old_variance):
    """A sequence's moments into the running statistics."""
    share = own_share
    if moments.share_p is not None:
        share = tl.load(moments.share_p)
    weight = share * tl.where(n > 0.0, 1.0, 0.0)
    mean = old_mean + rounded(weight * (mean - old_mean), norm.mean_p).to(tl.float64)
    variance = old_variance + rounded(weight * (variance_of(m2, n) - old_variance), norm.variance_p).to(tl.float64)
    tl.store(norm.mean_p + o_c, rounded(mean, norm.mean_p), kept)
    tl.store(norm.variance_p + o_c, rounded(variance, norm.variance_p), kept)
    tl.store(moments.folds_p + o_c * 0, tl.load(moments.folds_p) + 1, kept & (o_c == 0))


@triton.jit
def settle(
    norm,
    moments,
    given,
    o_c,
    channels,
    count,
    mean,
    m2,
    exceeded,
    refused,
    POOLED: tl.constexpr,
    ENDS: tl.constexpr,
):
    """All that becomes of some channels' moments, once it is known what normalised."""
    m_c, first = o_c < channels, o_c == 0
    old_mean, old_variance = over_channels(norm.mean_p, o_c, channels), over_channels(norm.variance_p, o_c, channels)
    center = tl.where(exceeded, mean, old_mean)
    scale = inverse_root(tl.where(exceeded, variance_of(m2, count), old_variance), given.eps)
    store_statistic(moments.statistics_p, CENTER, o_c, channels, center)
    store_statistic(moments.statistics_p, FACTOR, o_c, channels, over_channels(norm.weight_p, o_c, channels) * scale)
    store_statistic(moments.statistics_p, SCALE, o_c, channels, scale)
    n = tl.where(refused, 0.0, count)
    mean, m2 = tl.where(refused, 0.0, mean), tl.where(refused, 0.0, m2)
    store_statistic(moments.statistics_p, MEAN, o_c, channels, mean)
    store_statistic(moments.statistics_p, M2, o_c, channels, m2)
    store_statistic(moments.statistics_p, INVERSE, o_c, channels, inverse_root(variance_of(m2, n), given.eps))
    tl.store(moments.n_p + o_c * 0, n, first)
    if moments.total_p is not None:
        kept = m_c
        if moments.refused_p is None:
            kept = m_c & (refused == 0)
        else:
            earlier = load_or(moments.refused_before_p, o_c * 0, first, 0.0, tl.float64)
            found = (earlier == 0.0) & (refused != 0)
            tl.store(moments.refused_p + o_c * 0, tl.where(found, given.t.to(tl.float64), earlier), first)
        if moments.n_before_p is not None:
            n_before, mean_before = tl.load(moments.n_before_p), over_channels(moments.mean_before_p, o_c, channels)
            n_own, n = n, n_before + n
            part = n_own / tl.maximum(n, 1.0)
            delta = mean - mean_before
            mean = mean_before + delta * part
            m2 = over_channels(moments.m2_before_p, o_c, channels) + m2
            if not POOLED:
                m2 += delta * delta * (n_before * part)
        tl.store(moments.total_p + o_c * 0, n, kept & first)
        tl.store(moments.total_p + 1 + o_c, mean, kept)
        tl.store(moments.total_p + 1 + channels + o_c, m2, kept)
        if ENDS:
            tl.debug_barrier()  # every thread has read what is written now
            fold(norm, moments, given.own_share, o_c, kept, n, mean, m2, old_mean, old_variance)


@triton.jit
def verdict_of_all(workspace_p, channels):
    """Whether a channel's deviation was exceeded, and whether the step is refused, of the verdicts that osr_merge left
    at the beginning of the workspace."""
    VOTES: tl.constexpr = 128
    b_exceeded, b_refused = tl.zeros([VOTES], tl.float32), tl.zeros([VOTES], tl.float32)
    for i in range(0, channels, VOTES):
        o_c = i + tl.arange(0, VOTES)
        b_verdict = tl.load(workspace_p + o_c, o_c < channels, 0.0).to(tl.int32)
        b_exceeded += (b_verdict & EXCEEDED).to(tl.float32)
        b_refused += (b_verdict & REFUSED).to(tl.float32)
    refused = tl.sum(b_refused, 0) > 0.0
    return (tl.sum(b_exceeded, 0) > 0.0) & (refused == 0), refused


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


@triton.jit
def second_pass(
    norm, moments, given, workspace_p, begin, end, o_c, channels, count, POOLED: tl.constexpr, ENDS: tl.constexpr
):
    """Where this program's elements end: at once, where the step's own statistics do not normalise. The programs of the
    first part settle the moments."""
    exceeded, refused = verdict_of_all(workspace_p, channels)
    if tl.program_id(0) == 0:
        mean, m2 = (
            statistic(moments.statistics_p, MEAN, o_c, channels),
            statistic(moments.statistics_p, M2, o_c, channels),
        )
        settle(norm, moments, given, o_c, channels, count.to(tl.float64), mean, m2, exceeded, refused, POOLED, ENDS)
    return tl.where(exceeded, end, begin)


@kernel(do_not_specialize=["eps", "own_share", "t"])
def osr_forward(
    x_p,
    norm,
    moments,
    workspace_p,
    y_p,
    outer: tl.int64,
    channels: tl.int64,
    inner: tl.int64,
    eps: tl.int64,
    own_share: tl.int64,
    t: tl.int64,
    SUMS: tl.constexpr,
    SECOND: tl.constexpr,
    POOLED: tl.constexpr,
    ENDS: tl.constexpr,
    BLOCK_J: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    """y and, of the first pass, a part's moments; the second ends at once where the step's own do not normalise."""
    STATE: tl.constexpr = tl.float64 if x_p.dtype.element_ty == tl.float64 else tl.float32
    given = Numbers(number(eps, tl.float64), number(own_share, tl.float64), t)
    begin, end, o_c = part(outer, inner, BLOCK_C)
    if SECOND:
        end = second_pass(norm, moments, given, workspace_p, begin, end, o_c, channels, outer * inner, POOLED, ENDS)
    center, factor, _ = affine_of(norm, given.eps, moments.statistics_p, o_c, channels, outer * inner, SECOND)
    center, factor = center.to(STATE)[None, :], factor.to(STATE)[None, :]
    shift = over_tile(norm.bias_p, o_c, channels, STATE)
    origin = origin_of(x_p, begin, o_c, channels, inner)
    b_sum, b_squares = tl.zeros([BLOCK_J, BLOCK_C], tl.float64), tl.zeros([BLOCK_J, BLOCK_C], tl.float64)
    for j in range(begin, end, BLOCK_J):
        o_x, m_x = tile(j, end, o_c, channels, inner, BLOCK_J)
        b_x = tl.load(x_p + o_x, m_x, 0.0).to(STATE)
        if SUMS:
            b_d = tl.where(m_x, b_x.to(tl.float64) - origin[None, :], 0.0)
            b_sum += b_d
            b_squares += b_d * b_d
        store_if(y_p, o_x, (b_x - center) * factor + shift, m_x)
    if SUMS:
        store_moments(workspace_p, o_c, channels, end - begin, origin, tl.sum(b_sum, 0), tl.sum(b_squares, 0))


@kernel(do_not_specialize=["eps", "own_share", "t", "leak", "gain", "bias", "threshold", "v_reset", "of_rule"])
def osr_lif_forward(
    x_p,
    norm,
    moments,
    workspace_p,
    potential_p,
    slots_p,
    keep_p,
    spikes_p,
    u_p,
    slots_out_p,
    outer: tl.int64,
    channels: tl.int64,
    inner: tl.int64,
    eps: tl.int64,
    own_share: tl.int64,
    t: tl.int64,
    leak: tl.int64,
    gain: tl.int64,
    bias: tl.int64,
    threshold: tl.int64,
    v_reset: tl.int64,
    of_rule,
    SUMS: tl.constexpr,
    SECOND: tl.constexpr,
    POOLED: tl.constexpr,
    ENDS: tl.constexpr,
    FIRST: tl.constexpr,
    GIVEN_V: tl.constexpr,
    HARD: tl.constexpr,
    RULE: tl.constexpr,
    BLOCK_J: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    """As osr_forward, with one step of the neuron on y, which stays in registers."""
    STATE: tl.constexpr = tl.float64 if x_p.dtype.element_ty == tl.float64 else tl.float32
    given = Numbers(number(eps, tl.float64), number(own_share, tl.float64), t)
    begin, end, o_c = part(outer, inner, BLOCK_C)
    if SECOND:
        end = second_pass(norm, moments, given, workspace_p, begin, end, o_c, channels, outer * inner, POOLED, ENDS)
    center, factor, _ = affine_of(norm, given.eps, moments.statistics_p, o_c, channels, outer * inner, SECOND)
    center, factor = center.to(STATE)[None, :], factor.to(STATE)[None, :]
    shift = over_tile(norm.bias_p, o_c, channels, STATE)
    leak, gain, bias = number(leak, STATE), number(gain, STATE), number(bias, STATE)
    threshold, v_reset = number(threshold, STATE), number(v_reset, STATE) if HARD else None
    p = Lif(leak, gain, bias, threshold, v_reset, of_rule=numbers(of_rule, STATE))
    origin = origin_of(x_p, begin, o_c, channels, inner)
    b_sum, b_squares = tl.zeros([BLOCK_J, BLOCK_C], tl.float64), tl.zeros([BLOCK_J, BLOCK_C], tl.float64)
    for j in range(begin, end, BLOCK_J):
        o_x, m_x = tile(j, end, o_c, channels, inner, BLOCK_J)
        b_x = tl.load(x_p + o_x, m_x, 0.0).to(STATE)
        if SUMS:
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
    if SUMS:
        store_moments(workspace_p, o_c, channels, end - begin, origin, tl.sum(b_sum, 0), tl.sum(b_squares, 0))


@triton.jit
def charged(p, b_x, v_p, o_x, m_x, center, factor, shift, start):
    """u of some neurons on their y."""
    return charge(p, load_or(v_p, o_x, m_x, start, b_x.dtype), (b_x - center) * factor + shift, ())


@kernel(do_not_specialize=["eps", "own_share", "t", "leak", "gain", "bias", "v_reset"])
def osr_charge(
    x_p,
    norm,
    moments,
    workspace_p,
    v_p,
    u_p,
    u_workspace_p,
    outer: tl.int64,
    channels: tl.int64,
    inner: tl.int64,
    eps: tl.int64,
    own_share: tl.int64,
    t: tl.int64,
    leak: tl.int64,
    gain: tl.int64,
    bias: tl.int64,
    v_reset: tl.int64,
    SUMS: tl.constexpr,
    SECOND: tl.constexpr,
    POOLED: tl.constexpr,
    ENDS: tl.constexpr,
    HARD: tl.constexpr,
    BLOCK_J: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    """As osr_forward, with u of the neuron charged with y, which stays in registers; moments of a program's u go to
    u_workspace [programs, 2]."""
    STATE: tl.constexpr = u_p.dtype.element_ty
    given = Numbers(number(eps, tl.float64), number(own_share, tl.float64), t)
    begin, end, o_c = part(outer, inner, BLOCK_C)
    if SECOND:
        end = second_pass(norm, moments, given, workspace_p, begin, end, o_c, channels, outer * inner, POOLED, ENDS)
    center, factor, _ = affine_of(norm, given.eps, moments.statistics_p, o_c, channels, outer * inner, SECOND)
    center, factor = center.to(STATE)[None, :], factor.to(STATE)[None, :]
    shift = over_tile(norm.bias_p, o_c, channels, STATE)
    leak, gain, bias = number(leak, STATE), number(gain, STATE), number(bias, STATE)
    p, start = Lif(leak, gain, bias), number(v_reset, STATE) if HARD else 0.0
    origin = origin_of(x_p, begin, o_c, channels, inner)
    o_first, m_first = tile(begin, end, o_c, channels, inner, 1)
    b_first = charged(p, origin.to(STATE)[None, :], v_p, o_first, m_first, center, factor, shift, start)
    u_origin = tl.sum(tl.where(tl.arange(0, BLOCK_C)[None, :] == 0, b_first, 0.0)).to(tl.float64)
    b_sum, b_squares = tl.zeros([BLOCK_J, BLOCK_C], tl.float64), tl.zeros([BLOCK_J, BLOCK_C], tl.float64)
    b_u_sum, b_u_squares = tl.zeros([BLOCK_J, BLOCK_C], tl.float64), tl.zeros([BLOCK_J, BLOCK_C], tl.float64)
    for j in range(begin, end, BLOCK_J):
        o_x, m_x = tile(j, end, o_c, channels, inner, BLOCK_J)
        b_x = tl.load(x_p + o_x, m_x, 0.0).to(STATE)
        b_u = charged(p, b_x, v_p, o_x, m_x, center, factor, shift, start)
        tl.store(u_p + o_x, b_u, m_x)
        if SUMS:
            b_d = tl.where(m_x, b_x.to(tl.float64) - origin[None, :], 0.0)
            b_sum += b_d
            b_squares += b_d * b_d
        b_d = tl.where(m_x, b_u.to(tl.float64) - u_origin, 0.0)
        b_u_sum += b_d
        b_u_squares += b_d * b_d
    if SUMS:
        store_moments(workspace_p, o_c, channels, end - begin, origin, tl.sum(b_sum, 0), tl.sum(b_squares, 0))
    i_program = tl.program_id(0).to(tl.int64) * tl.num_programs(1) + tl.program_id(1)
    u_sum = tl.sum(b_u_sum)
    u_shift = u_sum / charged_count(end - begin, tl.program_id(1), channels, BLOCK_C)
    u_m2 = tl.maximum(tl.sum(b_u_squares) - u_sum * u_shift, 0.0, tl.PropagateNan.ALL)
    tl.store(u_workspace_p + 2 * i_program, u_origin + u_shift, end > begin)
    tl.store(u_workspace_p + 2 * i_program + 1, u_m2, end > begin)


@triton.jit
def charged_count(elements, i_group, channels, BLOCK_C: tl.constexpr):
    """Neurons of a program that has so many elements of each channel of its group."""
    return (elements * tl.minimum(channels - i_group * BLOCK_C, BLOCK_C)).to(tl.float64)


@triton.jit
def charged_tile(i, parts, count, channels, BLOCK_P: tl.constexpr, BLOCK_C: tl.constexpr):
    """Of BLOCK_P programs from the i-th on: where their moments lie, which there are, and their neurons."""
    groups, o_p = tl.cdiv(channels, BLOCK_C), i + tl.arange(0, BLOCK_P)
    i_part, m_p = o_p // groups, o_p < parts * groups
    elements = begin_of(i_part + 1, count, parts) - begin_of(i_part, count, parts)
    return 2 * o_p, m_p, tl.where(m_p, charged_count(elements, o_p % groups, channels, BLOCK_C), 0.0)


@kernel
def osr_charge_merge(
    u_workspace_p,
    u_moments_p,
    parts: tl.int64,
    outer: tl.int64,
    channels: tl.int64,
    inner: tl.int64,
    BLOCK_P: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    """Moments of u of all programs, as osr_merge takes those of parts; BLOCK_C: channels of each."""
    count, programs = outer * inner, parts * tl.cdiv(channels, BLOCK_C)
    first = tl.load(u_workspace_p)
    b_sum, b_m2 = tl.zeros([BLOCK_P], tl.float64), tl.zeros([BLOCK_P], tl.float64)
    for i in range(0, programs, BLOCK_P):
        o_p, m_p, b_n = charged_tile(i, parts, count, channels, BLOCK_P, BLOCK_C)
        b_sum += b_n * (tl.load(u_workspace_p + o_p, m_p, first) - first)
    mean = first + tl.sum(b_sum, 0) / (count * channels).to(tl.float64)
    for i in range(0, programs, BLOCK_P):
        o_p, m_p, b_n = charged_tile(i, parts, count, channels, BLOCK_P, BLOCK_C)
        b_delta = tl.load(u_workspace_p + o_p, m_p, mean) - mean
        b_m2 += tl.load(u_workspace_p + o_p + 1, m_p, 0.0) + b_n * (b_delta * b_delta)
    tl.store(u_moments_p, mean)
    tl.store(u_moments_p + 1, tl.sum(b_m2, 0))


@triton.jit
def parts_tile(i, parts, o_c, channels, BLOCK_P: tl.constexpr):
    """Offsets of the first sums of some parts and channels, and which of them there are."""
    o_p = i + tl.arange(0, BLOCK_P)
    return o_p, 2 * o_p[:, None] * channels + o_c[None, :], (o_p < parts)[:, None] & (o_c < channels)[None, :]


@kernel(do_not_specialize=["eps", "limit", "own_share", "t"])
def osr_merge(
    norm,
    moments,
    workspace_p,
    parts: tl.int64,
    outer: tl.int64,
    channels: tl.int64,
    inner: tl.int64,
    eps: tl.int64,
    own_share: tl.int64,
    t: tl.int64,
    limit: tl.int64,
    DECIDES: tl.constexpr,
    STRICT: tl.constexpr,
    POOLED: tl.constexpr,
    ENDS: tl.constexpr,
    BLOCK_P: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    """Moments of all parts: the mean of their means, and how far these are from it. What becomes of them waits for the
    second pass where that decides."""
    given = Numbers(number(eps, tl.float64), number(own_share, tl.float64), t)
    o_c = tl.program_id(0).to(tl.int64) * BLOCK_C + tl.arange(0, BLOCK_C)
    count = outer * inner
    first = tl.load(workspace_p + o_c, o_c < channels, 0.0)
    b_sum, b_m2 = tl.zeros([BLOCK_P, BLOCK_C], tl.float64), tl.zeros([BLOCK_P, BLOCK_C], tl.float64)
    for i in range(0, parts, BLOCK_P):
        o_p, o_part, m_part = parts_tile(i, parts, o_c, channels, BLOCK_P)
        b_n = (begin_of(o_p + 1, count, parts) - begin_of(o_p, count, parts)).to(tl.float64)[:, None]
        b_sum += tl.where(m_part, b_n * (tl.load(workspace_p + o_part, m_part, 0.0) - first[None, :]), 0.0)
    mean = first + tl.sum(b_sum, 0) / count.to(tl.float64)
    for i in range(0, parts, BLOCK_P):
        o_p, o_part, m_part = parts_tile(i, parts, o_c, channels, BLOCK_P)
        b_n = (begin_of(o_p + 1, count, parts) - begin_of(o_p, count, parts)).to(tl.float64)[:, None]
        b_delta = tl.load(workspace_p + o_part, m_part, 0.0) - mean[None, :]
        b_part = tl.load(workspace_p + o_part + channels, m_part, 0.0) + b_n * (b_delta * b_delta)
        b_m2 += tl.where(m_part, b_part, 0.0)
    m2, n = tl.sum(b_m2, 0), count.to(tl.float64)
    if DECIDES:
        store_statistic(moments.statistics_p, MEAN, o_c, channels, mean)
        store_statistic(moments.statistics_p, M2, o_c, channels, m2)
        ratio = (variance_of(m2, n) + given.eps) / (over_channels(norm.variance_p, o_c, channels) + given.eps)
        beyond = number(limit, tl.float64)
        verdict = tl.where((ratio > beyond) | (1.0 / ratio > beyond), EXCEEDED, 0)
        if STRICT:
            both = mean + m2
            verdict = tl.where(both - both == 0.0, verdict, REFUSED)
        tl.debug_barrier()  # every thread has read the parts
        tl.store(workspace_p + o_c, verdict.to(tl.float64), o_c < channels)
    else:
        settle(norm, moments, given, o_c, channels, n, mean, m2, False, False, POOLED, ENDS)


@kernel(do_not_specialize=["gain", "threshold", "height", "slope"])
def osr_reduce(
    x_p,
    g_p,
    statistics_p,
    workspace_p,
    u_p,
    keep_p,
    threshold_p,
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
    """[sum g, sum g*xh] of a part. With LIF, g is that of the spikes, and g_y = gain * g_s * sg(u - th) is kept; under
    OTS with the step's th."""
    STATE: tl.constexpr = tl.float64 if x_p.dtype.element_ty == tl.float64 else tl.float32
    th = number(threshold, STATE) if threshold_p is None else tl.load(threshold_p).to(STATE)
    begin, end, o_c = part(outer, inner, BLOCK_C)
    mean = statistic(statistics_p, MEAN, o_c, channels)[None, :]
    inverse = statistic(statistics_p, INVERSE, o_c, channels)[None, :]
    b_sum, b_normal = tl.zeros([BLOCK_J, BLOCK_C], tl.float64), tl.zeros([BLOCK_J, BLOCK_C], tl.float64)
    for j in range(begin, end, BLOCK_J):
        o_x, m_x = tile(j, end, o_c, channels, inner, BLOCK_J)
        b_g = tl.load(g_p + o_x, m_x, 0.0).to(STATE)
        if LIF:
            b_z = tl.load(u_p + o_x, m_x, 0.0) - th
            b_sg = surrogate(b_z, number(height, STATE), number(slope, STATE), SHAPE)
            b_g = number(gain, STATE) * ((b_g * load_or(keep_p, o_x, m_x, 1.0, STATE)) * b_sg)
            store_if(g_y_p, o_x, b_g, m_x)
        b_wide = tl.where(m_x, b_g.to(tl.float64), 0.0)
        b_xh = tl.where(m_x, (tl.load(x_p + o_x, m_x, 0.0).to(tl.float64) - mean) * inverse, 0.0)
        b_sum += b_wide
        b_normal += b_wide * b_xh
    store_part(workspace_p, o_c, channels, tl.sum(b_sum, 0), tl.sum(b_normal, 0))


@kernel
def osr_total(
    statistics_p,
    n_p,
    means_p,
    g_weight_p,
    g_bias_p,
    workspace_p,
    parts: tl.int64,
    channels: tl.int64,
    BLOCK_P: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    """Sums of all parts: means, and sum g*(x - center)*scale with x - center = xh/inverse + (mean - center)."""
    o_c = tl.program_id(0).to(tl.int64) * BLOCK_C + tl.arange(0, BLOCK_C)
    b_first, b_second = tl.zeros([BLOCK_P, BLOCK_C], tl.float64), tl.zeros([BLOCK_P, BLOCK_C], tl.float64)
    for i in range(0, parts, BLOCK_P):
        _, o_part, m_part = parts_tile(i, parts, o_c, channels, BLOCK_P)
        b_first += tl.load(workspace_p + o_part, m_part, 0.0)
        b_second += tl.load(workspace_p + o_part + channels, m_part, 0.0)
    sum, sum_xh, n = tl.sum(b_first, 0), tl.sum(b_second, 0), tl.maximum(tl.load(n_p), 1.0)
    tl.store(means_p + o_c, sum / n, o_c < channels)
    tl.store(means_p + channels + o_c, sum_xh / n, o_c < channels)
    offset = statistic(statistics_p, MEAN, o_c, channels) - statistic(statistics_p, CENTER, o_c, channels)
    inverse = tl.load(statistics_p + INVERSE * channels + o_c, o_c < channels, 1.0)
    g_weight = statistic(statistics_p, SCALE, o_c, channels) * (sum_xh / inverse + sum * offset)
    tl.store(g_weight_p + o_c, rounded(g_weight, g_weight_p), o_c < channels)
    tl.store(g_bias_p + o_c, rounded(sum, g_bias_p), o_c < channels)


@kernel
def osr_gradient(
    x_p,
    g_p,
    statistics_p,
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
    mean = statistic(statistics_p, MEAN, o_c, channels)[None, :]
    inverse = statistic(statistics_p, INVERSE, o_c, channels)[None, :]
    factor = statistic(statistics_p, FACTOR, o_c, channels)[None, :]
    mean_g = over_tile(means_p, o_c, channels, tl.float64)
    mean_g_xh = over_tile(means_p + channels, o_c, channels, tl.float64)
    for j in range(begin, end, BLOCK_J):
        o_x, m_x = tile(j, end, o_c, channels, inner, BLOCK_J)
        b_xh = (tl.load(x_p + o_x, m_x, 0.0).to(tl.float64) - mean) * inverse
        b_g = tl.load(g_p + o_x, m_x, 0.0).to(tl.float64)
        store_if(g_x_p, o_x, (factor * (b_g - mean_g - b_xh * mean_g_xh)).to(STATE), m_x)


MERGE = {"BLOCK_P": 16, "BLOCK_C": 16, **OPTIONS}
NO_NEURON = {"p.gain": 0, "p.threshold": 0, "p.height": 0, "p.slope": 0}
CHARGED = 256  # programs whose u are taken together at once


def _grid_of(call: Call, widest: int = 16) -> tuple[tuple[int, int], dict[str, Any]]:
    """(parts, blocks of channels) and the kernels' block sizes: `widest` bytes of the state a thread, at most 8 where
    it has sums of several channels: these need registers, as neurons' values do."""
    parts, outer, channels, inner, x = call.parts, call.outer, call.channels, call.inner, call.x
    block_c = 32 if inner == 1 else 1
    bytes_a_thread = min(widest, 8) if inner == 1 else widest
    block_j = WARPS * 32 * bytes_a_thread // max(4, x.element_size()) // block_c
    if INTERPRETED:  # which pays for each program: few and large ones
        block_c = min(triton.next_power_of_2(channels), 256)
        block_j = min(triton.next_power_of_2(cdiv(outer * inner, parts)), (1 << 16) // block_c)
    return (parts, cdiv(channels, block_c)), {"BLOCK_J": block_j, "BLOCK_C": block_c, **OPTIONS}


def _norm(call: Call) -> Norm:
    return Norm(call.weight, call.bias, call.running_mean, call.running_var)


def _settling(call: Call) -> Settling:
    return Settling(*[vars(call)[name.removesuffix("_p")] for name in Settling._fields])


def _passes(call: Call, kernel: Any, grid: tuple[int, int], sums: dict[str, Any], **named: Any) -> None:
    """A pass over all elements: with statistics they are merged after it, and it runs again where the step's own may
    normalise. sums: options of a pass that adds up."""
    wanted, decides = call.statistics is not None, call.strict or call.limit < math.inf
    if wanted:
        need_workspace(call.workspace)
    constants = {"POOLED": call.pooled, "ENDS": call.ends}
    call.norm, call.moments, call.t = _norm(call), _settling(call), call.step
    call.eps, call.own_share, call.limit = bits(call.eps), bits(call.own_share), bits(call.limit)
    options = named | (sums if wanted else {})
    call.run(kernel, *grid, SUMS=wanted, SECOND=False, **constants, **options)
    if wanted:
        blocks = cdiv(call.channels, MERGE["BLOCK_C"])
        call.run(osr_merge, blocks, DECIDES=decides, STRICT=call.strict, **constants, **MERGE)
    if decides:
        call.run(kernel, *grid, SUMS=False, SECOND=True, **constants, **named)


def _forward(call: Call) -> None:
    grid, options = _grid_of(call)
    _passes(call, osr_forward, grid, {}, **options)


def _lif_forward(call: Call) -> None:
    grid, options = _grid_of(call, 8)
    rule = {"FIRST": call.first, "GIVEN_V": given_v(call), "HARD": call.p.reset, "RULE": call.p.rule}
    _passes(call, osr_lif_forward, grid, AT_HALF_OCCUPANCY, neuron=call.p.of(call.x), **rule, **options)


def _charge(call: Call) -> None:
    need_workspace(call.u_workspace)
    one = max(4, call.u.element_size())  # u has sums, too
    grid, options = _grid_of(call, one if call.inner == 1 else 8)
    neuron = {"neuron": call.p.of(call.u), "HARD": call.p.reset}
    _passes(call, osr_charge, grid, AT_HALF_OCCUPANCY, **neuron, **options)
    call.run(osr_charge_merge, 1, BLOCK_P=CHARGED, BLOCK_C=options["BLOCK_C"], **OPTIONS)


def _reduce(call: Call, neuron: Any, **constants: Any) -> None:
    need_workspace(call.workspace)
    grid, options = _grid_of(call)
    call.run(osr_reduce, *grid, neuron=neuron, **constants, **(options | AT_HALF_OCCUPANCY))
    call.run(osr_total, cdiv(call.channels, MERGE["BLOCK_C"]), **MERGE)


def _given_reduce(call: Call) -> None:
    call.u = call.keep = call.threshold = call.g_y = None
    _reduce(call, NO_NEURON, LIF=False, SHAPE=0)


def _lif_reduce(call: Call) -> None:
    call.g = call.g_spikes
    _reduce(call, call.p.of(call.g_y), LIF=True, SHAPE=call.p.surrogate)


def _gradient(call: Call) -> None:
    grid, options = _grid_of(call)
    call.run(osr_gradient, *grid, **options)


LAUNCHES = {
    "osr_forward": _forward,
    "osr_lif_forward": _lif_forward,
    "osr_charge": _charge,
    "osr_reduce": _given_reduce,
    "osr_lif_reduce": _lif_reduce,
    "osr_gradient": _gradient,
}
