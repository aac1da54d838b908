"""OTS (equations/ots.md): charge, moments of u in a pass, the merge of its blocks; once the threshold is known, fire,
reset and trace in another.

Arguments as csrc/core/ots.h has them: all [n]; threshold, moments and workspace float64; None: absent.
"""

from typing import Any

import triton.language as tl

from .arguments import load_or, number, store_if
from .kernel import kernel
from .launch import OPTIONS, block_of, need_workspace
from .moments import merged, store_block_moments
from .operands import Call, cdiv
from .rules.rule import Lif, charge, fire, reset
from .surrogate import surrogate


@kernel(do_not_specialize=["leak", "gain", "bias", "v_reset"])
def ots_charge(
    x_p,
    v_p,
    u_p,
    workspace_p,
    n: tl.int64,
    leak: tl.int64,
    gain: tl.int64,
    bias: tl.int64,
    v_reset: tl.int64,
    HARD: tl.constexpr,
    BLOCK: tl.constexpr,
):
    STATE: tl.constexpr = u_p.dtype.element_ty
    leak, gain, bias = number(leak, STATE), number(gain, STATE), number(bias, STATE)
    p = Lif(leak, gain, bias)
    o_n = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)  # [BLOCK]
    m_n = o_n < n
    b_v = load_or(v_p, o_n, m_n, number(v_reset, STATE) if HARD else 0.0, STATE)
    b_u = charge(p, b_v, tl.load(x_p + o_n, m_n, 0.0).to(STATE), ())
    tl.store(u_p + o_n, b_u, m_n)
    store_block_moments(workspace_p, 0, b_u, m_n, n)


@kernel
def ots_merge(workspace_p, moments_p, n: tl.int64, BLOCK: tl.constexpr):
    mean, m2 = merged(workspace_p, n, BLOCK)
    tl.store(moments_p, mean)
    tl.store(moments_p + 1, m2)


@kernel(do_not_specialize=["leak", "v_reset"])
def ots_fire(
    threshold_p,
    u_p,
    trace_p,
    keep_p,
    spikes_p,
    v_p,
    trace_out_p,
    n: tl.int64,
    leak: tl.int64,
    v_reset: tl.int64,
    HARD: tl.constexpr,
    BLOCK: tl.constexpr,
):
    STATE: tl.constexpr = u_p.dtype.element_ty
    leak, v_reset = number(leak, STATE), number(v_reset, STATE) if HARD else None
    p = Lif(threshold=tl.load(threshold_p).to(STATE), v_reset=v_reset)
    o_n = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)  # [BLOCK]
    m_n = o_n < n
    b_u = tl.load(u_p + o_n, m_n, 0.0)
    b_fired = fire(p, b_u)
    b_s = tl.where(b_fired, load_or(keep_p, o_n, m_n, 1.0, STATE), 0.0)
    store_if(spikes_p, o_n, b_s, m_n)
    tl.store(v_p + o_n, reset(p, b_u, b_fired), m_n)
    if trace_out_p is not None:
        tl.store(trace_out_p + o_n, leak * load_or(trace_p, o_n, m_n, 0.0, STATE) + b_s, m_n)


@kernel(do_not_specialize=["gain", "height", "slope"])
def ots_backward(
    threshold_p,
    u_p,
    g_spikes_p,
    keep_p,
    g_x_p,
    n: tl.int64,
    gain: tl.int64,
    height: tl.int64,
    slope: tl.int64,
    SHAPE: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """g_x = gain * g_s * sg(u - th[t])."""
    STATE: tl.constexpr = u_p.dtype.element_ty
    o_n = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)  # [BLOCK]
    m_n = o_n < n
    b_z = tl.load(u_p + o_n, m_n, 0.0) - tl.load(threshold_p).to(STATE)
    b_sg = surrogate(b_z, number(height, STATE), number(slope, STATE), SHAPE)
    b_g_s = tl.load(g_spikes_p + o_n, m_n, 0.0).to(STATE)
    b_g_x = number(gain, STATE) * ((b_g_s * load_or(keep_p, o_n, m_n, 1.0, STATE)) * b_sg)
    store_if(g_x_p, o_n, b_g_x, m_n)


def _run(call: Call, kernel: Any, **constants: Any) -> None:
    """A program a block of neurons."""
    block = block_of(call.n, call.u)
    call.run(kernel, cdiv(call.n, block), neuron=call.p.of(call.u), BLOCK=block, **constants, **OPTIONS)


def _charge(call: Call) -> None:
    need_workspace(call.workspace)
    _run(call, ots_charge, HARD=call.p.reset)
    call.run(ots_merge, 1, BLOCK=block_of(call.n, call.u), **OPTIONS)


def _fire(call: Call) -> None:
    _run(call, ots_fire, HARD=call.p.reset)


def _backward(call: Call) -> None:
    _run(call, ots_backward, SHAPE=call.p.surrogate)


LAUNCHES = {"ots_charge": _charge, "ots_fire": _fire, "ots_backward": _backward}
