"""The LIF family in plain PyTorch, over time: steps and gradients are those of `fastsnn.rules` (equations/lif.md).

`forward` and `backward` have the signature every backend has. `state` is the state before the first step;
state tensors are float64 for float64 input and float32 otherwise, spikes have the input's dtype.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..rules import RULES, Rule
from ..rules.rule import Now, Slots
from ..surrogate import formulas
from ..types import EMPTY, Forward, LIFParams, LIFState, Saved, replaced, slots_at, state_dtype, state_of

NAME = "reference"
SAVES_U = False


def charge(p: LIFParams, v: Tensor, x: Tensor) -> Tensor:
    """u[t] = lam*v[t-1] + x[t]; decay_input and v_reset enter through gain and bias."""
    return p.kind.charge(p, v, x, {})


def fire(p: LIFParams, u: Tensor) -> Tensor:
    """s[t] = H(u[t] - th), equality fires."""
    return p.kind.fire(p, u)


def reset(p: LIFParams, u: Tensor, fired: Tensor) -> Tensor:
    """v[t] = u[t] - th*s[t], or v_reset where it fired."""
    return p.kind.reset(p, u, fired)


def initial_v(p: LIFParams, x: Tensor) -> Tensor:
    """v[0]: v_reset, or 0 under soft reset."""
    return torch.full_like(x, p.v_start)


def settled(p: LIFParams, state: LIFState) -> LIFState:
    """The state after its reset: v, and the slots that spikes depend on, after the spike."""
    u = state.potential
    if u is None or state.is_v:
        return state
    names = [LIFState._fields[place] for place in p.drive]
    before = {name: _or_zero(value, u) for name, value in zip(names, slots_at(p.drive, state), strict=True)}
    rule = RULES[p.rule]  # not p.kind: in a graph of torch.compile p is a constant, whose objects have no methods
    v, after = rule.settle(p, u, rule.fire(p, u), before)
    return replaced(state, potential=v, is_v=True, **after)


def _or_zero(value: Tensor | None, like: Tensor) -> Tensor:
    return torch.zeros_like(like) if value is None else value


def settled_drive(p: LIFParams, out: Forward, sequence: bool) -> list[Tensor]:
    """The slots that spikes depend on, after the last spike: of a rule through time, whose slots these are."""
    if not out.slots:
        return []
    u: Any = out.u
    last = u[-1] if sequence and u.shape == out.spikes.shape else u
    state = settled(p, state_of(p.places, last, False, out.slots, None))
    return slots_at(p.drive, state)


class Step(NamedTuple):
    """One step: spikes, u, v after the reset and the rule's slots."""

    s: Tensor
    u: Tensor
    v: Tensor
    slots: Slots


def step(p: LIFParams, x: Tensor, state: LIFState) -> Step:
    """One step of the rule from a full state."""
    rule = p.kind
    u_prev = initial_v(p, x) if state.potential is None else state.potential
    given = {slot.name: getattr(state, slot.name) for slot in rule.slots}
    before = {name: _or_zero(value, u_prev) for name, value in given.items()}
    v_prev: Tensor = u_prev
    moved: Slots = {}
    if not (state.is_v or state.potential is None):
        v_prev, moved = rule.settle(p, u_prev, rule.fire(p, u_prev), before)
    slots = before | moved
    u = rule.charge(p, v_prev, x, slots)
    fired = rule.fire(p, u)
    v, _ = rule.settle(p, u, fired, slots)
    s = fired.to(u) if state.keep is None else fired.to(u) * state.keep
    first = any(value is None for value in given.values())
    return Step(s, u, v, slots | rule.advance(p, Now(s, fired, u, v, v_prev, u_prev, first), slots))


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
    u_seq, v_seq), the trace of every step and the other slots after the last. `into`, memory a backend may write the
    new state to, is not used here."""
    steps = x.to(state_dtype(x.dtype)) if sequence else x.to(state_dtype(x.dtype)).unsqueeze(0)
    rows = []
    for x_t in steps:
        row = step(p, x_t, state)
        state = LIFState(row.u, False, keep=state.keep, **row.slots)
        rows.append(row)
    if not sequence:
        return Forward(row.s.to(x.dtype), row.u, row.v, tuple(row.slots.values()))
    slots = list(row.slots.values())
    if p.traced:
        slots[0] = torch.stack([next(iter(row.slots.values())) for row in rows])
    u = torch.stack([row.u for row in rows]) if u_seq else row.u
    v = torch.stack([row.v for row in rows]) if v_seq else row.v
    return Forward(torch.stack([row.s.to(x.dtype) for row in rows]), u, v, tuple(slots))


def potentials(p: LIFParams, saved: Saved) -> Tensor:
    """u[t] of every step, [T, *], saved or recomputed from x."""
    if saved.u is not None:
        return saved.u if saved.sequence else saved.u.unsqueeze(0)
    assert saved.x is not None
    x = saved.x.to(state_dtype(saved.dtype))
    names = [slot.name for slot in p.kind.slots if slot.drives]
    state = LIFState(saved.potential, saved.is_v, **dict(zip(names, saved.drive, strict=True)))
    rows = []
    for x_t in x:
        row = step(p, x_t, state)
        state = LIFState(row.u, False, **{name: row.slots[name] for name in names})
        rows.append(row.u)
    return torch.stack(rows)


def backward(
    p: LIFParams,
    saved: Saved,
    g_s: Tensor | None,
    g_v: Tensor | None = None,
    g_v_seq: Tensor | None = None,
    want_v: bool = False,
    g_u_more: Tensor | None = None,
    g_drive: Sequence[Tensor | None] = (),
) -> tuple[Tensor, Tensor | None, Sequence[Tensor], Tensor | None]:
    """g_x and, for BPTT where wanted, g_v[0] and those of the slots that spikes depend on, whose last have g_drive; the
    last is MPDR's part of g_x.
    Online rules: g_x[t] = gain*g_s[t]*sg(u[t] - th). BPTT: g_u of the rule ; g_x = gain*g_u ; g_v[t-1] = lam*g_u.
    g_u_more [T, *] is added to g_u."""
    us = potentials(p, saved)
    dtype = saved.dtype
    g_rows = us.new_zeros(us.shape) if g_s is None else g_s.to(us.dtype).reshape(us.shape)
    if saved.keep is not None:
        g_rows = g_rows * saved.keep
    sg = formulas.derivative(us - p.threshold, p.shape, p.height, p.slope)
    if p.online:
        g_us = g_rows * sg
        g_x = p.gain * (g_us if g_u_more is None else g_us + g_u_more)
        return (g_x if saved.sequence else g_x[0]).to(dtype), None, (), None
    carry = _or_zero(g_v, us[0])
    names = [slot.name for slot in p.kind.slots if slot.drives]
    g_slots = {name: _or_zero(g, us[0]) for name, g in zip(names, g_drive or (None,) * len(names), strict=True)}
    rows = []
    for t in reversed(range(len(us))):
        if g_v_seq is not None:
            carry = carry + g_v_seq[t]
        g_u = p.kind.bptt_gradient(p, g_rows[t], carry, g_slots, us[t], sg[t])
        g_u = g_u if g_u_more is None else g_u + g_u_more[t]
        g_slots = p.kind.carry(p, g_u, carry, g_slots)
        carry = p.leak * g_u
        rows.append(p.gain * g_u)
    g_x = torch.stack(rows[::-1])
    g_first: Any = (carry, tuple(g_slots.values())) if want_v else (None, ())
    return (g_x if saved.sequence else g_x[0]).to(dtype), *g_first, None


def check(rule: Rule) -> None:
    """Raises TypeError, naming rule, slot and file, where a step does not write exactly the slots that it declares."""
    p, one = LIFParams(rule=rule.name, v_reset=None), torch.ones(1)
    fired, slots = one > 0, {slot.name: one for slot in rule.slots}
    _, moved = rule.settle(p, one, fired, slots)
    after = rule.advance(p, Now(one, fired, one, one, one, one, False), slots)
    for written, drives in ((moved, True), (after, False)):
        for name in sorted({*written} ^ {slot.name for slot in rule.slots if slot.drives == drives}):
            what = "writes and does not declare" if name in written else "declares and does not write"
            where = "settle" if drives else "advance"
            here = f"rule {rule.name!r} ({inspect.getsourcefile(type(rule))})"
            raise TypeError(f"{here} {what} slot {name!r} in `{where}`")


for _rule in RULES.values():
    check(_rule)
