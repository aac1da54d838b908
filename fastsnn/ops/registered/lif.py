"""The LIF family as operators, with MPDR or without."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ... import backends
from ...reference import mpdr as formulas
from .. import layout
from ..autograd import first_order
from ..passes.mpdr import room
from ..types import EMPTY, RULES, Forward, LIFParams, LIFState, Pull, Saved, params_of, replaced
from . import NAME, PARAMS, STATE, call, define, differentiate, empty_like

__all__ = ["NAME", "forward"]


def _family(mpdr: bool) -> str:
    return "mpdr" if mpdr else "lif"


def _fake_lif_forward(x: Tensor, *given: Any) -> tuple[Tensor, ...]:
    potential, trace, ratio, keep, is_v, sequence, v_seq, u_seq, mpdr, *params = given
    x, _ = layout.aligned(x, LIFState(potential, is_v, trace, ratio, keep), sequence)
    one = x[0] if sequence else x
    steps = (x.shape[0] if sequence else 1) if mpdr else 0
    online, trace_rule = RULES[params[-1]]
    models = (
        x if u_seq else one,
        x if v_seq else None if online else one,
        None if trace_rule == "none" else x,
        one if trace_rule.startswith("ndot") else None,
    )
    moments = x.new_empty(steps, 2, dtype=torch.float64)
    return torch.empty_like(x), *(empty_like(x, model) for model in models), moments


@define(
    "lif_forward",
    f"(Tensor x, {STATE}, bool sequence, bool v_seq, bool u_seq, bool mpdr, {PARAMS}) -> "
    "(Tensor spikes, Tensor u, Tensor v, Tensor trace_seq, Tensor last_ratio, Tensor moments)",
    _fake_lif_forward,
    of_state=True,
)
def lif_forward(x: Tensor, *given: Any) -> tuple[Tensor, ...]:
    """A backend's LIF forward. u and v are those of the last step, or of every step with u_seq, v_seq; moments those of
    u of every step with mpdr."""
    potential, trace, ratio, keep, is_v, sequence, v_seq, u_seq, mpdr, *params = given
    p = params_of(*params)
    x, state = layout.aligned(x, LIFState(potential, is_v, trace, ratio, keep), sequence)
    moments = room(x, sequence) if mpdr else x.new_empty(0, 2, dtype=torch.float64)
    wanted = {"moments_out": moments} if mpdr else {}
    out = backends.select(_family(mpdr), x).forward(p, x, state, sequence, v_seq, EMPTY, u_seq, **wanted)
    if p.online and not v_seq:
        out = replaced(out, v=None)
    one = x[0] if sequence else x
    laid_out = (
        empty_like(x, None) if value is None else layout.like(value, x if value.dim() == x.dim() else one)
        for value in out
    )
    return *laid_out, moments


def _fake_lif_backward(g_s: Tensor | None, g_v: Tensor | None, *given: Any) -> tuple[Tensor, Tensor]:
    u, x, potential, keep, dtype, is_v, sequence, _, want_v = given[:9]
    model = _model(_saved(u, x, potential, keep, dtype, is_v, sequence))
    one = model[0] if sequence else model
    g_x = torch.empty_like(model, dtype=dtype)
    return g_x, empty_like(g_x, one if want_v else None)


@define(
    "lif_backward",
    "(Tensor? g_s, Tensor? g_v, Tensor? u, Tensor? x, Tensor? potential, Tensor? keep, ScalarType dtype, bool is_v, "
    f"bool sequence, bool v_seq, bool want_v, Tensor? pulls, {PARAMS}) -> (Tensor g_x, Tensor g_potential)",
    _fake_lif_backward,
)
def lif_backward(g_s: Tensor | None, g_v: Tensor | None, *given: Any) -> tuple[Tensor, Tensor]:
    """A backend's LIF backward, from u of every step, or from x of a sequence and the potential before it; pulls: the
    rows of `Pull`."""
    u, x, potential, keep, dtype, is_v, sequence, v_seq, want_v, pulls, *params = given
    saved = _saved(u, x, potential, keep, dtype, is_v, sequence)
    model = _model(saved)
    g_s, g_v = layout.fitted(g_s, saved, sequence), layout.fitted(g_v, saved, v_seq)
    last, every = (None, g_v) if v_seq else (g_v, None)
    pull = {} if pulls is None else {"pull": Pull(pulls, False)}
    kernels = backends.select(_family(pulls is not None), model)
    g_x, g_potential, *_ = kernels.backward(params_of(*params), saved, g_s, last, every, want_v, **pull)
    if g_potential is None:
        return layout.like(g_x, model), empty_like(g_x, None)
    return layout.like(g_x, model), layout.like(g_potential, model[0] if sequence else model)


def _saved(
    u: Tensor | None,
    x: Tensor | None,
    potential: Tensor | None,
    keep: Tensor | None,
    dtype: torch.dtype,
    is_v: bool,
    sequence: bool,
) -> Saved:
    if u is not None:
        u = layout.dense(u, sequence)
        return Saved(dtype, sequence, u, keep=layout.like_or_none(keep, u[0] if sequence else u))
    if x is None:
        raise TypeError("lif_backward: one of u and x must be a tensor")
    x, state = layout.aligned(x, LIFState(potential, is_v, keep=keep), sequence)
    return Saved(dtype, sequence, None, x, state.potential, is_v, state.keep)


def _model(saved: Saved) -> Tensor:
    """What the gradient is laid out as."""
    return saved.u if saved.x is None else saved.x  # type: ignore[return-value]


def _keep_for_backward(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    x, potential, _, _, keep, is_v, sequence, v_seq, u_seq, _, *params = inputs
    _, u, v, trace, ratio, moments = output
    ctx.set_materialize_grads(False)
    # the moments, of no elements without MPDR, are saved for `first_order` too
    ctx.mark_non_differentiable(u, trace, ratio, *([v] if RULES[params[-1]].online else []))
    if sequence and not u_seq:
        ctx.save_for_backward(None, x, potential, keep, moments)
    else:
        ctx.save_for_backward(u, None, None, keep, moments)
    ctx.kept = (x.dtype, is_v, sequence, v_seq, params)


@first_order
def _lif_gradient(
    ctx: Any, g_s: Tensor | None, _: None, g_v: Tensor | None, __: None, ___: None, g_moments: Tensor | None
) -> tuple[Tensor | None, ...]:
    dtype, is_v, sequence, v_seq, params = ctx.kept
    rest = (None,) * (8 + len(params))
    if g_s is None and g_v is None and g_moments is None:
        return None, None, *rest
    want_v = ctx.needs_input_grad[1] and not RULES[params[-1]].online
    *saved, moments = ctx.saved_tensors
    flags = is_v, sequence, v_seq, want_v
    pulls = None
    if g_moments is not None and moments.shape[0]:
        model: Any = saved[0] if saved[1] is None else saved[1]
        pulls = formulas.pulls(moments, g_moments, model[0].numel() if sequence else model.numel())
    g_x, g_potential = call(lif_backward, g_s, g_v, *saved, dtype, *flags, pulls, *params)
    return g_x, g_potential if want_v else None, *rest


differentiate("lif_forward", _lif_gradient, _keep_for_backward)


@torch.compiler.assume_constant_result
def _saves_u(family: str, device: torch.device, last: str | None) -> bool:
    """Whether the kernels that would run now need u of a sequence; `last` makes a graph depend on the override."""
    return backends.select(family, torch.empty(0, device=device)).SAVES_U


def forward(
    p: LIFParams, x: Tensor, state: LIFState, sequence: bool, v_seq: bool, mpdr: bool
) -> tuple[Forward, Tensor | None]:
    """As a backend's forward, and with mpdr the moments of u; inside a graph and with gradient."""
    potential, is_v, trace, ratio, keep = state
    differentiable = torch.is_grad_enabled() and (
        x.requires_grad or (potential is not None and potential.requires_grad)
    )
    through_time = differentiable and sequence and not p.online
    u_seq = through_time and _saves_u(_family(mpdr), x.device, backends._last)
    out = call(lif_forward, x, potential, trace, ratio, keep, is_v, sequence, v_seq, u_seq, mpdr, *p.arguments)
    spikes, u, v, trace, ratio, moments = out
    rule = RULES[p.rule].trace
    done = Forward(
        spikes,
        u,
        None if p.online and not v_seq else v,
        None if rule == "none" else trace,
        ratio if rule.startswith("ndot") else None,
    )
    return done, moments if mpdr else None
