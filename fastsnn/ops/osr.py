"""Online spiking renormalisation: checks, autograd.Functions and entries for the layers (equations/osr.md)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from .. import backends
from ..reference import osr as reference
from ..stats import Affine, Moments, group_of_all
from ..types import FLOATING, LIFParams, LIFState, slots_at, state_of
from . import layout
from .autograd import first_order, of_neuron
from .dispatch import by_operators
from .lif import Ran
from .passes import osr as passes
from .passes.osr import Coming, Running
from .registered import osr as registered


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
        y, ctx.used = passes.renormalize(ctx.kernels, x, weight, bias, running, ctx.group)
        out.append(ctx.used)
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
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, constants: tuple[Affine, Tensor], kernels: Any
    ) -> Tensor:
        (center, ctx.factor, _), scale = constants
        ctx.kernels, ctx.statistics, ctx.dtype = kernels, (center, scale), weight.dtype
        ctx.save_for_backward(x)
        return kernels.normalize(x, constants[0], False)[0]

    @staticmethod
    @first_order
    def backward(ctx: Any, g: Tensor) -> Any:
        (x,) = ctx.saved_tensors
        g, none = layout.like(g, x), torch.zeros_like(ctx.factor)
        g_bias, g_weight = ctx.kernels.reduce(x, g, *ctx.statistics).to(ctx.dtype)
        g_x = ctx.kernels.normalize(g, Affine(none, ctx.factor, none), False)[0]
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
        done, ctx.used = passes.renormalized_lif(ctx.kernels, p, x, weight, bias, running, state, ctx.group)
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(x, done.u, state.keep, weight, bias)
        out += [done, ctx.used, ctx.kernels.NAME]
        return done.spikes

    @staticmethod
    @of_neuron
    def backward(ctx: Any, g_s: Tensor | None) -> Any:
        if g_s is None:
            return None, None, None, None, None, None, None
        x, u, keep, *_ = ctx.saved_tensors
        x = passes.laid_out(x)
        u, keep = layout.like(u, x), layout.like_or_none(keep, x)
        used = passes.arrived(ctx.used)
        return (
            *passes.renormalized_lif_gradient(ctx.kernels, ctx.p, x, g_s, u, keep, used, ctx.group, ctx.dtype),
            None,
            None,
            None,
            None,
        )


def renormalize(x: Tensor, weight: Tensor, bias: Tensor, running: Running) -> tuple[Tensor, Moments | Coming]:
    """y = weight*(x - running mean)/sqrt(running variance + eps) + bias of a training step, with OSR's gradient, and
    the step's own moments, which in a process group may be coming yet.

    x [N, C, *]; the vectors [C]. Raises ValueError for one element a channel, FloatingPointError for NaN or infinity
    where strict, BackendError where no backend runs.
    """
    if by_operators(x, weight, bias):
        return registered.renormalize(x, weight, bias, running)
    out: list[Any] = []
    y = Renormalize.apply(passes.laid_out(x), weight, bias, running, out)
    return y, _moments_of(out[0])


def _moments_of(used: passes.Used | Coming) -> Moments | Coming:
    return used if isinstance(used, Coming) else used.moments


def renormalized_lif(
    x: Tensor, weight: Tensor, bias: Tensor, running: Running, p: LIFParams, state: LIFState
) -> tuple[Ran, Moments | Coming]:
    """One step of a neuron of an online rule on `renormalize(x, ...)`, in one pass over memory, and the moments of x.
    Errors as there."""
    moments: Moments | Coming
    if by_operators(x, weight, bias, state.potential, state.keep, *slots_at(p.places, state)):
        done, moments = registered.renormalized_lif(p, x, weight, bias, running, state)
        spikes, name = done.spikes, registered.NAME
    else:
        x = passes.laid_out(x)
        state = state.map(lambda tensor: layout.like(tensor, x))
        out: list[Any] = []
        spikes = RenormalizedLIF.apply(x, weight, bias, running, p, state, out)
        done, used, name = out
        moments = _moments_of(used)
    after = state_of(p.places, done.u, False, done.slots, state.keep)
    return Ran(spikes, after, done.slots[0] if p.traced else None, None, name), moments


def evaluate(x: Tensor, weight: Tensor, bias: Tensor, mean: Tensor, variance: Tensor, eps: float) -> Tensor:
    """The same affine map as in training, with its plain gradient."""
    affine, scale = passes.affine_of(mean, variance, weight, bias, eps)
    if by_operators(x, weight, bias):
        return reference.apply(x, affine).to(x.dtype)
    kernels = backends.select("osr", x)
    if not torch.is_grad_enabled():
        return kernels.normalize(passes.laid_out(x), affine, False)[0]
    if backends.forced() is None:
        return reference.apply(x, affine).to(x.dtype)  # has derivatives of every order
    constants = Affine(*(vector.detach() for vector in affine)), scale
    return Evaluate.apply(passes.laid_out(x), weight, bias, constants, kernels)
