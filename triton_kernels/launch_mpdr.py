"""Launches of LIF with MPDR, with the signatures of the native cores (fastsnn/_cpu.pyi), as in launch.py."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any

import torch

from . import mpdr
from .launch import OPTIONS, block_of, lif_backward_bptt, lif_backward_online, lif_forward


def mpdr_forward(p: Any, device: AbstractContextManager, T: int, n: int, dtype: int, *operands: Any) -> None:
    """operands: lif_forward's, then moments and workspace."""
    *neuron, moments, workspace = operands
    if workspace is None:
        raise ValueError("workspace is None; the sums of blocks need it")
    x = neuron[2]
    lif_forward(p, device, T, n, dtype, *neuron, workspace=workspace)
    if n == 0:
        return
    epsilon = torch.finfo(torch.float64 if x.dtype == torch.float64 else torch.float32).eps
    with device:
        mpdr.mpdr_merge[(T,)](workspace, moments, n, EPSILON=epsilon, BLOCK=block_of(n, x, of_state=True), **OPTIONS)


def mpdr_backward_online(p: Any, device: AbstractContextManager, *operands: Any) -> None:
    """operands: lif_backward_online's, then pulls and g_local."""
    *neuron, pulls, g_local = operands
    lif_backward_online(p, device, *neuron, pulls=pulls, g_local=g_local)


def mpdr_backward_bptt(p: Any, device: AbstractContextManager, *operands: Any) -> None:
    *neuron, pulls, _ = operands
    lif_backward_bptt(p, device, *neuron, pulls=pulls)
