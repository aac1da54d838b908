"""The EM-PF operation: checks, autograd.Functions and the functional entry (equations/empf.md; Hao et al. 2024)."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from ... import backends
from ...types import LIFState
from ..common import layout
from ..common.autograd import of_neuron
from ..common.dispatch import by_operators
from ..lif import check_input, check_state
from . import graph, passes

__all__ = ["EMPFNormResult", "EMPFResult", "empf_norm_step", "empf_sequence", "empf_step"]


class EMPFResult(NamedTuple):
    """spikes in x's dtype; v after the last step in the state's dtype, outside autograd; None for version III."""

    spikes: Tensor
    v: Tensor | None


class EMPFNormResult(NamedTuple):
    """As EMPFResult, with the mean and biased variance [C] of m, float64; None where running ones were given."""

    spikes: Tensor
    v: Tensor
    mean: Tensor | None
    var: Tensor | None


class Fire(torch.autograd.Function):
    """Spikes and v of every step of versions I and III; v[t-1] is detached, so g_x = g_s*f. v has a graph for
    `first_order` alone: its gradient is dropped, and callers detach it."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, v: Tensor | None, leak: Tensor | None, threshold: Tensor, call: Any) -> Any:
        kernels, view = call
        spikes, v_seq = passes.fire(kernels, view, x, v, leak, threshold, True)
        ctx.call, ctx.strides = call, x.stride()
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(x if v_seq is None else v_seq, v, leak, threshold)
        return spikes, v_seq

    @staticmethod
    @of_neuron
    def backward(ctx: Any, g_s: Tensor | None, *_: Any) -> Any:
        if g_s is None:
            return None, None, None, None, None
        (kernels, view), (after, v, leak, threshold) = ctx.call, ctx.saved_tensors
        # a saved-tensor hook may have laid them out anew
        after = layout.laid(after, ctx.strides)
        v = layout.like_or_none(v, after if v is None or v.dim() == after.dim() else after[0])
        g_x, g_leak, g_threshold = passes.fire_gradient(kernels, view, g_s, after, v, leak, threshold)
        return g_x, None, g_leak, g_threshold, None


class NormFire(torch.autograd.Function):
    """Spikes, v and batch statistics of one step of version II; v as Fire's."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, v: Tensor | None, running: Any, eps: float, call: Any, *parameters: Tensor) -> Any:
        kernels, view = call
        out = passes.norm_fire(kernels, view, x, v, parameters, running, eps)
        ctx.call, ctx.batch, ctx.strides = call, running is None, x.stride()
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(v, out.v, out.m, out.mean, out.inverse, *parameters)
        ctx.mark_non_differentiable(*(() if out.batch_mean is None else (out.batch_mean, out.batch_var)))
        return out.spikes, out.v, out.batch_mean, out.batch_var

    @staticmethod
    @of_neuron
    def backward(ctx: Any, g_s: Tensor | None, *_: Any) -> Any:
        if g_s is None:
            return (None,) * 11
        (kernels, view), (v, after, *saved) = ctx.call, ctx.saved_tensors
        after = layout.laid(after, ctx.strides)
        v, saved = layout.like_or_none(v, after), [after, *map(Tensor.contiguous, saved)]
        g_x, *learned = passes.norm_fire_gradient(kernels, view, g_s, v, saved[:4], saved[4:], ctx.batch)
        return g_x, None, None, None, None, *learned


def _check_parameters(x: Tensor, sequence: bool, **parameters: Tensor | None) -> int:
    """Channels of the parameters of x, [T, N, *] or a step [N, *]: 1 where they have none. Raises TypeError or
    ValueError."""
    steps, one = (x.shape[:1], x.shape[1:]) if sequence else (x.shape[:0], x.shape)
    channels = 1
    for name, value in parameters.items():
        if value is None:
            continue
        if not isinstance(value, Tensor) or not value.is_floating_point():
            raise TypeError(f"{name} is {value!r}; it must be a floating tensor")
        shape = value.shape
        if shape == steps and value.device == x.device:
            continue
        if value.device != x.device or shape[: len(steps)] != steps or len(shape) > len(steps) + 1 or len(one) < 2:
            raise ValueError(
                f"{name} is {tuple(shape)} on {value.device}; for x of shape {tuple(x.shape)} on {x.device} it must "
                "hold one value a step, or one a step and channel, there"
            )
        channels = shape[-1]
        if channels != one[1]:
            raise ValueError(f"{name} has {channels} channels and x of shape {tuple(one)} {one[1]}")
    return channels


def _checked(v: Tensor, x: Tensor) -> Tensor:
    """v, detached. Raises TypeError or ValueError where it does not fit one step x."""
    check_state(x, LIFState(v, True), False)
    return v.detach()


def _fitted(v: Tensor, x: Tensor) -> Tensor:
    """As `_checked`, in the memory order of x."""
    return layout.like(_checked(v, x), x)


def _fire(x: Tensor, v: Tensor | None, leak: Tensor | None, threshold: Tensor, sequence: bool) -> EMPFResult:
    check_input(x, sequence)
    through = by_operators(x, v, leak, threshold)
    channels = _check_parameters(x, sequence, leak=leak, threshold=threshold)
    learns = torch.is_grad_enabled() and any(p is not None and p.requires_grad for p in (x, leak, threshold))
    v, every = None if leak is None else v, learns or not sequence
    if through:
        v = None if v is None else _checked(v, x[0] if sequence else x)
        spikes, after = graph.fire(x, v, leak, threshold, channels, sequence, every)
    else:
        x, view = passes.viewed(x, channels, sequence)
        kernels, v = backends.select("empf", x), None if v is None else _fitted(v, x[0] if sequence else x)
        if learns:
            spikes, after = Fire.apply(x, v, leak, threshold, (kernels, view))
            after = None if after is None else after.detach()
        else:
            spikes, after = passes.fire(kernels, view, x, v, leak, threshold, every)
    if sequence and every and after is not None:
        after = after[-1].clone() if len(after) > 1 else after[0]
    return EMPFResult(spikes, after)


def empf_sequence(x: Tensor, v: Tensor | None = None, *, leak: Tensor | None, threshold: Tensor) -> EMPFResult:
    """All T steps of EM-PF's version I, or III where leak is None (Hao et al. 2024, eq. 3 and 5):
    m = lam_t*v[t-1] + x, s = (m - th_t)*f, v = m - s; version III has m = x and no v.

    x [T, N, *]; v [N, *], state before the first step, in the state's dtype, or None; leak, threshold [T], or [T, C]
    for x [T, N, C, *]. Gradients reach x, leak and threshold; v is detached at every step.
    Raises TypeError or ValueError for arguments that do not fit, BackendError where no backend runs.
    """
    return _fire(x, v, leak, threshold, True)


def empf_step(x: Tensor, v: Tensor | None = None, *, leak: Tensor | None, threshold: Tensor) -> EMPFResult:
    """One step of `empf_sequence`: x [N, *]; leak, threshold [] or, for x [N, C, *], [C]."""
    return _fire(x, v, leak, threshold, False)


def empf_norm_step(
    x: Tensor,
    v: Tensor | None = None,
    *,
    leak: Tensor,
    threshold: Tensor,
    alpha: Tensor,
    beta: Tensor,
    weight: Tensor,
    bias: Tensor,
    running: tuple[Tensor, Tensor] | None = None,
    eps: float = 1e-5,
) -> EMPFNormResult:
    """One step of EM-PF's version II, with batch norm of the potential (Hao et al. 2024, eq. 6):
    m = lam_t*v[t-1] + x, mh = alpha_t*m + beta_t*BN_t(m), s = (mh - th_t)*f, v = mh - s.

    x [N, C, *]; v as x, or None; leak, threshold, alpha, beta [] or [C]; weight, bias [C], gamma and b of BN_t;
    running: mean and variance [C] to use in place of the batch's. alpha = 1 with beta = 0 is `empf_step` exactly.
    Raises TypeError or ValueError for arguments that do not fit, and where a channel has no two values to normalise.
    """
    check_input(x, False)
    if x.dim() < 2:
        raise ValueError(f"x has shape {tuple(x.shape)}; version II normalises channels and needs [N, C, *]")
    channels = x.shape[1]
    if running is None and x.numel() <= channels:
        raise ValueError(f"x has shape {tuple(x.shape)}; batch statistics need more than one value a channel")
    names = ("leak", "threshold", "alpha", "beta", "weight", "bias")
    parameters = (leak, threshold, alpha, beta, weight, bias)
    _check_parameters(x, False, **dict(zip(names, parameters, strict=True)))
    if by_operators(x, v, *parameters):
        v = None if v is None else _checked(v, x)
        return EMPFNormResult(*graph.norm_fire(x, v, parameters, running, eps))
    x, view = passes.step_viewed(x)
    kernels, v = backends.select("empf", x), None if v is None else _fitted(v, x)
    spikes, after, *batch = NormFire.apply(x, v, running, eps, (kernels, view), *parameters)
    return EMPFNormResult(spikes, after.detach(), *batch)
