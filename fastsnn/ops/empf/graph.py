"""EM-PF neurons as operators."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ... import backends
from ..common import layout
from ..common.autograd import first_order
from ..common.library import call, contiguous_like, define, differentiate, empty_like
from . import passes

PARAMETERS = "Tensor leak, Tensor threshold, Tensor alpha, Tensor beta, Tensor gamma, Tensor bias"
COUNT = PARAMETERS.count("Tensor")


def _fake_fire(
    x: Tensor, v: Tensor | None, leak: Tensor | None, threshold: Tensor, channels: int, sequence: bool, v_seq: bool
) -> tuple[Tensor, Tensor]:
    x, _ = passes.viewed(x, channels, sequence)
    return torch.empty_like(x), empty_like(x, None if leak is None else x if v_seq else x[0])


@define(
    "empf_fire",
    "(Tensor x, Tensor? v, Tensor? leak, Tensor threshold, SymInt channels, bool sequence, bool v_seq) -> "
    "(Tensor spikes, Tensor v)",
    _fake_fire,
    of_state=True,
)
def _fire(
    x: Tensor, v: Tensor | None, leak: Tensor | None, threshold: Tensor, channels: int, sequence: bool, v_seq: bool
) -> tuple[Tensor, Tensor]:
    x, view = passes.viewed(x, channels, sequence)
    v = layout.like_or_none(v, x[0] if sequence else x)
    spikes, after = passes.fire(backends.select("empf", x), view, x, v, leak, threshold, v_seq)
    return spikes, empty_like(x, None) if after is None else after


def _fake_fire_backward(
    g_s: Tensor, after: Tensor, v: Tensor | None, leak: Tensor | None, threshold: Tensor, channels: int, sequence: bool
) -> tuple[Tensor, Tensor, Tensor]:
    after, _ = passes.viewed(after, channels, sequence)
    g_leak = g_s.new_empty(0) if leak is None else contiguous_like(leak)
    return torch.empty_like(after, dtype=g_s.dtype), g_leak, contiguous_like(threshold)


@define(
    "empf_fire_backward",
    "(Tensor g_s, Tensor after, Tensor? v, Tensor? leak, Tensor threshold, SymInt channels, bool sequence) -> "
    "(Tensor g_x, Tensor g_leak, Tensor g_threshold)",
    _fake_fire_backward,
)
def _fire_backward(
    g_s: Tensor, after: Tensor, v: Tensor | None, leak: Tensor | None, threshold: Tensor, channels: int, sequence: bool
) -> tuple[Tensor, Tensor, Tensor]:
    after, view = passes.viewed(after, channels, sequence)
    v = layout.like_or_none(v, after[0] if sequence else after)
    kernels = backends.select("empf", after)
    g_x, g_leak, g_threshold = passes.fire_gradient(kernels, view, g_s, after, v, leak, threshold)
    return g_x, g_s.new_empty(0) if g_leak is None else g_leak, g_threshold


def _keep_fired(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    x, v, leak, threshold, channels, sequence, v_seq = inputs
    if not (v_seq or leak is None):
        raise RuntimeError("the gradient of empf_fire needs v of every step: v_seq=True")
    ctx.set_materialize_grads(False)
    ctx.mark_non_differentiable(output[1])
    ctx.save_for_backward(x if leak is None else output[1], v, leak, threshold)
    ctx.kept = channels, sequence


@first_order
def _fire_gradient(ctx: Any, g_s: Tensor | None, _: None) -> tuple[Tensor | None, ...]:
    if g_s is None:
        return (None,) * 7
    g_x, g_leak, g_threshold = call(_fire_backward, g_s, *ctx.saved_tensors, *ctx.kept)
    return g_x, None, g_leak if ctx.needs_input_grad[2] else None, g_threshold, None, None, None


differentiate("empf_fire", _fire_gradient, _keep_fired)


def fire(
    x: Tensor, v: Tensor | None, leak: Tensor | None, threshold: Tensor, channels: int, sequence: bool, v_seq: bool
) -> tuple[Tensor, Tensor | None]:
    """As `passes.fire`; inside a graph and, with v of every step, with gradient."""
    spikes, after = call(_fire, x, v, leak, threshold, channels, sequence, v_seq)
    return spikes, None if leak is None else after


def _fake_norm_fire(x: Tensor, v: Tensor | None, *given: Any) -> tuple[Tensor, ...]:
    x, view = passes.step_viewed(x)
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
def _norm_fire(x: Tensor, v: Tensor | None, *given: Any) -> tuple[Any, ...]:
    *parameters, mean, var, eps = given
    if (mean is None) != (var is None):
        raise TypeError("empf_norm_fire: running_mean and running_var are needed together, or neither")
    x, view = passes.step_viewed(x)
    running = None if mean is None else (mean, var)
    out = passes.norm_fire(backends.select("empf", x), view, x, layout.like_or_none(v, x), parameters, running, eps)
    if mean is None:
        return out.spikes, out.v, out.m, out.batch_mean, out.batch_var
    # an output may not share an input's memory
    return out.spikes, out.v, out.m, mean.to(torch.float64, copy=True), var.to(torch.float64, copy=True)


def _fake_norm_fire_backward(g_s: Tensor, v: Tensor | None, after: Tensor, *given: Any) -> tuple[Tensor, ...]:
    after, _ = passes.step_viewed(after)
    return torch.empty_like(after, dtype=g_s.dtype), *map(contiguous_like, given[3 : 3 + COUNT])


@define(
    "empf_norm_fire_backward",
    f"(Tensor g_s, Tensor? v, Tensor after, Tensor m, Tensor mean, Tensor var, {PARAMETERS}, bool batch, float eps) -> "
    "(Tensor g_x, Tensor g_leak, Tensor g_threshold, Tensor g_alpha, Tensor g_beta, Tensor g_gamma, Tensor g_bias)",
    _fake_norm_fire_backward,
)
def _norm_fire_backward(g_s: Tensor, v: Tensor | None, after: Tensor, *given: Any) -> tuple[Tensor, ...]:
    m, mean, var, *parameters, batch, eps = given
    after, view = passes.step_viewed(after)
    done = after, m, mean, passes.inverse_of(var, eps)
    kernels = backends.select("empf", m)
    return passes.norm_fire_gradient(kernels, view, g_s, layout.like_or_none(v, after), done, parameters, batch)


def _keep_norm_fired(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    _, v, *parameters, running_mean, _, ctx.eps = inputs
    ctx.batch = running_mean is None
    ctx.set_materialize_grads(False)
    ctx.mark_non_differentiable(*output[1:])
    ctx.save_for_backward(v, *output[1:], *parameters)


@first_order
def _norm_fire_gradient(ctx: Any, g_s: Tensor | None, *_: None) -> tuple[Tensor | None, ...]:
    if g_s is None:
        return (None,) * (COUNT + 5)
    g_x, *learned = call(_norm_fire_backward, g_s, *ctx.saved_tensors, ctx.batch, ctx.eps)
    return g_x, None, *learned, None, None, None


differentiate("empf_norm_fire", _norm_fire_gradient, _keep_norm_fired)


def norm_fire(
    x: Tensor,
    v: Tensor | None,
    parameters: tuple[Tensor, ...],
    running: tuple[Tensor, Tensor] | None,
    eps: float,
) -> tuple[Tensor, Tensor, Tensor | None, Tensor | None]:
    """Spikes, v and the batch's statistics of `passes.norm_fire`, inside a graph and with gradient."""
    spikes, after, _, mean, var = call(_norm_fire, x, v, *parameters, *(running or (None, None)), eps)
    return (spikes, after, mean, var) if running is None else (spikes, after, None, None)
