"""LIF forward and backward under any rule, with and without MPDR: one program a block of neurons, the T loop inside it,
state in registers.

Arguments as csrc/core/arguments.h has them: x, spikes, gradients of spikes and x [T, n]; `_seq` [T, n]; all
else [n]; None: not wanted (outputs) or zero (inputs). `slots` and what else is of several slots are tuples, in the
order in which the rule declares them. State is float64 for float64 input and float32 otherwise. The parameters come as
bits of the state's type. A new state may take the memory of the old one, which is read before.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from .arguments import load_or, load_slots, number, numbers, store_if, store_slots
from .kernel import kernel
from .launch import ALIGNED, AT_HALF_OCCUPANCY, OPTIONS, block_of, given_v, need_workspace
from .moments import store_block_moments
from .mpdr import mpdr_gradient, mpdr_merge
from .operands import Call, cdiv
from .rules.rule import Lif, Now, fire
from .surrogate import surrogate


class State(NamedTuple):
    """What some neurons carry from step to step: u[t] and the rule's slots."""

    u: Any
    slots: Any


@triton.jit
def settle(p, u, fired, slots, RULE: tl.constexpr):
    """v[t] and the slots after its spike."""
    b_v, after = RULE.settle(p, u, fired, slots)
    tl.static_assert(len(after) == RULE.count, RULE.fault)
    return b_v, after


@triton.jit
def settled(p, before, t, GIVEN_V, RULE: tl.constexpr):
    """v[t-1], and the slots after its spike; before the first step both may be so already."""
    fired = fire(p, before.u)
    if GIVEN_V:
        fired &= t > 0
    b_v, slots = settle(p, before.u, fired, before.slots, RULE)
    if GIVEN_V and RULE.drives:
        kept = ()
        for j in tl.static_range(len(slots)):
            kept += (tl.where(t > 0, slots[j], before.slots[j]),)
        b_v, slots = tl.where(t > 0, b_v, before.u), kept
    return b_v, slots


@triton.jit
def step(p, b_x, b_keep, before, t, FIRST, GIVEN_V, RULE: tl.constexpr):
    """What step t computes before its slots follow, and the slots as its spikes depend on them."""
    b_v_prev, slots = settled(p, before, t, GIVEN_V, RULE)
    b_u = RULE.charge(p, b_v_prev, b_x.to(before.u.dtype), slots)
    fired = fire(p, b_u)
    b_v, _ = RULE.settle(p, b_u, fired, slots)
    first = (t == 0) if FIRST else False
    return Now(tl.where(fired, b_keep, 0.0), fired, b_u, b_v, b_v_prev, before.u, first), slots


@triton.jit
def advance(p, now, slots, RULE: tl.constexpr):
    """The slots after a step. Where u and v are stored before it, they are held in registers no longer while a rule
    divides."""
    after = RULE.advance(p, now, slots)
    tl.static_assert(len(after) == RULE.count, RULE.fault)
    return after


@triton.jit
def places(BLOCK, T, n, ALIGNED: tl.constexpr):
    """Offsets of this program's neurons, and which of them there are."""
    first = tl.program_id(0).to(tl.int64) * BLOCK
    if not ALIGNED:
        # Zero, but Triton cannot tell. If it knew that the offsets [n] are aligned, a thread would take adjacent ones
        # there and, where rows of n are not aligned, others in [T, n]: they would be exchanged in shared memory.
        first += tl.minimum(T, 0)
    o_n = first + tl.arange(0, BLOCK)
    return o_n, o_n < n


@triton.jit
def load_state(p, potential_p, slots_p, o_n, m_n, COUNT: tl.constexpr, STATE: tl.constexpr):
    b_u = load_or(potential_p, o_n, m_n, 0.0 if p.v_reset is None else p.v_reset, STATE)
    return State(b_u, load_slots(slots_p, o_n, m_n, COUNT, STATE))


@triton.jit
def store_kept(pointers, offsets, slots, mask, RULE: tl.constexpr, EVERY_STEP: tl.constexpr):
    """Of the slots, those that are kept of every step, or only of the last."""
    for j in tl.static_range(len(slots)):
        if RULE.every_step[j] == EVERY_STEP:
            store_if(pointers[j], offsets, slots[j], mask)


@kernel(do_not_specialize=["T", "leak", "gain", "bias", "threshold", "v_reset", "of_rule"])
def lif_forward(
    x_p,
    potential_p,
    slots_p,
    keep_p,
    spikes_p,
    u_last_p,
    u_seq_p,
    v_last_p,
    v_seq_p,
    slots_out_p,
    workspace_p,
    T: tl.int64,
    n: tl.int64,
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
    ALIGNED: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """FIRST: t = 1 of a sequence. GIVEN_V: the potential was already reset. workspace_p: where moments of every u[t]
    go, if they are wanted."""
    STATE: tl.constexpr = tl.float64 if x_p.dtype.element_ty == tl.float64 else tl.float32
    leak, gain, bias = number(leak, STATE), number(gain, STATE), number(bias, STATE)
    threshold, v_reset = number(threshold, STATE), number(v_reset, STATE) if HARD else None
    p = Lif(leak, gain, bias, threshold, v_reset, of_rule=numbers(of_rule, STATE))
    o_n, m_n = places(BLOCK, T, n, ALIGNED)

    state = load_state(p, potential_p, slots_p, o_n, m_n, RULE.count, STATE)
    for t in range(T):
        o_tn = t * n + o_n
        b_x = tl.load(x_p + o_tn, m_n, 0.0)
        b_keep = load_or(keep_p, o_n, m_n, 1.0, STATE)  # read in each step: held, it takes registers
        now, slots = step(p, b_x, b_keep, state, t, FIRST, GIVEN_V, RULE)
        store_if(u_seq_p, o_tn, now.u, m_n)
        store_if(v_seq_p, o_tn, now.v, m_n)
        state = State(now.u, advance(p, now, slots, RULE))
        store_kept(slots_out_p, o_tn, state.slots, m_n, RULE, True)
        store_if(spikes_p, o_tn, now.s, m_n)
        if workspace_p is not None:
            store_block_moments(workspace_p, t, now.u, m_n, n)

    b_v, _ = RULE.settle(p, state.u, fire(p, state.u), state.slots)
    store_if(u_last_p, o_n, state.u, m_n)
    store_if(v_last_p, o_n, b_v, m_n)
    store_kept(slots_out_p, o_n, state.slots, m_n, RULE, False)


@kernel(do_not_specialize=["T", "leak", "gain", "bias", "threshold", "v_reset", "height", "slope", "of_rule"])
def lif_backward_online(
    g_spikes_p,
    keep_p,
    u_p,
    x_p,
    potential_p,
    slots_p,
    g_x_p,
    coefficients_p,
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
    of_rule,
    GIVEN_V: tl.constexpr,
    HARD: tl.constexpr,
    SHAPE: tl.constexpr,
    RULE: tl.constexpr,
    ALIGNED: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """g_x[t] = gain * (g_s[t]*sg(u[t] - th) + dL/du), the second part where there are MPDR's coefficients; with g_local
    it goes there alone. Without u it is recomputed from x and the state before it, as the forward computed it."""
    STATE: tl.constexpr = tl.float64 if g_x_p.dtype.element_ty == tl.float64 else tl.float32
    DTYPE: tl.constexpr = g_x_p.dtype.element_ty
    leak, gain, bias = number(leak, STATE), number(gain, STATE), number(bias, STATE)
    threshold, v_reset = number(threshold, STATE), number(v_reset, STATE) if HARD else None
    p = Lif(leak, gain, bias, threshold, v_reset, of_rule=numbers(of_rule, STATE))
    height, slope = number(height, STATE), number(slope, STATE)
    o_n, m_n = places(BLOCK, T, n, ALIGNED)

    state = load_state(p, potential_p, slots_p, o_n, m_n, RULE.count, STATE)
    for t in range(T):
        o_tn = t * n + o_n
        b_x = load_or(x_p, o_tn, m_n, 0.0, DTYPE)
        b_g_s = load_or(g_spikes_p, o_tn, m_n, 0.0, DTYPE)
        if u_p is None:
            b_v, slots = settled(p, state, t, GIVEN_V, RULE)
            state = State(RULE.charge(p, b_v, b_x.to(STATE), slots), slots)
        else:
            state = State(tl.load(u_p + o_tn, m_n, 0.0), state.slots)
        b_keep = load_or(keep_p, o_n, m_n, 1.0, STATE)  # in each step, as in the forward
        b_g_u = (b_g_s.to(STATE) * b_keep) * surrogate(state.u - p.threshold, height, slope, SHAPE)
        if coefficients_p is not None:
            b_mpdr = mpdr_gradient(state.u, coefficients_p, t, STATE)
            if g_local_p is None:
                b_g_u += b_mpdr
            else:
                store_if(g_local_p, o_tn, p.gain * b_mpdr, m_n)
        store_if(g_x_p, o_tn, p.gain * b_g_u, m_n)


@kernel(do_not_specialize=["T", "leak", "gain", "threshold", "v_reset", "reset_grad", "height", "slope", "of_rule"])
def lif_backward_bptt(
    g_spikes_p,
    keep_p,
    u_p,
    g_v_last_p,
    g_slots_last_p,
    g_v_seq_p,
    g_x_p,
    g_v_first_p,
    g_slots_first_p,
    coefficients_p,
    T: tl.int64,
    n: tl.int64,
    leak: tl.int64,
    gain: tl.int64,
    threshold: tl.int64,
    v_reset: tl.int64,
    reset_grad: tl.int64,
    height: tl.int64,
    slope: tl.int64,
    of_rule,
    HARD: tl.constexpr,
    SHAPE: tl.constexpr,
    RULE: tl.constexpr,
    ALIGNED: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Back in time from u of every step [T, n]: g_u of the rule (+ dL/du where there are MPDR's coefficients), g_x =
    gain*g_u and g_v[t-1] = lam*g_u."""
    STATE: tl.constexpr = tl.float64 if g_x_p.dtype.element_ty == tl.float64 else tl.float32
    DTYPE: tl.constexpr = g_x_p.dtype.element_ty
    leak, gain, reset_grad = number(leak, STATE), number(gain, STATE), number(reset_grad, STATE)
    threshold, v_reset = number(threshold, STATE), number(v_reset, STATE) if HARD else None
    p = Lif(leak, gain, None, threshold, v_reset, reset_grad, numbers(of_rule, STATE))
    height, slope = number(height, STATE), number(slope, STATE)
    o_n, m_n = places(BLOCK, T, n, ALIGNED)

    b_g_v = load_or(g_v_last_p, o_n, m_n, 0.0, STATE)
    g_slots = load_slots(g_slots_last_p, o_n, m_n, RULE.count, STATE)
    for i in range(T):
        t = T - 1 - i
        o_tn = t * n + o_n
        b_g_s = load_or(g_spikes_p, o_tn, m_n, 0.0, DTYPE)
        b_u = tl.load(u_p + o_tn, m_n, 0.0)
        b_keep = load_or(keep_p, o_n, m_n, 1.0, STATE)  # in each step, as in the forward
        b_g_v += load_or(g_v_seq_p, o_tn, m_n, 0.0, STATE)
        b_sg = surrogate(b_u - p.threshold, height, slope, SHAPE)
        b_g_u = RULE.bptt_gradient(p, b_g_s.to(STATE) * b_keep, b_g_v, g_slots, b_u, b_sg)
        if coefficients_p is not None:
            b_g_u += mpdr_gradient(b_u, coefficients_p, t, STATE)
        g_slots = RULE.carry(p, b_g_u, b_g_v, g_slots)
        b_g_v = p.leak * b_g_u
        store_if(g_x_p, o_tn, p.gain * b_g_u, m_n)
    store_if(g_v_first_p, o_n, b_g_v, m_n)
    store_slots(g_slots_first_p, o_n, g_slots, m_n)


def _run(call: Call, kernel: Any, like: Tensor, rule: Any, **named: Any) -> None:
    """A program a block of neurons. like: a tensor of the input's type."""
    block = block_of(call.n, like, of_state=True)
    named |= {"HARD": call.p.reset, "RULE": rule, "ALIGNED": call.n % ALIGNED == 0, "BLOCK": block}
    call.run(kernel, cdiv(call.n, block), neuron=call.p.of(like), **named)


def _forward(call: Call) -> None:
    """workspace: of MPDR, else None."""
    start = {"FIRST": call.first, "GIVEN_V": given_v(call)}
    _run(call, lif_forward, call.x, call.p.rule, **start, **AT_HALF_OCCUPANCY)


def _backward_online(call: Call) -> None:
    """coefficients: of MPDR; g_local: where its part of the gradient goes alone; else None."""
    constants = {"GIVEN_V": given_v(call), "SHAPE": call.p.surrogate, **OPTIONS}
    _run(call, lif_backward_online, call.g_x, call.p.dynamics, **constants)


def _backward_bptt(call: Call) -> None:
    """coefficients: as above."""
    _run(call, lif_backward_bptt, call.g_x, call.p.dynamics, SHAPE=call.p.surrogate, **OPTIONS)


def _without(launch: Callable[[Call], None], *absent: str) -> Callable[[Call], None]:
    """The launch without these operands, which MPDR alone has."""

    def run(call: Call) -> None:
        vars(call).update(dict.fromkeys(absent))
        launch(call)

    return run


def _mpdr_forward(call: Call) -> None:
    need_workspace(call.workspace)
    _forward(call)
    epsilon = torch.finfo(torch.float64 if call.x.dtype == torch.float64 else torch.float32).eps
    block = block_of(call.n, call.x, of_state=True)
    call.run(mpdr_merge, call.T, EPSILON=epsilon, BLOCK=block, **OPTIONS)


LAUNCHES = {
    "lif_forward": _without(_forward, "workspace"),
    "lif_backward_online": _without(_backward_online, "coefficients", "g_local"),
    "lif_backward_bptt": _without(_backward_bptt, "coefficients"),
    "mpdr_forward": _mpdr_forward,
    "mpdr_backward_online": _backward_online,
    "mpdr_backward_bptt": _backward_bptt,
}
