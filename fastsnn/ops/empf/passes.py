"""EM-PF's forward and backward on x of any shape: [T, N, *] or a step [N, *] for versions I and III, [N, C, *] for
version II."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ...reference.empf import Norm
from ...types import state_dtype
from ..common import layout

View = tuple[int, int, int, int]


def viewed(x: Tensor, channels: int, sequence: bool) -> tuple[Tensor, View]:
    """x in dense memory, and that memory's shape [T, outer, C, inner]. One channel: all neurons share it."""
    T, *one = x.shape if sequence else (1, *x.shape)
    if channels == 1:
        return layout.dense(x, sequence), (T, 1, 1, math.prod(one))
    inner = math.prod(one[2:])
    if not x.is_contiguous() and x.movedim(2 if sequence else 1, -1).is_contiguous():
        return x, (T, one[0] * inner, channels, 1)
    return x.contiguous(), (T, one[0], channels, inner)


def step_viewed(x: Tensor) -> tuple[Tensor, View]:
    """As `viewed`, of one step [N, C, *] with a channel each."""
    return viewed(x, x.shape[1], False)


def _flat(x: Tensor, view: tuple[int, ...]) -> Tensor:
    """The dense x as a contiguous tensor of shape `view`."""
    if x.is_contiguous():
        return x.view(view)
    strides = [1]
    for size in reversed(view[1:]):
        strides.append(strides[-1] * size)
    return x.as_strided(view, strides[::-1])


def _shaped(flat: Tensor, model: Tensor) -> Tensor:
    """A contiguous tensor with the shape and the memory order of the dense `model`."""
    return flat.as_strided(model.shape, model.stride())


def _values(parameter: Tensor, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """A parameter as kernels take it: of the state's dtype, a value for each step and channel."""
    given = parameter if parameter.dtype == dtype else parameter.to(dtype)
    if given.numel() == math.prod(shape):
        return given.reshape(shape).contiguous()
    return given.reshape(*given.shape, *[1] * (len(shape) - given.dim())).expand(shape).contiguous()


def _gradient(g: Tensor, parameter: Tensor) -> Tensor:
    """A gradient [C] or [T, C] for its parameter, which may be shared by the channels."""
    shared = g.numel() != parameter.numel()
    return (g.sum(-1) if shared else g).to(parameter.dtype).view(parameter.shape)


def fire(
    kernels: Any, view: View, x: Tensor, v: Tensor | None, leak: Tensor | None, threshold: Tensor, v_seq: bool
) -> tuple[Tensor, Tensor | None]:
    """Spikes of versions I and III, and v after the last step (none for III), or as x is with v_seq: after each of
    its steps. x: of `viewed`."""
    shape, dtype = (view[0], view[2]), state_dtype(x.dtype)
    lam = None if leak is None else _values(leak, shape, dtype)
    given = None if v is None else _flat(v, view[1:])
    spikes, after = kernels.forward(_flat(x, view), given, lam, _values(threshold, shape, dtype), v_seq=v_seq)
    return _shaped(spikes, x), None if after is None else _shaped(after, x if v_seq else x[0])


def fire_gradient(
    kernels: Any, view: View, g_s: Tensor, after: Tensor, v: Tensor | None, leak: Tensor | None, threshold: Tensor
) -> tuple[Tensor, Tensor | None, Tensor]:
    """Gradients of x, leak and threshold. after: v of every step; x in version III."""
    th = _values(threshold, (view[0], view[2]), state_dtype(g_s.dtype))
    g_s = _flat(layout.like(g_s, after), view)
    x, v_seq = (_flat(after, view), None) if leak is None else (None, _flat(after, view))
    given = None if v is None else _flat(v, view[1:])
    g_x, g_leak, g_threshold = kernels.backward(g_s, v_seq, x, given, th)
    return _shaped(g_x, after), None if leak is None else _gradient(g_leak, leak), _gradient(g_threshold, threshold)


class NormFired(NamedTuple):
    """A step of version II: spikes and v; m [outer, C, inner]; mean and 1/sqrt(var + eps) it was normalised with, in
    the state's dtype; the batch's mean and biased variance [C], float64, where they were taken."""

    spikes: Tensor
    v: Tensor
    m: Tensor
    mean: Tensor
    inverse: Tensor
    batch_mean: Tensor | None
    batch_var: Tensor | None


def inverse_of(var: Tensor, eps: float) -> Tensor:
    """1/sqrt(var + eps), float64."""
    return (var.double() + eps).rsqrt()


def norm_fire(
    kernels: Any,
    view: View,
    x: Tensor,
    v: Tensor | None,
    parameters: Sequence[Tensor],
    running: tuple[Tensor, Tensor] | None,
    eps: float,
) -> NormFired:
    """One step of version II. x: of `step_viewed`; parameters: leak, threshold, alpha, beta, gamma and bias."""
    leak, threshold, *rest = parameters
    C, dtype = view[2:3], state_dtype(x.dtype)
    given = None if v is None else _flat(v, view[1:])
    m, mean, var = kernels.potential(_flat(x, view[1:]), given, _values(leak, C, dtype), running is None)
    used_mean, used_var = (mean, var) if running is None else running
    statistics = (used_mean.double(), inverse_of(used_var, eps))
    k = Norm(m, *(_values(p, C, dtype) for p in (*statistics, *rest, threshold)))
    spikes, after = kernels.norm_forward(k, x.dtype)
    return NormFired(_shaped(spikes, x), _shaped(after, x), *k[:3], mean, var)


def norm_fire_gradient(
    kernels: Any,
    view: View,
    g_s: Tensor,
    v: Tensor | None,
    done: Sequence[Tensor],
    parameters: Sequence[Tensor],
    batch: bool,
) -> tuple[Tensor, ...]:
    """Gradients of x and of every parameter. v: before the step; done: v, m, mean and inverse of `NormFired`; batch:
    whether these were the batch's statistics, which have a gradient."""
    after, m, mean, inverse = done
    _, threshold, *rest = parameters
    C, one = view[2:3], view[1:]
    k = Norm(m, *(_values(p, C, m.dtype) for p in (mean, inverse, *rest, threshold)))
    g_s, flat_after = _flat(layout.like(g_s, after), one), _flat(after, one)
    total, total_xhat = kernels.norm_sums(k, g_s, flat_after)
    # means over the channel of g_n = beta*g_mh and g_n*xhat
    share = k.beta.double() / (m.numel() // C[0]) if batch else torch.zeros_like(total)
    pulls = ((share * g).to(m.dtype) for g in (total, total_xhat))
    given = None if v is None else _flat(v, one)
    g_x, g_leak = kernels.norm_backward(k, g_s, flat_after, given, *pulls)
    gradients = (
        g_leak,
        -total,  # threshold
        total_xhat / k.inverse + k.mean * total,  # alpha: sum g_mh*m
        k.gamma * total_xhat + k.bias * total,  # beta: sum g_mh*n
        k.beta * total_xhat,  # gamma
        k.beta * total,  # bias
    )
    return _shaped(g_x, after), *(_gradient(g, p) for g, p in zip(gradients, parameters, strict=True))
