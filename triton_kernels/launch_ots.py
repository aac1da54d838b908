"""Launches of the OTS kernels, with the signatures of the native cores (fastsnn/_cpu.pyi), as in launch.py."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any

import triton
from torch import Tensor

from . import ots
from .launch import OPTIONS, block_of


def ots_charge(
    p: Any,
    device: AbstractContextManager,
    n: int,
    dtype: int,
    x: Tensor,
    v: Tensor | None,
    u: Tensor,
    moments: Tensor,
    workspace: Tensor | None,
) -> None:
    if n == 0:
        return
    if workspace is None:
        raise ValueError("workspace is None; the sums of blocks need it")
    block, q = block_of(n, u), p.of(u)
    with device:
        ots.ots_charge[(triton.cdiv(n, block),)](
            x, v, u, workspace, n, q.leak, q.gain, q.bias, q.v_reset, HARD=p.reset, BLOCK=block, **OPTIONS
        )
        ots.ots_merge[(1,)](workspace, moments, n, BLOCK=block, **OPTIONS)


def ots_fire(
    p: Any, device: AbstractContextManager, n: int, dtype: int, threshold: Tensor, u: Tensor, *others: Tensor | None
) -> None:
    if n == 0:
        return
    block, q = block_of(n, u), p.of(u)
    with device:
        ots.ots_fire[(triton.cdiv(n, block),)](
            threshold, u, *others, n, q.leak, q.v_reset, HARD=p.reset, BLOCK=block, **OPTIONS
        )


def ots_backward(
    p: Any, device: AbstractContextManager, n: int, dtype: int, threshold: Tensor, u: Tensor, *others: Tensor | None
) -> None:
    if n == 0:
        return
    block, q = block_of(n, u), p.of(u)
    with device:
        ots.ots_backward[(triton.cdiv(n, block),)](
            threshold, u, *others, n, q.gain, q.height, q.slope, SHAPE=p.surrogate, BLOCK=block, **OPTIONS
        )
