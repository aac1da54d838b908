"""Launches of the OSR kernels, with the signatures of the native cores (fastsnn/_cpu.pyi), as in launch.py."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any

import triton
from torch import Tensor

from . import osr
from .launch import AT_HALF_OCCUPANCY, INTERPRETED, OPTIONS, WARPS

MERGE = {"BLOCK_P": 16, "BLOCK_C": 16, **OPTIONS}


def grid_of(sizes: list[int], x: Tensor, neurons: bool = False) -> tuple[tuple[int, int], dict[str, Any]]:
    """(parts, blocks of channels) and the kernels' block sizes: 16 bytes of the state a thread, or 8 where it has
    sums of several channels or neurons, for want of registers."""
    parts, outer, channels, inner = sizes
    block_c = 32 if inner == 1 else 1
    bytes_a_thread = 8 if neurons or inner == 1 else 16
    block_j = WARPS * 32 * bytes_a_thread // max(4, x.element_size()) // block_c
    if INTERPRETED:  # which pays for each program: few and large ones
        block_c = min(triton.next_power_of_2(channels), 256)
        block_j = min(triton.next_power_of_2(triton.cdiv(outer * inner, parts)), (1 << 16) // block_c)
    return (parts, triton.cdiv(channels, block_c)), {"BLOCK_J": block_j, "BLOCK_C": block_c, **OPTIONS}


def _check_room(wanted: bool, room: Tensor | None) -> None:
    """Raises ValueError where there are sums and no room for those of the parts."""
    if wanted and room is None:
        raise ValueError("room is None; the sums of parts need it")


def _merge(sizes: list[int], mean: Tensor, m2: Tensor, room: Tensor) -> None:
    """Moments of all parts."""
    osr.osr_merge[(triton.cdiv(sizes[2], MERGE["BLOCK_C"]),)](room, mean, m2, *sizes, **MERGE)


def osr_forward(
    device: AbstractContextManager,
    sizes: list[int],
    dtype: int,
    x: Tensor,
    center: Tensor,
    factor: Tensor,
    shift: Tensor,
    y: Tensor,
    *moments: Any,
) -> None:
    if x.numel() == 0:
        return
    grid, options = grid_of(sizes, x)
    room = moments[2]
    _check_room(moments[0] is not None, room)
    with device:
        osr.osr_forward[grid](x, center, factor, shift, y, room, *sizes[1:], **options)
        if room is not None:
            _merge(sizes, *moments)


def osr_lif_forward(
    p: Any,
    device: AbstractContextManager,
    sizes: list[int],
    dtype: int,
    first: bool,
    potential_is_v: bool,
    x: Tensor,
    center: Tensor,
    factor: Tensor,
    shift: Tensor,
    mean: Tensor,
    m2: Tensor,
    room: Tensor | None,
    potential: Tensor | None,
    *operands: Tensor | None,
) -> None:
    """operands: slots, keep, spikes, u, slots after."""
    if x.numel() == 0:
        return
    _check_room(mean is not None, room)
    grid, options = grid_of(sizes, x, neurons=True)
    count, q = p.rule.count, p.of(x)
    neuron = operands[:count], *operands[count : count + 3], operands[count + 3 :]
    numbers = (q.leak, q.gain, q.bias, q.threshold, q.v_reset, q.of_rule)
    with device:
        osr.osr_lif_forward[grid](
            *(x, center, factor, shift, room, potential, *neuron, *sizes[1:], *numbers),
            FIRST=first,
            GIVEN_V=potential_is_v or potential is None,
            HARD=p.reset,
            RULE=p.rule,
            **options,
        )
        if room is not None:
            _merge(sizes, mean, m2, room)


def _reduce(
    device: AbstractContextManager,
    sizes: list[int],
    operands: tuple[Tensor, ...],
    sums: Tensor,
    room: Tensor,
    neuron: tuple[Tensor | None, ...],
    numbers: tuple[int, ...],
    surrogate: int | None,
) -> None:
    _check_room(True, room)
    grid, options = grid_of(sizes, operands[0])
    parts, _, channels, _ = sizes
    with device:
        osr.osr_reduce[grid](
            *(*operands, room, *neuron, *sizes[1:], *numbers),
            LIF=surrogate is not None,
            SHAPE=surrogate or 0,
            **(options | AT_HALF_OCCUPANCY),
        )
        osr.osr_total[(triton.cdiv(channels, MERGE["BLOCK_C"]),)](room, sums, parts, channels, **MERGE)


def osr_reduce(
    device: AbstractContextManager,
    sizes: list[int],
    dtype: int,
    x: Tensor,
    g: Tensor,
    mean: Tensor,
    inverse: Tensor,
    sums: Tensor,
    room: Tensor,
) -> None:
    if x.numel():
        _reduce(device, sizes, (x, g, mean, inverse), sums, room, (None, None, None), (0, 0, 0, 0), None)


def osr_lif_reduce(
    p: Any,
    device: AbstractContextManager,
    sizes: list[int],
    dtype: int,
    x: Tensor,
    mean: Tensor,
    inverse: Tensor,
    sums: Tensor,
    room: Tensor,
    g_spikes: Tensor,
    keep: Tensor | None,
    u: Tensor,
    g_y: Tensor,
) -> None:
    if x.numel():
        q = p.of(x)
        numbers = (q.gain, q.threshold, q.height, q.slope)
        _reduce(device, sizes, (x, g_spikes, mean, inverse), sums, room, (u, keep, g_y), numbers, p.surrogate)


def osr_gradient(
    device: AbstractContextManager,
    sizes: list[int],
    dtype: int,
    x: Tensor,
    g: Tensor,
    mean: Tensor,
    inverse: Tensor,
    factor: Tensor,
    means: Tensor,
    g_x: Tensor,
) -> None:
    if x.numel() == 0:
        return
    grid, options = grid_of(sizes, x)
    with device:
        osr.osr_gradient[grid](x, g, mean, inverse, factor, means, g_x, *sizes[1:], **options)
