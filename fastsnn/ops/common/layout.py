"""Kernels see flat memory: tensors that meet in one call must be dense and lie in the same order."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ...types import LIFState, Saved


def is_dense(x: Tensor) -> bool:
    """Whether x fills its memory without gaps or overlap, in any order of dimensions."""
    if x.is_contiguous():
        return True
    expected = 1
    for stride, size in sorted((x.stride(d), x.shape[d]) for d in range(x.dim()) if x.shape[d] > 1):
        if stride != expected:
            return False
        expected *= size
    return True


def dense(x: Tensor, sequence: bool = False) -> Tensor:
    """x where it is dense (each step of it, one after another, for a sequence), else a contiguous copy."""
    if x.is_contiguous():
        return x
    if sequence:
        one = x[0] if x.shape[0] else x
        return x if x.shape[0] and is_dense(one) and x.stride(0) == one.numel() else x.contiguous()
    return x if is_dense(x) else x.contiguous()


def rows(x: Tensor) -> Tensor:
    """x [rows, *] where each row is dense, one after another, in any order of the other dimensions (channels last);
    else a contiguous copy."""
    one_after_another = x.is_contiguous() or (is_dense(x) and (len(x) < 2 or x.stride(0) == x[0].numel()))
    return x if one_after_another else x.contiguous()


def like(x: Tensor, model: Any) -> Tensor:
    """x in the memory order of the dense tensor `model`."""
    if (x.is_contiguous() and model.is_contiguous()) or x.stride() == model.stride():
        return x
    if x.shape != model.shape:
        raise ValueError(f"a tensor has shape {tuple(x.shape)} and must lie as one of shape {tuple(model.shape)}")
    return torch.empty_strided(model.shape, model.stride(), dtype=x.dtype, device=x.device).copy_(x)


def laid(x: Tensor, strides: tuple[int, ...]) -> Tensor:
    """x with the strides of a dense tensor of its shape."""
    if x.stride() == strides:
        return x
    return torch.empty_strided(x.shape, strides, dtype=x.dtype, device=x.device).copy_(x)


def like_or_none(x: Tensor | None, model: Tensor) -> Tensor | None:
    """As `like`; None for None."""
    return None if x is None else like(x, model)


def sequence_like(x: Tensor, one: Tensor) -> Tensor:
    """A sequence x whose every step lies as the dense tensor `one`."""
    strides = (one.numel(), *one.stride())
    if x.stride() == strides or (x.is_contiguous() and one.is_contiguous()):
        return x
    return torch.empty_strided(x.shape, strides, dtype=x.dtype, device=x.device).copy_(x)


def aligned(x: Tensor, state: LIFState, sequence: bool) -> tuple[Tensor, LIFState]:
    """x and the state in one memory order: that of the state where there is one, else x's."""
    potential, _, *others = state
    held = [tensor for tensor in (potential, *others) if tensor is not None]
    if all(map(Tensor.is_contiguous, (x, *held))):
        return x, state
    if not held:
        return dense(x, sequence), state
    model = held[0] if is_dense(held[0]) else held[0].contiguous()
    state = state.map(lambda tensor: like(tensor, model))
    return (sequence_like if sequence else like)(x, model), state


def fitted(g: Tensor | None, saved: Saved, sequence: bool) -> Tensor | None:
    """A gradient in the memory order of what was saved."""
    if g is None:
        return None
    model: Any = saved.u if saved.x is None else saved.x
    if not saved.sequence:
        return like(g, model)
    return (sequence_like if sequence else like)(g, model[0])
