"""Launches of LIF with MPDR, with the signatures of the native cores (fastsnn/_cpu.pyi), as in launch.py."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any

import torch
import triton
from torch import Tensor

from . import mpdr
from .launch import OPTIONS, bits, block_of


def mpdr_forward(
    p: Any,
    device: AbstractContextManager,
    T: int,
    n: int,
    dtype: int,
    first: bool,
    potential_is_v: bool,
    x: Tensor,
    potential: Tensor | None,
    *others: Any,
) -> None:
    if n == 0:
        return
    *state, moments, room = others
    block = block_of(n, x, of_state=True)
    epsilon = torch.finfo(torch.float64 if x.dtype == torch.float64 else torch.float32).eps
    with device:
        mpdr.mpdr_forward[(triton.cdiv(n, block),)](
            *(x, potential, *state, room, T, n, p.leak, p.gain, p.bias, p.threshold, p.v_reset),
            FIRST=first,
            GIVEN_V=potential_is_v or potential is None,
            HARD=p.reset,
            TRACE=p.trace,
            BLOCK=block,
            **OPTIONS,
        )
        mpdr.mpdr_merge[(T,)](room, moments, n, EPSILON=epsilon, BLOCK=block, **OPTIONS)


def mpdr_backward(
    p: Any,
    device: AbstractContextManager,
    bptt: bool,
    T: int,
    n: int,
    dtype: int,
    potential_is_v: bool,
    g_spikes: Tensor | None,
    keep: Tensor | None,
    u: Tensor | None,
    x: Tensor | None,
    potential: Tensor | None,
    g_v_last: Tensor | None,
    g_v_seq: Tensor | None,
    g_x: Tensor,
    g_v_first: Tensor | None,
    mean: float,
    std: float,
    weight: float,
    mu: float,
    moments: Tensor,
    g_local: Tensor | None,
) -> None:
    if n == 0:
        return
    block = block_of(n, g_x, of_state=True)
    grid = (triton.cdiv(n, block),)
    target = map(bits, (mean, 1 / (std * std), weight / n, mu))
    with device:
        if bptt:
            mpdr.mpdr_backward_bptt[grid](
                *(g_spikes, keep, u, g_v_last, g_v_seq, g_x, g_v_first, moments, T, n),
                *(p.leak, p.gain, p.threshold, p.v_reset, p.reset_grad, p.height, p.slope, *target),
                HARD=p.reset,
                SHAPE=p.surrogate,
                BLOCK=block,
                **OPTIONS,
            )
        else:
            mpdr.mpdr_backward_online[grid](
                *(g_spikes, keep, u, x, potential, g_x, moments, g_local, T, n),
                *(p.leak, p.gain, p.bias, p.threshold, p.v_reset, p.height, p.slope, *target),
                GIVEN_V=potential_is_v or potential is None,
                HARD=p.reset,
                SHAPE=p.surrogate,
                BLOCK=block,
                **OPTIONS,
            )
