"""Launches of the OSR kernels, with the signatures of the native cores (fastsnn/_cpu.pyi), as in launch.py."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any

import torch
import triton
from torch import Tensor

from . import osr
from .launch import BLOCK, INTERPRETED, OPTIONS

PARTS = 64
GRAIN = 16384  # elements below which another part costs more than it saves


def grid_of(outer: int, channels: int, inner: int) -> tuple[tuple[int, int], dict[str, Any]]:
    """(parts, blocks of channels), by the shape alone, and the kernels' block sizes."""
    parts = max(1, min(PARTS, outer, outer * channels * inner // GRAIN))
    block_c = 32 if inner == 1 else 1
    block_j = BLOCK // block_c
    if INTERPRETED:  # which pays for each program: few and large ones
        block_c = min(triton.next_power_of_2(channels), 256)
        block_j = min(triton.next_power_of_2(triton.cdiv(outer, parts) * inner), (1 << 16) // block_c)
    sizes = {"BLOCK_J": block_j, "BLOCK_C": block_c}
    return (parts, triton.cdiv(channels, block_c)), {**sizes, **OPTIONS}


def _room(like: Tensor, parts: int, channels: int) -> Tensor:
    return like.new_empty((parts, 2, channels), dtype=torch.float64)


def _merge(parts: Tensor, mean: Tensor, m2: Tensor, outer: int, channels: int, inner: int) -> None:
    grid = (triton.cdiv(channels, 128),)
    osr.osr_merge[grid](parts, mean, m2, len(parts), outer, channels, inner, BLOCK=128, **OPTIONS)


def _total(parts: Tensor, sums: Tensor) -> None:
    grid = (triton.cdiv(sums.numel(), 128),)
    osr.osr_total[grid](parts, sums, len(parts), sums.numel(), BLOCK=128, **OPTIONS)


def osr_forward(
    device: AbstractContextManager,
    outer: int,
    channels: int,
    inner: int,
    dtype: int,
    x: Tensor,
    center: Tensor,
    factor: Tensor,
    shift: Tensor,
    y: Tensor,
    mean: Tensor | None,
    m2: Tensor | None,
) -> None:
    if x.numel() == 0:
        return
    grid, options = grid_of(outer, channels, inner)
    parts = None if mean is None else _room(x, grid[0], channels)
    with device:
        osr.osr_forward[grid](x, center, factor, shift, y, parts, outer, channels, inner, **options)
        if parts is not None and mean is not None and m2 is not None:
            _merge(parts, mean, m2, outer, channels, inner)


def osr_lif_forward(
    p: Any,
    device: AbstractContextManager,
    outer: int,
    channels: int,
    inner: int,
    dtype: int,
    x: Tensor,
    center: Tensor,
    factor: Tensor,
    shift: Tensor,
    mean: Tensor | None,
    m2: Tensor | None,
    first: bool,
    potential_is_v: bool,
    potential: Tensor | None,
    *outputs: Tensor | None,
) -> None:
    if x.numel() == 0:
        return
    grid, options = grid_of(outer, channels, inner)
    parts = None if mean is None else _room(x, grid[0], channels)
    numbers = (p.leak, p.gain, p.bias, p.threshold, p.v_reset)
    with device:
        osr.osr_lif_forward[grid](
            *(x, center, factor, shift, parts, potential, *outputs, outer, channels, inner, *numbers),
            FIRST=first,
            GIVEN_V=potential_is_v or potential is None,
            HARD=p.reset,
            TRACE=p.trace,
            **options,
        )
        if parts is not None and mean is not None and m2 is not None:
            _merge(parts, mean, m2, outer, channels, inner)


def _reduce(
    device: AbstractContextManager,
    shape: tuple[int, int, int],
    operands: tuple[Tensor, ...],
    sums: Tensor,
    neuron: tuple[Tensor | None, ...],
    numbers: tuple[int, ...],
    surrogate: int | None,
) -> None:
    grid, options = grid_of(*shape)
    parts = _room(sums, grid[0], shape[1])
    with device:
        osr.osr_reduce[grid](
            *(*operands, parts, *neuron, *shape, *numbers), LIF=surrogate is not None, SHAPE=surrogate or 0, **options
        )
        _total(parts, sums)


def osr_reduce(
    device: AbstractContextManager,
    outer: int,
    channels: int,
    inner: int,
    dtype: int,
    x: Tensor,
    g: Tensor,
    mean: Tensor,
    inverse: Tensor,
    sums: Tensor,
) -> None:
    if x.numel():
        _reduce(device, (outer, channels, inner), (x, g, mean, inverse), sums, (None, None, None), (0, 0, 0, 0), None)


def osr_lif_reduce(
    p: Any,
    device: AbstractContextManager,
    outer: int,
    channels: int,
    inner: int,
    dtype: int,
    x: Tensor,
    mean: Tensor,
    inverse: Tensor,
    sums: Tensor,
    g_spikes: Tensor,
    keep: Tensor | None,
    u: Tensor,
    g_y: Tensor,
) -> None:
    if x.numel():
        numbers = (p.gain, p.threshold, p.height, p.slope)
        operands = (x, g_spikes, mean, inverse)
        _reduce(device, (outer, channels, inner), operands, sums, (u, keep, g_y), numbers, p.surrogate)


def osr_gradient(
    device: AbstractContextManager,
    outer: int,
    channels: int,
    inner: int,
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
    grid, options = grid_of(outer, channels, inner)
    with device:
        osr.osr_gradient[grid](x, g, mean, inverse, factor, means, g_x, outer, channels, inner, **options)
