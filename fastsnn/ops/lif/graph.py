"""The LIF family as operators, with MPDR or without."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ... import backends, graphs
from ...reference import mpdr as formulas
from ...reference.lif import settled_drive
from ...rules import RULES
from ...types import EMPTY, Forward, LIFParams, LIFState, MPDRGradient, Saved
from ..common import layout
from ..common.library import (
    MORE,
    MORE_GIVEN,
    MORE_RETURNED,
    NAME,
    PARAMETERS,
    PARAMS,
    STATE,
    all_slots,
    define,
    differentiate,
    empty_like,
    named,
    of_params,
    of_state,
    read_params,
    read_state,
    rule_of,
    slots_of,
)
from .passes import empty_moments

__all__ = ["NAME", "forward"]

MORE_BACK = MORE_GIVEN + "".join(f", Tensor? g_{name}=None" for name in MORE)


def _family(mpdr: bool) -> str:
    return "mpdr" if mpdr else "lif"


def _fake_lif_forward(k: Any) -> tuple[Tensor, ...]:
    x, _ = layout.aligned(k.x, read_state(k), k.sequence)
    one, rule = x[0] if k.sequence else x, rule_of(k)
    steps = (x.shape[0] if k.sequence else 1) if k.mpdr else 0
    v = x if k.v_seq else None if rule.online else one
    slots = all_slots(rule, [x if slot.every_step else one for slot in rule.slots], None)
    u, v, trace, ratio, *others = (empty_like(x, model) for model in (x if k.u_seq else one, v, *slots))
    return torch.empty_like(x), u, v, trace, ratio, x.new_empty(steps, 2, dtype=torch.float64), *others


@define(
    "lif_forward",
    f"(Tensor x, {STATE}, bool sequence, bool v_seq, bool u_seq, bool mpdr, {PARAMS}{MORE_GIVEN}) -> "
    f"(Tensor spikes, Tensor u, Tensor v, Tensor trace_seq, Tensor last_ratio, Tensor moments{MORE_RETURNED})",
    _fake_lif_forward,
    of_state=True,
)
def lif_forward(k: Any) -> tuple[Tensor, ...]:
    """A backend's LIF forward. u and v are those of the last step, or of every step with u_seq, v_seq; moments those of
    u of every step with mpdr."""
    p = read_params(k)
    x, state = layout.aligned(k.x, read_state(k), k.sequence)
    moments = empty_moments(x, k.sequence) if k.mpdr else x.new_empty(0, 2, dtype=torch.float64)
    wanted = {"moments_out": moments} if k.mpdr else {}
    kernels = backends.select(_family(k.mpdr), x)
    out = kernels.forward(p, x, state, k.sequence, k.v_seq, EMPTY, k.u_seq, **wanted)
    v = None if p.online and not k.v_seq else out.v
    one = x[0] if k.sequence else x
    slots = out.slots if p.online else settled_drive(p, out, k.sequence)
    spikes, u, v, trace, ratio, *others = (
        empty_like(x, None) if value is None else layout.like(value, x if value.dim() == x.dim() else one)
        for value in (out.spikes, out.u, v, *all_slots(p.kind, slots, None))
    )
    return spikes, u, v, trace, ratio, moments, *others


def _fake_lif_backward(k: Any) -> tuple[Tensor, ...]:
    rule, model = rule_of(k), _model(_saved(k))
    one = model[0] if k.sequence else model
    g_x = torch.empty_like(model, dtype=k.dtype)
    drive = [one if k.want_v and slot.drives else None for slot in rule.slots]
    _, _, *others = all_slots(rule, drive, None)
    return g_x, *(empty_like(g_x, like) for like in (one if k.want_v else None, *others))


@define(
    "lif_backward",
    "(Tensor? g_s, Tensor? g_v, Tensor? u, Tensor? x, Tensor? potential, Tensor? keep, ScalarType dtype, bool is_v, "
    f"bool sequence, bool v_seq, bool want_v, Tensor? coefficients, {PARAMS}{MORE_BACK}) -> "
    f"(Tensor g_x, Tensor g_potential{''.join(f', Tensor g_{name}' for name in MORE)})",
    _fake_lif_backward,
)
def lif_backward(k: Any) -> tuple[Tensor, ...]:
    """A backend's LIF backward, from u of every step, or from x of a sequence and the potential before it;
    coefficients: the rows of `MPDRGradient`."""
    p, saved = read_params(k), _saved(k)
    model = _model(saved)
    g_s, g_v = layout.fitted(k.g_s, saved, k.sequence), layout.fitted(k.g_v, saved, k.v_seq)
    last, every = (None, g_v) if k.v_seq else (g_v, None)
    further: dict[str, Any] = {} if k.coefficients is None else {"mpdr": MPDRGradient(k.coefficients, False)}
    if p.drive:
        given = [getattr(k, f"g_{slot.name}") for slot in p.kind.slots if slot.drives]
        further["g_drive"] = [layout.fitted(g, saved, False) for g in given]
    kernels = backends.select(_family(k.coefficients is not None), model)
    g_x, g_potential, g_drive, _ = kernels.backward(p, saved, g_s, last, every, k.want_v, **further)
    one, slots = model[0] if k.sequence else model, iter(g_drive)
    _, _, *others = all_slots(p.kind, [next(slots, None) if slot.drives else None for slot in p.kind.slots], None)
    firsts = (empty_like(g_x, None) if g is None else layout.like(g, one) for g in (g_potential, *others))
    return layout.like(g_x, model), *firsts


def _saved(k: Any) -> Saved:
    if k.u is not None:
        u = layout.dense(k.u, k.sequence)
        return Saved(k.dtype, k.sequence, u, keep=layout.like_or_none(k.keep, u[0] if k.sequence else u))
    if k.x is None:
        raise TypeError("lif_backward: one of u and x must be a tensor")
    state = LIFState(k.potential, k.is_v, keep=k.keep, **named(k, MORE))
    x, state = layout.aligned(k.x, state, k.sequence)
    drive = [getattr(state, slot.name) for slot in rule_of(k).slots if slot.drives]
    return Saved(k.dtype, k.sequence, None, x, state.potential, k.is_v, state.keep, drive)


def _model(saved: Saved) -> Tensor:
    """What the gradient is laid out as."""
    return saved.u if saved.x is None else saved.x  # type: ignore[return-value]


def _keep(ctx: Any, k: Any, output: tuple[Tensor, ...]) -> None:
    _, u, v, trace, ratio, moments, *others = output
    # the moments, of no elements without MPDR, are saved for `first_order` too
    ctx.mark_non_differentiable(u, trace, ratio, *([v, *others] if rule_of(k).online else []))
    if k.sequence and not k.u_seq:
        ctx.save_for_backward(moments, None, k.x, k.potential, k.keep, *named(k, MORE).values())
    else:
        ctx.save_for_backward(moments, u, None, None, k.keep, *[None] * len(MORE))
    ctx.kept = {"dtype": k.x.dtype, **named(k, ("is_v", "sequence", "v_seq", *PARAMETERS))}


def _gradient(
    ctx: Any,
    g_s: Tensor | None,
    _: None,
    g_v: Tensor | None,
    __: None,
    ___: None,
    g_moments: Tensor | None,
    *g_slots: Tensor | None,
) -> dict[str, Tensor]:
    needs, sequence = ctx.needs, ctx.kept["sequence"]
    want_v = (needs.potential or any(named(needs, MORE).values())) and not RULES[ctx.kept["rule"]].online
    moments, *saved = ctx.saved_tensors
    given = dict(zip(("u", "x", "potential", "keep", *MORE), saved, strict=True))
    rows = None
    if g_moments is not None and moments.shape[0]:
        model: Any = given["u"] if given["x"] is None else given["x"]
        rows = formulas.coefficients(moments, g_moments, model[0].numel() if sequence else model.numel())
    after = {f"g_{name}": g for name, g in zip(MORE, g_slots, strict=True)}
    found = lif_backward(g_s=g_s, g_v=g_v, **given, **after, want_v=want_v, coefficients=rows, **ctx.kept)
    g_x, g_potential, *g_first = found
    gradients = {"x": g_x}
    if want_v:
        firsts = {name: g for name, g in zip(MORE, g_first, strict=True) if g.numel() == g_potential.numel()}
        gradients |= {"potential": g_potential, **firsts}
    return gradients


differentiate(lif_forward, _gradient, _keep)


@graphs.constant
def _saves_u(family: str, device: torch.device, last: str | None) -> bool:
    """Whether the kernels that would run now need u of a sequence; `last` makes a graph depend on the override."""
    return backends.select(family, torch.empty(0, device=device)).SAVES_U


def forward(
    p: LIFParams, x: Tensor, state: LIFState, sequence: bool, v_seq: bool, mpdr: bool
) -> tuple[Forward, Tensor | None]:
    """As a backend's forward, and with mpdr the moments of u; inside a graph and with gradient."""
    more: list[Any]
    potential, _, _, _, _, *more = state
    differentiable = torch.is_grad_enabled() and any(
        tensor is not None and tensor.requires_grad for tensor in (x, potential, *more)
    )
    through_time = differentiable and sequence and not p.online
    u_seq = through_time and _saves_u(_family(mpdr), x.device, backends._last)
    spikes, u, v, trace, ratio, moments, *others = lif_forward(
        x=x, sequence=sequence, v_seq=v_seq, u_seq=u_seq, mpdr=mpdr, **of_state(state), **of_params(p)
    )
    slots = slots_of(p, (trace, ratio, *others))
    return Forward(spikes, u, None if p.online and not v_seq else v, slots), moments if mpdr else None
