"""Launches of the OTS kernels, as in launch.py."""

from __future__ import annotations

from typing import Any

from . import ots
from .launch import OPTIONS, block_of
from .operands import Call, cdiv


def _run(call: Call, kernel: Any, **constants: Any) -> None:
    """A program a block of neurons."""
    block = block_of(call.n, call.u)
    call.run(kernel, cdiv(call.n, block), neuron=call.p.of(call.u), BLOCK=block, **constants, **OPTIONS)


def ots_charge(call: Call) -> None:
    if call.workspace is None:
        raise ValueError("workspace is None; the sums of blocks need it")
    _run(call, ots.ots_charge, HARD=call.p.reset)
    call.run(ots.ots_merge, 1, BLOCK=block_of(call.n, call.u), **OPTIONS)


def ots_fire(call: Call) -> None:
    _run(call, ots.ots_fire, HARD=call.p.reset)


def ots_backward(call: Call) -> None:
    _run(call, ots.ots_backward, SHAPE=call.p.surrogate)
