"""The LIF step under the online threshold stabiliser as operators: charge, then fire at the threshold found."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ... import backends
from ...stats import Moments
from ...types import LIFParams, LIFState, params_of
from ..common import layout
from ..common.autograd import first_order
from ..common.library import NAME, PARAMS, call, define, differentiate, empty_like, rule_of

__all__ = ["NAME", "charge", "fire"]


def _aligned(x: Tensor, potential: Tensor | None) -> tuple[Tensor, Tensor | None]:
    x, state = layout.aligned(x, LIFState(potential, True), False)
    return x, state.potential


def _fake_charge(x: Tensor, potential: Tensor | None, *_: Any) -> tuple[Tensor, Tensor]:
    x = _aligned(x, potential)[0]
    return empty_like(x, x), x.new_empty(len(Moments._fields), dtype=torch.float64)


@define(
    "ots_charge", f"(Tensor x, Tensor? potential, {PARAMS}) -> (Tensor u, Tensor moments)", _fake_charge, of_state=True
)
def _charge(x: Tensor, potential: Tensor | None, *params: Any) -> tuple[Tensor, Tensor]:
    x, potential = _aligned(x, potential)
    u, moments = backends.select("ots", x).charge(params_of(*params), x, potential)
    return u, torch.stack(moments)


def charge(p: LIFParams, x: Tensor, potential: Tensor | None) -> tuple[Tensor, Moments]:
    """u and its moments, inside a graph and without gradient."""
    u, moments = call(_charge, x.detach(), potential, *p.arguments)
    return u, Moments(*moments.unbind())


def _fake_fire(x: Tensor, u: Tensor, threshold: Tensor, trace: Any, keep: Any, *params: Any) -> tuple[Tensor, ...]:
    after = u if rule_of(params).traced() else None
    return torch.empty_like(u, dtype=x.dtype), torch.empty_like(u), empty_like(x, after)


@define(
    "ots_fire",
    f"(Tensor x, Tensor u, Tensor threshold, Tensor? trace, Tensor? keep, {PARAMS}) -> "
    "(Tensor spikes, Tensor v, Tensor trace_after)",
    _fake_fire,
)
def _fire(
    x: Tensor, u: Tensor, threshold: Tensor, trace: Tensor | None, keep: Tensor | None, *params: Any
) -> tuple[Tensor, ...]:
    trace, keep = layout.like_or_none(trace, u), layout.like_or_none(keep, u)
    spikes, v, after = backends.select("ots", u).fire(params_of(*params), u, threshold, trace, keep, x.dtype)
    return spikes, v, empty_like(x, None) if after is None else after


def _fake_backward(g_s: Tensor, u: Tensor, threshold: Tensor, keep: Any, dtype: torch.dtype, *_: Any) -> Tensor:
    return torch.empty_like(u, dtype=dtype)


@define(
    "ots_backward",
    f"(Tensor g_s, Tensor u, Tensor threshold, Tensor? keep, ScalarType dtype, {PARAMS}) -> Tensor",
    _fake_backward,
)
def _backward(
    g_s: Tensor, u: Tensor, threshold: Tensor, keep: Tensor | None, dtype: torch.dtype, *params: Any
) -> Tensor:
    g_s, keep = layout.like(g_s, u), layout.like_or_none(keep, u)
    return backends.select("ots", u).backward(params_of(*params), u, threshold, keep, g_s, dtype)


def _keep_fired(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    x, u, threshold, _, keep, *params = inputs
    ctx.set_materialize_grads(False)
    ctx.mark_non_differentiable(*output[1:])
    ctx.save_for_backward(u, threshold, keep)
    ctx.kept = (x.dtype, *params)


@first_order
def _gradient(ctx: Any, g_s: Tensor | None, *_: None) -> tuple[Tensor | None, ...]:
    g_x = None if g_s is None else call(_backward, g_s, *ctx.saved_tensors, *ctx.kept)
    return g_x, *(None,) * (3 + len(ctx.kept))


differentiate("ots_fire", _gradient, _keep_fired)


def fire(
    p: LIFParams, x: Tensor, u: Tensor, threshold: Tensor, trace: Tensor | None, keep: Tensor | None
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Spikes, v and trace at the threshold, inside a graph; the gradient goes to x, which u was charged from."""
    spikes, v, after = call(_fire, x, u, threshold, trace, keep, *p.arguments)
    return spikes, v, after if p.traced else None
