"""Launches of the OSR kernels, as in launch.py."""

from __future__ import annotations

import math
from typing import Any

import triton
from torch import Tensor

from . import osr
from .launch import AT_HALF_OCCUPANCY, INTERPRETED, OPTIONS, WARPS, given_v
from .operands import Call, bits, cdiv

MERGE = {"BLOCK_P": 16, "BLOCK_C": 16, **OPTIONS}
NO_NEURON = {"p.gain": 0, "p.threshold": 0, "p.height": 0, "p.slope": 0}
CHARGED = 256  # programs whose u are taken together at once


def grid_of(call: Call, widest: int = 16) -> tuple[tuple[int, int], dict[str, Any]]:
    """(parts, blocks of channels) and the kernels' block sizes: `widest` bytes of the state a thread, at most 8 where
    it has sums of several channels: these need registers, as neurons' values do."""
    parts, outer, channels, inner, x = call.parts, call.outer, call.channels, call.inner, call.x
    block_c = 32 if inner == 1 else 1
    bytes_a_thread = min(widest, 8) if inner == 1 else widest
    block_j = WARPS * 32 * bytes_a_thread // max(4, x.element_size()) // block_c
    if INTERPRETED:  # which pays for each program: few and large ones
        block_c = min(triton.next_power_of_2(channels), 256)
        block_j = min(triton.next_power_of_2(cdiv(outer * inner, parts)), (1 << 16) // block_c)
    return (parts, cdiv(channels, block_c)), {"BLOCK_J": block_j, "BLOCK_C": block_c, **OPTIONS}


def _check_workspace(wanted: bool, workspace: Tensor | None) -> None:
    """Raises ValueError where there are sums and no workspace for those of the parts."""
    if wanted and workspace is None:
        raise ValueError("workspace is None; the sums of parts need it")


def _norm(call: Call) -> osr.Norm:
    return osr.Norm(call.weight, call.bias, call.running_mean, call.running_var)


def _settling(call: Call) -> osr.Settling:
    return osr.Settling(*[vars(call)[name.removesuffix("_p")] for name in osr.Settling._fields])


def _forward(call: Call, kernel: Any, grid: tuple[int, int], sums: dict[str, Any], **named: Any) -> None:
    """A pass over all elements: with statistics they are merged after it, and it runs again where the step's own may
    normalise. sums: options of a pass that adds up."""
    wanted, decides = call.statistics is not None, call.strict or call.limit < math.inf
    _check_workspace(wanted, call.workspace)
    constants = {"POOLED": call.pooled, "ENDS": call.ends}
    call.norm, call.moments, call.t = _norm(call), _settling(call), call.step
    call.eps, call.own_share, call.limit = bits(call.eps), bits(call.own_share), bits(call.limit)
    options = named | (sums if wanted else {})
    call.run(kernel, *grid, SUMS=wanted, SECOND=False, **constants, **options)
    if wanted:
        blocks = cdiv(call.channels, MERGE["BLOCK_C"])
        call.run(osr.osr_merge, blocks, DECIDES=decides, STRICT=call.strict, **constants, **MERGE)
    if decides:
        call.run(kernel, *grid, SUMS=False, SECOND=True, **constants, **named)


def osr_forward(call: Call) -> None:
    grid, options = grid_of(call)
    _forward(call, osr.osr_forward, grid, {}, **options)


def osr_lif_forward(call: Call) -> None:
    grid, options = grid_of(call, 8)
    rule = {"FIRST": call.first, "GIVEN_V": given_v(call), "HARD": call.p.reset, "RULE": call.p.rule}
    _forward(call, osr.osr_lif_forward, grid, AT_HALF_OCCUPANCY, neuron=call.p.of(call.x), **rule, **options)


def osr_charge(call: Call) -> None:
    _check_workspace(True, call.u_workspace)
    one = max(4, call.u.element_size())  # u has sums, too
    grid, options = grid_of(call, one if call.inner == 1 else 8)
    neuron = {"neuron": call.p.of(call.u), "HARD": call.p.reset}
    _forward(call, osr.osr_charge, grid, AT_HALF_OCCUPANCY, **neuron, **options)
    call.run(osr.osr_charge_merge, 1, BLOCK_P=CHARGED, BLOCK_C=options["BLOCK_C"], **OPTIONS)


def _reduce(call: Call, neuron: Any, **constants: Any) -> None:
    _check_workspace(True, call.workspace)
    grid, options = grid_of(call)
    call.run(osr.osr_reduce, *grid, neuron=neuron, **constants, **(options | AT_HALF_OCCUPANCY))
    call.run(osr.osr_total, cdiv(call.channels, MERGE["BLOCK_C"]), **MERGE)


def osr_reduce(call: Call) -> None:
    call.u = call.keep = call.threshold = call.g_y = None
    _reduce(call, NO_NEURON, LIF=False, SHAPE=0)


def osr_lif_reduce(call: Call) -> None:
    call.g = call.g_spikes
    _reduce(call, call.p.of(call.g_y), LIF=True, SHAPE=call.p.surrogate)


def osr_gradient(call: Call) -> None:
    grid, options = grid_of(call)
    call.run(osr.osr_gradient, *grid, **options)
