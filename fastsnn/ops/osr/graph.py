"""Online spiking renormalisation as operators. Processes exchange statistics inside of them, in the default group."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ... import backends
from ...stats import Moments, Running, Used, group_of_all
from ...types import Forward, LIFParams, LIFState
from ..common import layout
from ..common.library import (
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
from . import passes

__all__ = ["NAME", "renormalize", "renormalized_lif"]

AFFINE = "Tensor weight, Tensor bias"
RUNNING = "Tensor running_mean, Tensor running_var, float eps, float? max_ratio, bool strict"
USED = "Tensor statistics, Tensor n"
GRADIENTS = "(Tensor g_x, Tensor g_weight, Tensor g_bias)"


def _of_running(running: Running) -> dict[str, Any]:
    """The operands RUNNING."""
    names = ("running_mean", "running_var", "eps", "max_ratio", "strict")
    return dict(zip(names, running[: len(names)], strict=True))


def _read_running(k: Any) -> Running:
    return Running(k.running_mean, k.running_var, k.eps, k.max_ratio, k.strict)


def _used(left: Any) -> Used:
    return passes.arrived(passes.used_of(left))


def _fake_used(x: Tensor) -> tuple[Tensor, Tensor]:
    statistics = x.new_empty(6, x.shape[1], dtype=torch.float64)
    return statistics, statistics.new_empty(())


def _fake_normalize(k: Any) -> tuple[Tensor, ...]:
    return torch.empty_like(passes.laid_out(k.x)), *_fake_used(k.x)


@define("osr_normalize", f"(Tensor x, {AFFINE}, {RUNNING}) -> (Tensor y, {USED})", _fake_normalize, of_state=True)
def _normalize(k: Any) -> tuple[Tensor, ...]:
    x = passes.laid_out(k.x)
    kernels, running = backends.select("osr", x), _read_running(k)
    y, left = passes.renormalize(kernels, x, k.weight, k.bias, running, group_of_all())
    return y, *_used(left)


def _fake_gradients(k: Any) -> tuple[Tensor, Tensor, Tensor]:
    g_weight = k.x.new_empty(k.x.shape[1], dtype=k.dtype)
    return torch.empty_like(passes.laid_out(k.x)), g_weight, torch.empty_like(g_weight)


@define("osr_normalize_backward", f"(Tensor g, Tensor x, {USED}, ScalarType dtype) -> {GRADIENTS}", _fake_gradients)
def _normalize_backward(k: Any) -> tuple[Tensor, Tensor, Tensor]:
    x, used = passes.laid_out(k.x), Used(k.statistics, k.n)
    return passes.renormalize_gradient(backends.select("osr", x), x, k.g, used, group_of_all(), k.dtype)


def _keep_normalized(ctx: Any, k: Any, output: tuple[Tensor, ...]) -> None:
    _, statistics, n = output
    ctx.mark_non_differentiable(statistics, n)
    ctx.save_for_backward(k.x, statistics, n)
    ctx.dtype = k.weight.dtype


def _normalize_gradient(ctx: Any, g: Tensor, *_: None) -> dict[str, Tensor]:
    x, statistics, n = ctx.saved_tensors
    g_x, g_weight, g_bias = _normalize_backward(g=g, x=x, statistics=statistics, n=n, dtype=ctx.dtype)
    return {"x": g_x, "weight": g_weight, "bias": g_bias}


differentiate(_normalize, _normalize_gradient, _keep_normalized)


def renormalize(x: Tensor, weight: Tensor, bias: Tensor, running: Running) -> tuple[Tensor, Moments]:
    """y and the moments of x, inside a graph and with gradient."""
    y, statistics, n = _normalize(x=x, weight=weight, bias=bias, **_of_running(running))
    return y, Used(statistics, n).moments


def _fake_lif_forward(k: Any) -> tuple[Tensor, ...]:
    x, rule = passes.laid_out(k.x), rule_of(k)
    trace, ratio, *others = (empty_like(x, model) for model in all_slots(rule, [x] * len(rule.slots), None))
    return torch.empty_like(x), empty_like(x, x), trace, ratio, *_fake_used(x), *others


@define(
    "osr_lif_forward",
    f"(Tensor x, {AFFINE}, {RUNNING}, {STATE}, {PARAMS}{MORE_GIVEN}) -> "
    f"(Tensor spikes, Tensor u, Tensor trace_after, Tensor ratio_after, {USED}{MORE_RETURNED})",
    _fake_lif_forward,
    of_state=True,
)
def _lif_forward(k: Any) -> tuple[Any, ...]:
    x = passes.laid_out(k.x)
    state = read_state(k).map(lambda tensor: layout.like(tensor, x))
    kernels, p, running = backends.select("osr", x), read_params(k), _read_running(k)
    out, left = passes.renormalized_lif(kernels, p, x, k.weight, k.bias, running, state, group_of_all())
    slots = all_slots(p.kind, out.slots, None)
    trace, ratio, *others = (empty_like(x, None) if slot is None else slot for slot in slots)
    return out.spikes, out.u, trace, ratio, *_used(left), *others


@define(
    "osr_lif_backward",
    f"(Tensor g_s, Tensor x, Tensor u, Tensor? keep, {USED}, ScalarType dtype, {PARAMS}) -> {GRADIENTS}",
    _fake_gradients,
)
def _lif_backward(k: Any) -> tuple[Tensor, Tensor, Tensor]:
    x, used = passes.laid_out(k.x), Used(k.statistics, k.n)
    u, keep = layout.like(k.u, x), layout.like_or_none(k.keep, x)
    kernels, p = backends.select("osr", x), read_params(k)
    return passes.renormalized_lif_gradient(kernels, p, x, k.g_s, u, keep, used, group_of_all(), k.dtype)


def _keep_lif(ctx: Any, k: Any, output: tuple[Tensor, ...]) -> None:
    u, _, _, statistics, n = output[1:6]
    ctx.mark_non_differentiable(*output[1:])
    ctx.save_for_backward(k.x, u, k.keep, statistics, n)
    ctx.kept = {"dtype": k.weight.dtype, **named(k, PARAMETERS)}


def _lif_gradient(ctx: Any, g_s: Tensor, *_: None) -> dict[str, Tensor]:
    x, u, keep, statistics, n = ctx.saved_tensors
    given = {"x": x, "u": u, "keep": keep, "statistics": statistics, "n": n}
    g_x, g_weight, g_bias = _lif_backward(g_s=g_s, **given, **ctx.kept)
    return {"x": g_x, "weight": g_weight, "bias": g_bias}


differentiate(_lif_forward, _lif_gradient, _keep_lif)


def renormalized_lif(
    p: LIFParams, x: Tensor, weight: Tensor, bias: Tensor, running: Running, state: LIFState
) -> tuple[Forward, Moments]:
    """A step of the neuron and the moments of x, inside a graph and with gradient."""
    found = _lif_forward(x=x, weight=weight, bias=bias, **_of_running(running), **of_state(state), **of_params(p))
    spikes, u, trace, ratio, statistics, n, *others = found
    done = Forward(spikes, u, None, slots_of(p, (trace, ratio, *others)))
    return done, Used(statistics, n).moments
