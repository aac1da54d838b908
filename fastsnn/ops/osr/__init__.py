"""Online spiking renormalisation: checks, autograd.Functions and entries for the layers (equations/osr.md)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ... import backends
from ...reference import osr as reference
from ...reference.lif import settled
from ...stats import Moments, Running, Settled, group_of_all
from ...types import FLOATING, LIFParams, LIFState, slots_at, state_of
from .. import ots
from ..common import layout
from ..common.autograd import first_order, of_neuron
from ..common.dispatch import by_operators
from ..lif import LIFOutput
from . import graph, passes


def check_input(x: Tensor, channels: int, dims: tuple[int, ...] | None) -> None:
    """Raises TypeError or ValueError where x is not a floating [N, C, *] of `channels` and of allowed dimensions."""
    if not isinstance(x, Tensor) or x.dtype not in FLOATING:
        what = x.dtype if isinstance(x, Tensor) else type(x).__name__
        raise TypeError(f"x is {what}; it must be a tensor of {', '.join(str(d) for d in FLOATING)}")
    if x.dim() < 2 or (dims is not None and x.dim() not in dims):
        allowed = "at least 2" if dims is None else " or ".join(map(str, dims))
        raise ValueError(f"x has shape {tuple(x.shape)}; it must have {allowed} dimensions, [N, C, *]")
    if x.shape[1] != channels:
        raise ValueError(f"x has {x.shape[1]} channels, shape {tuple(x.shape)}; num_features is {channels}")


class Renormalize(torch.autograd.Function):
    """y of one training step; `out` receives the rest."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, running: Running, out: list[Any]) -> Tensor:
        ctx.kernels, ctx.group, ctx.dtype = backends.select("osr", x), group_of_all(), weight.dtype
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(x, weight)
        y, left = passes.renormalize(ctx.kernels, x, weight, bias, running, ctx.group)
        ctx.used = passes.used_of(left)
        out.append(left)
        return y

    @staticmethod
    @first_order
    def backward(ctx: Any, g: Tensor | None) -> Any:
        if g is None:
            return None, None, None, None, None
        x = passes.laid_out(ctx.saved_tensors[0])
        return (
            *passes.renormalize_gradient(ctx.kernels, x, g, passes.arrived(ctx.used), ctx.group, ctx.dtype),
            None,
            None,
        )


class Evaluate(torch.autograd.Function):
    """y of evaluation on a backend's kernels, with the gradient of the affine map."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, running: Running, kernels: Any) -> Tensor:
        ctx.kernels, ctx.eps = kernels, running.eps
        # the running statistics move on before a late backward: keep a copy
        ctx.statistics = running.mean.clone(), running.variance.clone()
        ctx.save_for_backward(x, weight)
        return kernels.apply(x, weight, bias, running)

    @staticmethod
    @first_order
    def backward(ctx: Any, g: Tensor) -> Any:
        x, weight = ctx.saved_tensors
        mean, variance = ctx.statistics
        g, one = layout.like(g, x), torch.ones((), dtype=torch.float64, device=x.device)
        as_of_one = Moments(one, mean.double(), variance.double())
        used = reference.used(weight, as_of_one.mean, as_of_one.variance, as_of_one, ctx.eps)
        _, g_weight, g_bias = ctx.kernels.reduce(x, g, used, weight.dtype)
        scale_alone = Running(torch.zeros_like(mean), variance, ctx.eps)
        g_x = ctx.kernels.apply(g, weight, torch.zeros_like(weight), scale_alone)
        return g_x, g_weight, g_bias, None, None


class RenormalizedLIF(torch.autograd.Function):
    """Spikes of one training step of an online rule behind the normalisation; `out` receives the rest."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        bias: Tensor,
        running: Running,
        p: LIFParams,
        state: LIFState,
        out: list[Any],
    ) -> Tensor:
        ctx.p, ctx.kernels, ctx.group, ctx.dtype = p, backends.select("osr", x), group_of_all(), weight.dtype
        done, left = passes.renormalized_lif(ctx.kernels, p, x, weight, bias, running, state, ctx.group)
        ctx.used = passes.used_of(left)
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(x, done.u, None, state.keep, weight, bias)
        out += [done, left, ctx.kernels.NAME]
        return done.spikes

    @staticmethod
    @of_neuron
    def backward(ctx: Any, g_s: Tensor | None) -> Any:
        inputs = len(ctx.needs_input_grad)
        if g_s is None:
            return (None,) * inputs
        x, u, threshold, keep, *_ = ctx.saved_tensors
        x = passes.laid_out(x)
        u, keep = layout.like(u, x), layout.like_or_none(keep, x)
        given = u, keep, passes.arrived(ctx.used), ctx.group, ctx.dtype, threshold
        gradients = passes.renormalized_lif_gradient(ctx.kernels, ctx.p, x, g_s, *given)
        return *gradients, *(None,) * (inputs - len(gradients))


class StabilizedRenormalizedLIF(RenormalizedLIF):
    """The same under OTS: u and its moments in one pass, and spikes fired at stabilize(moments) in another."""

    @staticmethod
    def forward(  # type: ignore[override]
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        bias: Tensor,
        running: Running,
        p: LIFParams,
        state: LIFState,
        stabilize: ots.Stabilize,
        out: list[Any],
    ) -> Tensor:
        ctx.p, ctx.kernels, ctx.group, ctx.dtype = p, backends.select("osr", x), group_of_all(), weight.dtype
        given = p, x, weight, bias, running, state.potential
        (u, moments), left = passes.renormalized_charge(ctx.kernels, *given, ctx.group)
        threshold = stabilize(moments)
        fire = backends.select("ots", x).fire
        spikes, v, trace = fire(p, u, threshold, state.trace, state.keep, x.dtype)
        ctx.used = passes.used_of(left)
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(x, u, threshold, state.keep, weight, bias)
        out += [v, trace, left, ctx.kernels.NAME]
        return spikes


def renormalize(
    x: Tensor, weight: Tensor, bias: Tensor, running: Running
) -> tuple[Tensor, Moments | passes.Pending | Settled]:
    """y = weight*(x - running mean)/sqrt(running variance + eps) + bias of a training step, with OSR's gradient, and
    what became of its moments with `running.sequence`. Without one, in a graph and in a process group, where they may
    be pending: the step's own moments.

    x [N, C, *]; the vectors [C]. Raises ValueError for one element a channel, FloatingPointError for NaN or infinity
    where strict, BackendError where no backend runs.
    """
    if by_operators(x, weight, bias):
        return graph.renormalize(x, weight, bias, running)
    out: list[Any] = []
    y = Renormalize.apply(passes.laid_out(x), weight, bias, running, out)
    return y, passes.told(out[0])


def renormalized_lif(
    x: Tensor, weight: Tensor, bias: Tensor, running: Running, p: LIFParams, state: LIFState
) -> tuple[LIFOutput, Moments | passes.Pending | Settled]:
    """One step of a neuron of an online rule on `renormalize(x, ...)`, in one pass over memory, and what that returns
    of the moments of x. Errors as there."""
    moments: Moments | passes.Pending | Settled
    if by_operators(x, weight, bias, state.potential, state.keep, *slots_at(p.places, state)):
        done, moments = graph.renormalized_lif(p, x, weight, bias, running, state)
        spikes, name = done.spikes, graph.NAME
    else:
        x = passes.laid_out(x)
        state = state.map(lambda tensor: layout.like(tensor, x))
        out: list[Any] = []
        spikes = RenormalizedLIF.apply(x, weight, bias, running, p, state, out)
        done, left, name = out
        moments = passes.told(left)
    after = state_of(p.places, done.u, False, done.slots, state.keep)
    return LIFOutput(spikes, after, done.slots[0] if p.traced else None, None, name), moments


def stabilized_lif(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    running: Running,
    p: LIFParams,
    state: LIFState,
    stabilize: ots.Stabilize,
) -> tuple[LIFOutput, Moments | passes.Pending | Settled]:
    """One step under OTS (`ops.ots.run`) on `renormalize(x, ...)`, in two passes over memory, and what that returns of
    the moments of x. In a graph the two, one after the other. Errors as there."""
    if by_operators(x, weight, bias, state.potential, state.keep, *slots_at(p.places, state)):
        y, moments = graph.renormalize(x, weight, bias, running)
        return ots.run(p, y, state, stabilize), moments
    x = passes.laid_out(x)
    state = settled(p, state.map(lambda tensor: layout.like(tensor, x)))
    out: list[Any] = []
    spikes = StabilizedRenormalizedLIF.apply(x, weight, bias, running, p, state, stabilize, out)
    v, trace, left, name = out
    return ots.output(spikes, v, trace, state.keep, name), passes.told(left)


def evaluate(x: Tensor, weight: Tensor, bias: Tensor, running: Running) -> Tensor:
    """The same affine map as in training, with its plain gradient."""
    if by_operators(x, weight, bias):
        return reference.apply(x, weight, bias, running)
    kernels = passes.kernels_of(backends.select("osr", x), x)
    if not torch.is_grad_enabled():
        return kernels.apply(passes.laid_out(x), weight, bias, running)
    if backends.forced() is None:
        return reference.apply(x, weight, bias, running)  # has derivatives of every order
    return Evaluate.apply(passes.laid_out(x), weight, bias, running, kernels)
