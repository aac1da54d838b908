"""The EM-PF operation: checks, autograd.Functions and the functional entry (SPEC section 4; Hao et al. 2024)."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor

from .. import backends
from ..reference.empf import Norm
from . import layout
from .autograd import first_order
from .lif import check_input, check_state
from .types import LIFState, state_dtype

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


def _viewed(x: Tensor, channels: int) -> tuple[Tensor, tuple[int, int, int, int]]:
    """x [T, N, *] in dense memory, and that memory's shape [T, outer, C, inner]. One channel: all neurons share it."""
    T, one = x.shape[0], x[0]
    if channels == 1:
        return layout.dense(x, sequence=True), (T, 1, 1, one.numel())
    inner = math.prod(one.shape[2:])
    if not x.is_contiguous() and x.movedim(2, -1).is_contiguous():
        return x, (T, one.shape[0] * inner, channels, 1)
    return x.contiguous(), (T, one.shape[0], channels, inner)


def _flat(x: Tensor, view: tuple[int, ...]) -> Tensor:
    """The dense x as a contiguous tensor of shape `view`."""
    strides = [1]
    for size in reversed(view[1:]):
        strides.append(strides[-1] * size)
    return x.as_strided(view, strides[::-1])


def _shaped(flat: Tensor, model: Tensor) -> Tensor:
    """A contiguous tensor with the shape and the memory order of the dense `model`."""
    return flat.as_strided(model.shape, model.stride())


def _values(parameter: Tensor, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """A parameter as kernels take it: of the state's dtype, a value for each step and channel."""
    given = parameter.detach().to(dtype)
    return given.reshape(*given.shape, *[1] * (len(shape) - given.dim())).expand(shape).contiguous()


def _gradient(g: Tensor | None, parameter: Tensor) -> Tensor | None:
    """A gradient [C] or [T, C] for its parameter, which may be shared by the channels."""
    if g is None:
        return None
    return (g.sum(-1) if parameter.dim() < g.dim() else g).to(parameter.dtype)


class Fire(torch.autograd.Function):
    """Spikes and v of every step of versions I and III; v[t-1] is detached, so g_x = g_s*f."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, v: Tensor | None, leak: Tensor | None, threshold: Tensor, call: Any) -> Any:
        kernels, view = call
        dtype = state_dtype(x.dtype)
        lam = None if leak is None else _values(leak, (view[0], view[2]), dtype)
        th = _values(threshold, (view[0], view[2]), dtype)
        given = None if v is None else _flat(v, view[1:])
        spikes, v_seq = kernels.forward(_flat(x, view), given, lam, th, v_seq=True)
        v_seq = None if v_seq is None else _shaped(v_seq, x)
        ctx.call = call
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(x if v_seq is None else v_seq, v, leak, threshold)
        if v_seq is not None:
            ctx.mark_non_differentiable(v_seq)
        return _shaped(spikes, x), v_seq

    @staticmethod
    @first_order
    def backward(ctx: Any, g_s: Tensor | None, _: Any) -> Any:
        if g_s is None:
            return None, None, None, None, None
        (kernels, view), (after, v, leak, threshold) = ctx.call, ctx.saved_tensors
        th = _values(threshold, (view[0], view[2]), state_dtype(g_s.dtype))
        g_s = _flat(layout.like(g_s, after), view)
        x, v_seq = (_flat(after, view), None) if leak is None else (None, _flat(after, view))
        given = None if v is None else _flat(v, view[1:])
        g_x, g_leak, g_threshold = kernels.backward(g_s, v_seq, x, given, th)
        g_x = _shaped(g_x, after)
        return g_x, None, _gradient(g_leak, leak), _gradient(g_threshold, threshold), None


class NormFire(torch.autograd.Function):
    """Spikes, v and batch statistics of one step of version II."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        v: Tensor | None,
        leak: Tensor,
        threshold: Tensor,
        alpha: Tensor,
        beta: Tensor,
        gamma: Tensor,
        bias: Tensor,
        running: Any,
        call: Any,
    ) -> Any:
        kernels, view, eps = call
        C, dtype = view[2:3], state_dtype(x.dtype)
        flat_x, given = _flat(x, view[1:]), None if v is None else _flat(v, view[1:])
        m, mean, var = kernels.potential(flat_x, given, _values(leak, C, dtype), running is None)
        used_mean, used_var = (mean, var) if running is None else running
        statistics = (used_mean.double(), (used_var.double() + eps).rsqrt())
        values = [_values(p, C, dtype) for p in (*statistics, alpha, beta, gamma, bias, threshold)]
        k = Norm(m, *values)
        spikes, after = kernels.norm_forward(k, x.dtype)
        after = _shaped(after, x)
        ctx.call, ctx.batch = call, running is None
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(v, after, *k[:3], leak, threshold, alpha, beta, gamma, bias)
        ctx.mark_non_differentiable(after, *(() if mean is None else (mean, var)))
        return _shaped(spikes, x), after, mean, var

    @staticmethod
    @first_order
    def backward(ctx: Any, g_s: Tensor | None, *_: Any) -> Any:
        if g_s is None:
            return (None,) * 10
        kernels, view, _eps = ctx.call
        v, after, m, mean, inverse, *parameters = ctx.saved_tensors
        _, threshold, alpha, beta, gamma, bias = parameters
        C, one = view[2:3], view[1:]
        values = [_values(p, C, m.dtype) for p in (alpha, beta, gamma, bias, threshold)]
        k = Norm(m, mean, inverse, *values)
        g_s, flat_after = _flat(layout.like(g_s, after), one), _flat(after, one)
        total, total_xhat = kernels.norm_sums(k, g_s, flat_after)
        # means over the channel of g_n = beta*g_mh and g_n*xhat
        share = k.beta.double() / (m.numel() // C[0]) if ctx.batch else torch.zeros_like(total)
        pulls = ((share * g).to(m.dtype) for g in (total, total_xhat))
        given = None if v is None else _flat(v, one)
        g_x, g_leak = kernels.norm_backward(k, g_s, flat_after, given, *pulls)
        gradients = {
            "leak": g_leak,
            "threshold": -total,
            "alpha": total_xhat / inverse + mean * total,  # sum g_mh*m
            "beta": k.gamma * total_xhat + k.bias * total,  # sum g_mh*n
            "gamma": k.beta * total_xhat,
            "bias": k.beta * total,
        }
        learned = (_gradient(g, p) for g, p in zip(gradients.values(), parameters, strict=True))
        return _shaped(g_x, after), None, *learned, None, None


def _check_parameters(x: Tensor, **parameters: Tensor | None) -> int:
    """Channels of the parameters of x [T, N, *]: 1 where every one is [T]. Raises TypeError or ValueError."""
    T, channels = x.shape[0], 1
    for name, value in parameters.items():
        if value is None:
            continue
        if not isinstance(value, Tensor) or not value.is_floating_point():
            raise TypeError(f"{name} is {value!r}; it must be a floating tensor")
        per_channel = value.dim() == 2
        if value.device != x.device or len(value) != T or value.dim() > 2 or (per_channel and x.dim() < 3):
            raise ValueError(
                f"{name} is {tuple(value.shape)} on {value.device}; for x of shape {tuple(x.shape)} on {x.device} it "
                "must hold one value a step, or one a step and channel, there"
            )
        if per_channel and value.shape[1] != x.shape[2]:
            raise ValueError(f"{name} has {value.shape[1]} channels and x of shape {tuple(x.shape[1:])} {x.shape[2]}")
        channels = max(channels, value.shape[1] if per_channel else 1)
    return channels


def _fitted(v: Tensor | None, x: Tensor) -> Tensor | None:
    """v, detached, in the memory order of one step x."""
    if v is None:
        return None
    check_state(x, LIFState(v, True), False)
    return layout.like(v.detach(), x)


@torch.compiler.disable
def empf_sequence(x: Tensor, v: Tensor | None = None, *, leak: Tensor | None, threshold: Tensor) -> EMPFResult:
    """All T steps of EM-PF's version I, or III where leak is None (Hao et al. 2024, eq. 3 and 5):
    m = lam_t*v[t-1] + x, s = (m - th_t)*f, v = m - s; version III has m = x and no v.

    x [T, N, *]; v [N, *], state before the first step, in the state's dtype, or None; leak, threshold [T], or [T, C]
    for x [T, N, C, *]. Gradients reach x, leak and threshold; v is detached at every step.
    Raises TypeError or ValueError for arguments that do not fit, BackendError where no backend runs.
    """
    check_input(x, True)
    channels = _check_parameters(x, leak=leak, threshold=threshold)
    x, view = _viewed(x, channels)
    v = None if leak is None else _fitted(v, x[0])
    kernels = backends.select("empf", x)
    learned = [p for p in (x, leak, threshold) if p is not None and p.requires_grad]
    if learned and torch.is_grad_enabled():
        spikes, v_seq = Fire.apply(x, v, leak, threshold, (kernels, view))
        return EMPFResult(spikes, None if v_seq is None else v_seq[-1].clone() if len(v_seq) > 1 else v_seq[0])
    shape, dtype = (view[0], channels), state_dtype(x.dtype)
    lam, th = None if leak is None else _values(leak, shape, dtype), _values(threshold, shape, dtype)
    spikes, after = kernels.forward(_flat(x, view), None if v is None else _flat(v, view[1:]), lam, th)
    return EMPFResult(_shaped(spikes, x), None if after is None else _shaped(after, x[0]))


def empf_step(x: Tensor, v: Tensor | None = None, *, leak: Tensor | None, threshold: Tensor) -> EMPFResult:
    """One step of `empf_sequence`: x [N, *]; leak, threshold [] or, for x [N, C, *], [C]."""
    check_input(x, False)
    leak = None if leak is None else leak.unsqueeze(0)
    spikes, v = empf_sequence(x.unsqueeze(0), v, leak=leak, threshold=threshold.unsqueeze(0))
    return EMPFResult(spikes.squeeze(0), v)


@torch.compiler.disable
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
    wide = x.unsqueeze(0)
    names = ("leak", "threshold", "alpha", "beta", "weight", "bias")
    parameters = (leak, threshold, alpha, beta, weight, bias)
    _check_parameters(wide, **{name: p.unsqueeze(0) for name, p in zip(names, parameters, strict=True)})
    x, view = _viewed(wide, channels)
    x = x.squeeze(0)
    v = _fitted(v, x)
    kernels = backends.select("empf", x)
    return EMPFNormResult(*NormFire.apply(x, v, *parameters, running, (kernels, view, eps)))
