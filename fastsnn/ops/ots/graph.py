"""The LIF step under the online threshold stabiliser as operators: charge, then fire at the threshold found."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ... import backends
from ...stats import Moments
from ...types import LIFParams, LIFState
from ..common import layout
from ..common.library import (
    NAME,
    PARAMETERS,
    PARAMS,
    define,
    differentiate,
    empty_like,
    named,
    of_params,
    read_params,
    rule_of,
)

__all__ = ["NAME", "charge", "fire"]


def _aligned(x: Tensor, potential: Tensor | None) -> tuple[Tensor, Tensor | None]:
    x, state = layout.aligned(x, LIFState(potential, True), False)
    return x, state.potential


def _fake_charge(k: Any) -> tuple[Tensor, Tensor]:
    x, _ = _aligned(k.x, k.potential)
    return empty_like(x, x), x.new_empty(len(Moments._fields), dtype=torch.float64)


@define(
    "ots_charge", f"(Tensor x, Tensor? potential, {PARAMS}) -> (Tensor u, Tensor moments)", _fake_charge, of_state=True
)
def _charge(k: Any) -> tuple[Tensor, Tensor]:
    x, potential = _aligned(k.x, k.potential)
    u, moments = backends.select("ots", x).charge(read_params(k), x, potential)
    return u, torch.stack(moments)


def charge(p: LIFParams, x: Tensor, potential: Tensor | None) -> tuple[Tensor, Moments]:
    """u and its moments, inside a graph and without gradient."""
    u, moments = _charge(x=x.detach(), potential=potential, **of_params(p))
    return u, Moments(*moments.unbind())


def _fake_fire(k: Any) -> tuple[Tensor, ...]:
    after = k.u if rule_of(k).traced() else None
    return torch.empty_like(k.u, dtype=k.x.dtype), torch.empty_like(k.u), empty_like(k.x, after)


@define(
    "ots_fire",
    f"(Tensor x, Tensor u, Tensor threshold, Tensor? trace, Tensor? keep, {PARAMS}) -> "
    "(Tensor spikes, Tensor v, Tensor trace_after)",
    _fake_fire,
)
def _fire(k: Any) -> tuple[Tensor, ...]:
    trace, keep = layout.like_or_none(k.trace, k.u), layout.like_or_none(k.keep, k.u)
    kernels = backends.select("ots", k.u)
    spikes, v, after = kernels.fire(read_params(k), k.u, k.threshold, trace, keep, k.x.dtype)
    return spikes, v, empty_like(k.x, None) if after is None else after


def _fake_backward(k: Any) -> Tensor:
    return torch.empty_like(k.u, dtype=k.dtype)


@define(
    "ots_backward",
    f"(Tensor g_s, Tensor u, Tensor threshold, Tensor? keep, ScalarType dtype, {PARAMS}) -> Tensor",
    _fake_backward,
)
def _backward(k: Any) -> Tensor:
    g_s, keep = layout.like(k.g_s, k.u), layout.like_or_none(k.keep, k.u)
    return backends.select("ots", k.u).backward(read_params(k), k.u, k.threshold, keep, g_s, k.dtype)


def _keep(ctx: Any, k: Any, output: tuple[Tensor, ...]) -> None:
    ctx.mark_non_differentiable(*output[1:])
    ctx.save_for_backward(k.u, k.threshold, k.keep)
    ctx.kept = {"dtype": k.x.dtype, **named(k, PARAMETERS)}


def _gradient(ctx: Any, g_s: Tensor, *_: None) -> dict[str, Tensor]:
    u, threshold, keep = ctx.saved_tensors
    return {"x": _backward(g_s=g_s, u=u, threshold=threshold, keep=keep, **ctx.kept)}


differentiate(_fire, _gradient, _keep)


def fire(
    p: LIFParams, x: Tensor, u: Tensor, threshold: Tensor, trace: Tensor | None, keep: Tensor | None
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Spikes, v and trace at the threshold, inside a graph; the gradient goes to x, which u was charged from."""
    spikes, v, after = _fire(x=x, u=u, threshold=threshold, trace=trace, keep=keep, **of_params(p))
    return spikes, v, after if p.traced else None
