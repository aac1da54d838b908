"""EM-PF neurons as operators."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ... import backends
from ..common import layout
from ..common.library import contiguous_like, define, differentiate, empty_like, named
from . import passes

LEARNED = ("leak", "threshold", "alpha", "beta", "gamma", "bias")
PARAMETERS = ", ".join(f"Tensor {name}" for name in LEARNED)


def _fake_fire(k: Any) -> tuple[Tensor, Tensor]:
    x, _ = passes.viewed(k.x, k.channels, k.sequence)
    return torch.empty_like(x), empty_like(x, None if k.leak is None else x if k.v_seq else x[0])


@define(
    "empf_fire",
    "(Tensor x, Tensor? v, Tensor? leak, Tensor threshold, SymInt channels, bool sequence, bool v_seq) -> "
    "(Tensor spikes, Tensor v)",
    _fake_fire,
    of_state=True,
)
def _fire(k: Any) -> tuple[Tensor, Tensor]:
    x, view = passes.viewed(k.x, k.channels, k.sequence)
    v = layout.like_or_none(k.v, x[0] if k.sequence else x)
    spikes, after = passes.fire(backends.select("empf", x), view, x, v, k.leak, k.threshold, k.v_seq)
    return spikes, empty_like(x, None) if after is None else after


def _fake_fire_backward(k: Any) -> tuple[Tensor, Tensor, Tensor]:
    after, _ = passes.viewed(k.after, k.channels, k.sequence)
    g_leak = k.g_s.new_empty(0) if k.leak is None else contiguous_like(k.leak)
    return torch.empty_like(after, dtype=k.g_s.dtype), g_leak, contiguous_like(k.threshold)


@define(
    "empf_fire_backward",
    "(Tensor g_s, Tensor after, Tensor? v, Tensor? leak, Tensor threshold, SymInt channels, bool sequence) -> "
    "(Tensor g_x, Tensor g_leak, Tensor g_threshold)",
    _fake_fire_backward,
)
def _fire_backward(k: Any) -> tuple[Tensor, Tensor, Tensor]:
    after, view = passes.viewed(k.after, k.channels, k.sequence)
    v, kernels = layout.like_or_none(k.v, after[0] if k.sequence else after), backends.select("empf", after)
    g_x, g_leak, g_threshold = passes.fire_gradient(kernels, view, k.g_s, after, v, k.leak, k.threshold)
    return g_x, k.g_s.new_empty(0) if g_leak is None else g_leak, g_threshold


def _keep_fired(ctx: Any, k: Any, output: tuple[Tensor, ...]) -> None:
    _, after = output
    if not (k.v_seq or k.leak is None):
        raise RuntimeError("the gradient of empf_fire needs v of every step: v_seq=True")
    ctx.mark_non_differentiable(after)
    ctx.save_for_backward(k.x if k.leak is None else after, k.v, k.leak, k.threshold)
    ctx.kept = named(k, ("channels", "sequence"))


def _fire_gradient(ctx: Any, g_s: Tensor, _: None) -> dict[str, Tensor]:
    after, v, leak, threshold = ctx.saved_tensors
    given = {"after": after, "v": v, "leak": leak, "threshold": threshold}
    g_x, g_leak, g_threshold = _fire_backward(g_s=g_s, **given, **ctx.kept)
    gradients = {"x": g_x, "threshold": g_threshold}
    return gradients | ({"leak": g_leak} if ctx.needs.leak else {})


differentiate(_fire, _fire_gradient, _keep_fired)


def fire(
    x: Tensor, v: Tensor | None, leak: Tensor | None, threshold: Tensor, channels: int, sequence: bool, v_seq: bool
) -> tuple[Tensor, Tensor | None]:
    """As `passes.fire`; inside a graph and, with v of every step, with gradient."""
    flags = {"channels": channels, "sequence": sequence, "v_seq": v_seq}
    spikes, after = _fire(x=x, v=v, leak=leak, threshold=threshold, **flags)
    return spikes, None if leak is None else after


def _fake_norm_fire(k: Any) -> tuple[Tensor, ...]:
    x, view = passes.step_viewed(k.x)
    after = empty_like(x, x)
    mean = x.new_empty(x.shape[1], dtype=torch.float64)
    return torch.empty_like(x), after, after.new_empty(view[1:]), mean, torch.empty_like(mean)


@define(
    "empf_norm_fire",
    f"(Tensor x, Tensor? v, {PARAMETERS}, Tensor? running_mean, Tensor? running_var, float eps) -> "
    "(Tensor spikes, Tensor v, Tensor m, Tensor mean, Tensor var)",
    _fake_norm_fire,
    of_state=True,
)
def _norm_fire(k: Any) -> tuple[Any, ...]:
    mean, var = k.running_mean, k.running_var
    if (mean is None) != (var is None):
        raise TypeError("empf_norm_fire: running_mean and running_var are needed together, or neither")
    x, view = passes.step_viewed(k.x)
    running = None if mean is None else (mean, var)
    kernels, learned = backends.select("empf", x), [*named(k, LEARNED).values()]
    out = passes.norm_fire(kernels, view, x, layout.like_or_none(k.v, x), learned, running, k.eps)
    if mean is None:
        return out.spikes, out.v, out.m, out.batch_mean, out.batch_var
    # an output may not share an input's memory
    return out.spikes, out.v, out.m, mean.to(torch.float64, copy=True), var.to(torch.float64, copy=True)


def _fake_norm_fire_backward(k: Any) -> tuple[Tensor, ...]:
    after, _ = passes.step_viewed(k.after)
    return torch.empty_like(after, dtype=k.g_s.dtype), *map(contiguous_like, named(k, LEARNED).values())


@define(
    "empf_norm_fire_backward",
    f"(Tensor g_s, Tensor? v, Tensor after, Tensor m, Tensor mean, Tensor var, {PARAMETERS}, bool batch, float eps) -> "
    "(Tensor g_x, Tensor g_leak, Tensor g_threshold, Tensor g_alpha, Tensor g_beta, Tensor g_gamma, Tensor g_bias)",
    _fake_norm_fire_backward,
)
def _norm_fire_backward(k: Any) -> tuple[Tensor, ...]:
    after, view = passes.step_viewed(k.after)
    done = after, k.m, k.mean, passes.inverse_of(k.var, k.eps)
    kernels, learned = backends.select("empf", k.m), [*named(k, LEARNED).values()]
    return passes.norm_fire_gradient(kernels, view, k.g_s, layout.like_or_none(k.v, after), done, learned, k.batch)


def _keep_norm_fired(ctx: Any, k: Any, output: tuple[Tensor, ...]) -> None:
    _, after, m, mean, var = output
    ctx.mark_non_differentiable(after, m, mean, var)
    ctx.save_for_backward(k.v, after, m, mean, var, *named(k, LEARNED).values())
    ctx.kept = {"batch": k.running_mean is None, "eps": k.eps}


def _norm_fire_gradient(ctx: Any, g_s: Tensor, *_: None) -> dict[str, Tensor]:
    given = dict(zip(("v", "after", "m", "mean", "var", *LEARNED), ctx.saved_tensors, strict=True))
    g_x, *learned = _norm_fire_backward(g_s=g_s, **given, **ctx.kept)
    return {"x": g_x, **dict(zip(LEARNED, learned, strict=True))}


differentiate(_norm_fire, _norm_fire_gradient, _keep_norm_fired)


def norm_fire(
    x: Tensor,
    v: Tensor | None,
    parameters: tuple[Tensor, ...],
    running: tuple[Tensor, Tensor] | None,
    eps: float,
) -> tuple[Tensor, Tensor, Tensor | None, Tensor | None]:
    """Spikes, v and the batch's statistics of `passes.norm_fire`, inside a graph and with gradient."""
    mean, var = running or (None, None)
    learned = dict(zip(LEARNED, parameters, strict=True))
    spikes, after, _, mean, var = _norm_fire(x=x, v=v, **learned, running_mean=mean, running_var=var, eps=eps)
    return (spikes, after, mean, var) if running is None else (spikes, after, None, None)
