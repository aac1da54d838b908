"""The LIF family as operators, with MPDR or without."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ... import backends, graphs
from ...reference import mpdr as formulas
from ...reference.lif import settled_drive
from ...rules import Rule
from ...types import EMPTY, Forward, LIFParams, LIFState, MPDRGradient, Saved, params_of
from ..common import layout
from ..common.autograd import first_order
from ..common.library import (
    MORE,
    MORE_GIVEN,
    MORE_RETURNED,
    NAME,
    PARAMS,
    STATE,
    all_slots,
    apart,
    call,
    define,
    differentiate,
    empty_like,
    operands_state,
    rule_of,
    slots_of,
)
from .moments import empty_moments

__all__ = ["NAME", "forward"]

# where MORE begins in a call of lif_forward, behind ten operands and the parameters; defaults are left out
MORE_AT = 20
MORE_BACK = MORE_GIVEN + "".join(f", Tensor? g_{name}=None" for name in MORE)


def _family(mpdr: bool) -> str:
    return "mpdr" if mpdr else "lif"


def _fake_lif_forward(x: Tensor, *given: Any) -> tuple[Tensor, ...]:
    sequence, v_seq, u_seq, mpdr = given[5:9]
    params, more = apart(given[9:])
    x, _ = layout.aligned(x, operands_state(given[:5], more), sequence)
    one, rule = x[0] if sequence else x, rule_of(params)
    steps = (x.shape[0] if sequence else 1) if mpdr else 0
    slots = all_slots(rule, [x if slot.every_step else one for slot in rule.slots], None)
    u, v, trace, ratio, *others = (
        empty_like(x, model) for model in (x if u_seq else one, x if v_seq else None if rule.online else one, *slots)
    )
    return torch.empty_like(x), u, v, trace, ratio, x.new_empty(steps, 2, dtype=torch.float64), *others


@define(
    "lif_forward",
    f"(Tensor x, {STATE}, bool sequence, bool v_seq, bool u_seq, bool mpdr, {PARAMS}{MORE_GIVEN}) -> "
    f"(Tensor spikes, Tensor u, Tensor v, Tensor trace_seq, Tensor last_ratio, Tensor moments{MORE_RETURNED})",
    _fake_lif_forward,
    of_state=True,
)
def lif_forward(x: Tensor, *given: Any) -> tuple[Tensor, ...]:
    """A backend's LIF forward. u and v are those of the last step, or of every step with u_seq, v_seq; moments those of
    u of every step with mpdr."""
    sequence, v_seq, u_seq, mpdr = given[5:9]
    params, more = apart(given[9:])
    p = params_of(*params)
    x, state = layout.aligned(x, operands_state(given[:5], more), sequence)
    moments = empty_moments(x, sequence) if mpdr else x.new_empty(0, 2, dtype=torch.float64)
    wanted = {"moments_out": moments} if mpdr else {}
    out = backends.select(_family(mpdr), x).forward(p, x, state, sequence, v_seq, EMPTY, u_seq, **wanted)
    v = None if p.online and not v_seq else out.v
    one = x[0] if sequence else x
    slots = out.slots if p.online else settled_drive(p, out, sequence)
    spikes, u, v, trace, ratio, *others = (
        empty_like(x, None) if value is None else layout.like(value, x if value.dim() == x.dim() else one)
        for value in (out.spikes, out.u, v, *all_slots(p.kind, slots, None))
    )
    return spikes, u, v, trace, ratio, moments, *others


def _fake_lif_backward(g_s: Tensor | None, g_v: Tensor | None, *given: Any) -> tuple[Tensor, ...]:
    u, x, potential, keep, dtype, is_v, sequence, _, want_v = given[:9]
    params, more = apart(given[10:])
    rule = rule_of(params)
    model = _model(_saved(rule, u, x, potential, keep, dtype, is_v, sequence, more))
    one = model[0] if sequence else model
    g_x = torch.empty_like(model, dtype=dtype)
    drive = [one if want_v and slot.drives else None for slot in rule.slots]
    _, _, *others = all_slots(rule, drive, None)
    return g_x, *(empty_like(g_x, like) for like in (one if want_v else None, *others))


@define(
    "lif_backward",
    "(Tensor? g_s, Tensor? g_v, Tensor? u, Tensor? x, Tensor? potential, Tensor? keep, ScalarType dtype, bool is_v, "
    f"bool sequence, bool v_seq, bool want_v, Tensor? coefficients, {PARAMS}{MORE_BACK}) -> "
    f"(Tensor g_x, Tensor g_potential{''.join(f', Tensor g_{name}' for name in MORE)})",
    _fake_lif_backward,
)
def lif_backward(g_s: Tensor | None, g_v: Tensor | None, *given: Any) -> tuple[Tensor, ...]:
    """A backend's LIF backward, from u of every step, or from x of a sequence and the potential before it;
    coefficients: the rows of `MPDRGradient`."""
    u, x, potential, keep, dtype, is_v, sequence, v_seq, want_v, coefficients = given[:10]
    params, more = apart(given[10:])
    p = params_of(*params)
    saved = _saved(p.kind, u, x, potential, keep, dtype, is_v, sequence, more)
    model = _model(saved)
    g_s, g_v = layout.fitted(g_s, saved, sequence), layout.fitted(g_v, saved, v_seq)
    last, every = (None, g_v) if v_seq else (g_v, None)
    further: dict[str, Any] = {} if coefficients is None else {"mpdr": MPDRGradient(coefficients, False)}
    if p.drive:
        further["g_drive"] = [layout.fitted(g, saved, False) for g in _drive(p.kind, more[len(MORE) :])]
    kernels = backends.select(_family(coefficients is not None), model)
    g_x, g_potential, g_drive, _ = kernels.backward(p, saved, g_s, last, every, want_v, **further)
    one, slots = model[0] if sequence else model, iter(g_drive)
    _, _, *others = all_slots(p.kind, [next(slots, None) if slot.drives else None for slot in p.kind.slots], None)
    firsts = (empty_like(g_x, None) if g is None else layout.like(g, one) for g in (g_potential, *others))
    return layout.like(g_x, model), *firsts


def _drive(rule: Rule, given: tuple[Tensor | None, ...]) -> list[Tensor | None]:
    """Those of MORE that spikes depend on."""
    by_name = dict(zip(MORE, given))  # noqa: B905 (defaults are left out)
    return [by_name.get(slot.name) for slot in rule.slots if slot.drives]


def _saved(
    rule: Rule,
    u: Tensor | None,
    x: Tensor | None,
    potential: Tensor | None,
    keep: Tensor | None,
    dtype: torch.dtype,
    is_v: bool,
    sequence: bool,
    more: tuple[Tensor | None, ...],
) -> Saved:
    if u is not None:
        u = layout.dense(u, sequence)
        return Saved(dtype, sequence, u, keep=layout.like_or_none(keep, u[0] if sequence else u))
    if x is None:
        raise TypeError("lif_backward: one of u and x must be a tensor")
    state = LIFState(potential, is_v, keep=keep, **dict(zip(MORE, more)))  # noqa: B905 (defaults are left out)
    x, state = layout.aligned(x, state, sequence)
    drive = [getattr(state, slot.name) for slot in rule.slots if slot.drives]
    return Saved(dtype, sequence, None, x, state.potential, is_v, state.keep, drive)


def _model(saved: Saved) -> Tensor:
    """What the gradient is laid out as."""
    return saved.u if saved.x is None else saved.x  # type: ignore[return-value]


def _keep_for_backward(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    x, potential, _, _, keep, is_v, sequence, v_seq, u_seq, _ = inputs[:10]
    params, more = apart(inputs[10:])
    _, u, v, trace, ratio, moments, *others = output
    ctx.set_materialize_grads(False)
    # the moments, of no elements without MPDR, are saved for `first_order` too
    ctx.mark_non_differentiable(u, trace, ratio, *([v, *others] if rule_of(params).online else []))
    if sequence and not u_seq:
        ctx.save_for_backward(None, x, potential, keep, moments, *more)
    else:
        ctx.save_for_backward(u, None, None, keep, moments, *[None] * len(more))
    ctx.kept, ctx.inputs = (x.dtype, is_v, sequence, v_seq, params), len(inputs)


@first_order
def _lif_gradient(
    ctx: Any,
    g_s: Tensor | None,
    _: None,
    g_v: Tensor | None,
    __: None,
    ___: None,
    g_moments: Tensor | None,
    *g_slots: Tensor | None,
) -> tuple[Tensor | None, ...]:
    dtype, is_v, sequence, v_seq, params = ctx.kept
    g: list[Tensor | None] = [None] * ctx.inputs
    if all(given is None for given in (g_s, g_v, g_moments, *g_slots)):
        return tuple(g)
    needs = ctx.needs_input_grad
    want_v = (needs[1] or any(needs[MORE_AT:])) and not rule_of(params).online
    *saved, moments = ctx.saved_tensors[:5]
    more = (*ctx.saved_tensors[5:], *[None] * len(MORE))[: len(MORE)]  # defaults may be left out
    flags = is_v, sequence, v_seq, want_v
    rows = None
    if g_moments is not None and moments.shape[0]:
        model: Any = saved[0] if saved[1] is None else saved[1]
        rows = formulas.coefficients(moments, g_moments, model[0].numel() if sequence else model.numel())
    g[0], g_potential, *g_first = call(lif_backward, g_s, g_v, *saved, dtype, *flags, rows, *params, *more, *g_slots)
    if want_v:
        g[1] = g_potential
        for at, (first, needed) in enumerate(zip(g_first, needs[MORE_AT:]), MORE_AT):  # noqa: B905 (as they are given)
            g[at] = first if needed and first.numel() == g_potential.numel() else None
    return tuple(g)


differentiate("lif_forward", _lif_gradient, _keep_for_backward)


@graphs.constant
def _saves_u(family: str, device: torch.device, last: str | None) -> bool:
    """Whether the kernels that would run now need u of a sequence; `last` makes a graph depend on the override."""
    return backends.select(family, torch.empty(0, device=device)).SAVES_U


def forward(
    p: LIFParams, x: Tensor, state: LIFState, sequence: bool, v_seq: bool, mpdr: bool
) -> tuple[Forward, Tensor | None]:
    """As a backend's forward, and with mpdr the moments of u; inside a graph and with gradient."""
    more: list[Any]
    potential, is_v, trace, ratio, keep, *more = state
    differentiable = torch.is_grad_enabled() and any(
        tensor is not None and tensor.requires_grad for tensor in (x, potential, *more)
    )
    through_time = differentiable and sequence and not p.online
    u_seq = through_time and _saves_u(_family(mpdr), x.device, backends._last)
    operands = (potential, trace, ratio, keep, is_v, sequence, v_seq, u_seq, mpdr, *p.arguments, *more)
    spikes, u, v, trace, ratio, moments, *others = call(lif_forward, x, *operands)
    slots = slots_of(p, (trace, ratio, *others))
    return Forward(spikes, u, None if p.online and not v_seq else v, slots), moments if mpdr else None
