"""Launches of LIF with MPDR, as in launch.py."""

from __future__ import annotations

import torch

from . import mpdr
from .launch import OPTIONS, backward_bptt, backward_online, block_of, forward
from .operands import Call


def mpdr_forward(call: Call) -> None:
    if call.workspace is None:
        raise ValueError("workspace is None; the sums of blocks need it")
    forward(call)
    epsilon = torch.finfo(torch.float64 if call.x.dtype == torch.float64 else torch.float32).eps
    block = block_of(call.n, call.x, of_state=True)
    call.run(mpdr.mpdr_merge, call.T, EPSILON=epsilon, BLOCK=block, **OPTIONS)


mpdr_backward_online, mpdr_backward_bptt = backward_online, backward_bptt
