"""Online spiking renormalisation as operators. Processes exchange statistics inside of them, in the default group."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ... import backends
from ...stats import Moments, Running, Used, group_of_all
from ...types import Forward, LIFParams, LIFState, params_of
from ..common import layout
from ..common.autograd import first_order
from ..common.library import (
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
from . import passes

__all__ = ["NAME", "renormalize", "renormalized_lif"]

AFFINE = "Tensor weight, Tensor bias"
RUNNING = "Tensor running_mean, Tensor running_var, float eps, float? max_ratio, bool strict"
USED = "Tensor statistics, Tensor n"


def _used(left: Any) -> Used:
    return passes.arrived(passes.used_of(left))


def _fake_used(x: Tensor) -> tuple[Tensor, Tensor]:
    statistics = x.new_empty(6, x.shape[1], dtype=torch.float64)
    return statistics, statistics.new_empty(())


def _fake_normalize(x: Tensor, *_: Any) -> tuple[Tensor, ...]:
    return torch.empty_like(passes.laid_out(x)), *_fake_used(x)


@define("osr_normalize", f"(Tensor x, {AFFINE}, {RUNNING}) -> (Tensor y, {USED})", _fake_normalize, of_state=True)
def _normalize(x: Tensor, weight: Tensor, bias: Tensor, *running: Any) -> tuple[Tensor, ...]:
    x = passes.laid_out(x)
    y, left = passes.renormalize(backends.select("osr", x), x, weight, bias, Running(*running), group_of_all())
    return y, *_used(left)


def _fake_gradients(g: Tensor, x: Tensor, *given: Any) -> tuple[Tensor, Tensor, Tensor]:
    dtype = next(value for value in given if isinstance(value, torch.dtype))
    g_weight = x.new_empty(x.shape[1], dtype=dtype)
    return torch.empty_like(passes.laid_out(x)), g_weight, torch.empty_like(g_weight)


GRADIENTS = "(Tensor g_x, Tensor g_weight, Tensor g_bias)"


@define("osr_normalize_backward", f"(Tensor g, Tensor x, {USED}, ScalarType dtype) -> {GRADIENTS}", _fake_gradients)
def _normalize_backward(
    g: Tensor, x: Tensor, statistics: Tensor, n: Tensor, dtype: torch.dtype
) -> tuple[Tensor, Tensor, Tensor]:
    x, used = passes.laid_out(x), Used(statistics, n)
    return passes.renormalize_gradient(backends.select("osr", x), x, g, used, group_of_all(), dtype)


def _keep_normalized(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    x, weight, *_ = inputs
    _, statistics, n = output
    ctx.set_materialize_grads(False)
    ctx.mark_non_differentiable(statistics, n)
    ctx.save_for_backward(x, statistics, n)
    ctx.dtype, ctx.inputs = weight.dtype, len(inputs)


@first_order
def _normalize_gradient(ctx: Any, g: Tensor | None, *_: None) -> tuple[Tensor | None, ...]:
    if g is None:
        return (None,) * ctx.inputs
    gradients = call(_normalize_backward, g, *ctx.saved_tensors, ctx.dtype)
    return *gradients, *(None,) * (ctx.inputs - len(gradients))


differentiate("osr_normalize", _normalize_gradient, _keep_normalized)


def renormalize(x: Tensor, weight: Tensor, bias: Tensor, running: Running) -> tuple[Tensor, Moments]:
    """y and the moments of x, inside a graph and with gradient."""
    y, statistics, n = call(_normalize, x, weight, bias, *running[:5])
    return y, Used(statistics, n).moments


def _fake_lif_forward(x: Tensor, *given: Any) -> tuple[Tensor, ...]:
    x, rule = passes.laid_out(x), rule_of(given[12:])
    trace, ratio, *others = (empty_like(x, model) for model in all_slots(rule, [x] * len(rule.slots), None))
    return torch.empty_like(x), empty_like(x, x), trace, ratio, *_fake_used(x), *others


@define(
    "osr_lif_forward",
    f"(Tensor x, {AFFINE}, {RUNNING}, {STATE}, {PARAMS}{MORE_GIVEN}) -> "
    f"(Tensor spikes, Tensor u, Tensor trace_after, Tensor ratio_after, {USED}{MORE_RETURNED})",
    _fake_lif_forward,
    of_state=True,
)
def _lif_forward(x: Tensor, weight: Tensor, bias: Tensor, *given: Any) -> tuple[Any, ...]:
    running, (params, more) = given[:5], apart(given[10:])
    x = passes.laid_out(x)
    state = operands_state(given[5:10], more).map(lambda tensor: layout.like(tensor, x))
    kernels, p, group = backends.select("osr", x), params_of(*params), group_of_all()
    out, left = passes.renormalized_lif(kernels, p, x, weight, bias, Running(*running), state, group)
    slots = all_slots(p.kind, out.slots, None)
    trace, ratio, *others = (empty_like(x, None) if slot is None else slot for slot in slots)
    return out.spikes, out.u, trace, ratio, *_used(left), *others


@define(
    "osr_lif_backward",
    f"(Tensor g_s, Tensor x, Tensor u, Tensor? keep, {USED}, ScalarType dtype, {PARAMS}) -> {GRADIENTS}",
    _fake_gradients,
)
def _lif_backward(
    g_s: Tensor,
    x: Tensor,
    u: Tensor,
    keep: Tensor | None,
    statistics: Tensor,
    n: Tensor,
    dtype: torch.dtype,
    *params: Any,
) -> tuple[Tensor, Tensor, Tensor]:
    x, used = passes.laid_out(x), Used(statistics, n)
    u, keep = layout.like(u, x), layout.like_or_none(keep, x)
    kernels, p = backends.select("osr", x), params_of(*params)
    return passes.renormalized_lif_gradient(kernels, p, x, g_s, u, keep, used, group_of_all(), dtype)


def _keep_lif(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    (x, weight), keep, params = inputs[:2], inputs[11], inputs[13:23]
    u, _, _, statistics, n = output[1:6]
    ctx.set_materialize_grads(False)
    ctx.mark_non_differentiable(*output[1:])
    ctx.save_for_backward(x, u, keep, statistics, n)
    ctx.kept, ctx.inputs = (weight.dtype, *params), len(inputs)


@first_order
def _lif_gradient(ctx: Any, g_s: Tensor | None, *_: None) -> tuple[Tensor | None, ...]:
    if g_s is None:
        return (None,) * ctx.inputs
    gradients = call(_lif_backward, g_s, *ctx.saved_tensors, *ctx.kept)
    return *gradients, *(None,) * (ctx.inputs - len(gradients))


differentiate("osr_lif_forward", _lif_gradient, _keep_lif)


def renormalized_lif(
    p: LIFParams, x: Tensor, weight: Tensor, bias: Tensor, running: Running, state: LIFState
) -> tuple[Forward, Moments]:
    """A step of the neuron and the moments of x, inside a graph and with gradient."""
    more: list[Any]
    potential, is_v, trace, ratio, keep, *more = state
    operands = (potential, trace, ratio, keep, is_v, *p.arguments, *more)
    spikes, u, trace, ratio, statistics, n, *others = call(_lif_forward, x, weight, bias, *running[:5], *operands)
    done = Forward(spikes, u, None, slots_of(p, (trace, ratio, *others)))
    return done, Used(statistics, n).moments
