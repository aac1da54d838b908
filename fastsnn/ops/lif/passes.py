"""What a call of LIF computes into, hands to its backward, and whose memory the next state takes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ...reference import mpdr as formulas
from ...types import (
    EMPTY,
    Forward,
    LIFParams,
    LIFState,
    MPDRGradient,
    Saved,
    new,
    slots_at,
    state_dtype,
    state_of,
)
from ..common import layout, memory

# what a kernel was given and computed, on its way into autograd:
# (params, kernels, state, sequence, v_seq, out, moments, apart)
Call = tuple[LIFParams, Any, LIFState, bool, bool, Forward, "Tensor | None", Any]


def empty_moments(x: Tensor, sequence: bool) -> Tensor:
    """Memory for mean and biased variance of u of each step, float64 [T, 2]: NaN where there are no elements."""
    moments = torch.empty(len(x) if sequence else 1, 2, dtype=torch.float64, device=x.device)
    return moments.fill_(math.nan) if x.numel() == 0 else moments


def save(ctx: Any, x: Tensor, call: Call) -> tuple[Forward, Tensor | None]:
    """Save in ctx what the backward needs: u of a step, which lives as state; x of a sequence, or its u where the
    kernels cannot recompute it in reverse. Returns what the kernel computed, and the moments."""
    p, kernels, state, sequence, v_seq, out, moments, apart = call
    ctx.kept = (p, kernels, sequence, v_seq, state.is_v, x.dtype, apart)
    ctx.set_materialize_grads(False)
    if sequence and not saves_u(p, kernels):
        ctx.save_for_backward(moments, x, state.potential, state.keep, *slots_at(p.drive, state))
    else:
        ctx.save_for_backward(moments, out.u, state.keep)
    return out, moments


def saves_u(p: LIFParams, kernels: Any) -> bool:
    """Whether the backward of a sequence reads u of every step."""
    return kernels.SAVES_U and not p.online


def load(ctx: Any) -> tuple[Saved, Tensor | None]:
    """What was saved, and the moments."""
    p, _, sequence, _, is_v, dtype, _ = ctx.kept
    saved = ctx.saved_tensors
    # a saved-tensor hook may have laid them out anew
    if len(saved) > 3:
        moments, x, potential, keep, *drive = saved
        return _saved_x(p, x, potential, keep, drive, dtype, is_v), moments
    moments, u, keep = saved
    if keep is not None or not u.is_contiguous():
        u = layout.dense(u, sequence)
        keep = layout.like_or_none(keep, u[0] if sequence else u)
    return new(Saved, (dtype, sequence, u, None, None, False, keep, ())), moments


def _saved_x(
    p: LIFParams, x: Tensor, potential: Any, keep: Any, drive: Sequence[Any], dtype: torch.dtype, is_v: bool
) -> Saved:
    """A sequence x with the state before it, in one memory order."""
    x, state = layout.aligned(x, state_of(p.drive, potential, is_v, drive, keep), True)
    return Saved(dtype, True, None, x, state.potential, is_v, state.keep, slots_at(p.drive, state))


def mpdr_gradient(saved: Saved, moments: Any, g_moments: Any, apart: Any) -> MPDRGradient:
    """How the gradient of the moments enters a backward."""
    model: Any = saved.u if saved.x is None else saved.x
    rows = formulas.coefficients(moments, g_moments, model[0].numel() if saved.sequence else model.numel())
    return MPDRGradient(rows, apart is not None)


def ready(x: Tensor, state: LIFState, sequence: bool) -> bool:
    """Whether the usual holds: nothing for `check_state` and `layout.aligned` to do, but for what kernels refuse."""
    if not x.is_contiguous():
        return False
    if state is EMPTY or sequence:
        return state is EMPTY
    shape, dtype = x.shape, state_dtype(x.dtype)
    for value in state:
        if value is None or value is False or value is True:
            continue
        if value.__class__ is not Tensor or value.dtype is not dtype:
            return False
        if not value.is_contiguous() or value.shape != shape:
            return False
    return True


def memory_of_next(state: LIFState, spare: LIFState, x: Tensor) -> tuple[LIFState, LIFState]:
    """The tensors whose memory the state after x takes, None where it needs another: of `spare`, or in place of
    `state`; and what is left for the state after that."""
    if not memory.is_in_place():
        return _reusable(spare, x), state
    own, free = _reusable(state, x), _reusable(spare, x)
    into = new(LIFState, [other if mine is None else mine for mine, other in zip(own, free, strict=True)])
    return into, new(LIFState, [None if mine is value else value for mine, value in zip(own, state, strict=True)])


def _reusable(spare: LIFState, x: Tensor) -> LIFState:
    """Those tensors whose memory the state after x may take; None for the rest."""
    like = (x.shape, x.stride(), state_dtype(x.dtype), x.device)

    def taken(tensor: Tensor) -> Tensor | None:
        fits = (tensor.shape, tensor.stride(), tensor.dtype, tensor.device) == like
        return tensor if fits and memory.is_free(tensor) else None

    return spare.map(taken)
