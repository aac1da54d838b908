"""Launches of the binary kernels, with the signatures of the native cores (fastsnn/_cpu.pyi), as in launch.py."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from math import prod
from typing import Any

import triton
from torch import Tensor

from . import binary, launch
from .launch import INTERPRETED, block_of

FEW = 8  # output positions up to which a tile would mostly be empty
OUTPUTS = 16  # of a block
OPTIONS = launch.OPTIONS | {"num_warps": 8}


def binarize_forward(
    device: AbstractContextManager,
    rows: int,
    cols: int,
    dtype: int,
    scaled: bool,
    weight: Tensor,
    scale: Tensor,
    out: Tensor,
) -> None:
    if rows == 0 or cols == 0:
        return
    block = block_of(cols, weight)
    with device:
        binary.binarize_forward[(rows,)](weight, scale, out, cols, SCALED=scaled, BLOCK=block, **launch.OPTIONS)


def binarize_backward(
    device: AbstractContextManager, rows: int, cols: int, dtype: int, weight: Tensor, g_out: Tensor, g_weight: Tensor
) -> None:
    n = rows * cols
    if n == 0:
        return
    block = block_of(n, weight)
    with device:
        binary.binarize_backward[(triton.cdiv(n, block),)](weight, g_out, g_weight, n, BLOCK=block, **launch.OPTIONS)


def _few(positions: int, outputs: int, bits: int) -> tuple[Any, tuple[int, int], dict[str, Any]]:
    """Kernel, grid and options where weights are read once."""
    return binary.packed_few, (triton.cdiv(outputs, OUTPUTS), positions), {"STEPS": 8 * bits} | OPTIONS


def _tiles(positions: int, outputs: int, x: Tensor) -> tuple[Any, tuple[int, int], dict[str, Any]]:
    """Kernel, grid and options where tiles fill; smaller ones without tensor cores."""
    tile_p, tile_o = 64 if x.element_size() == 2 else 32, 32
    if INTERPRETED:  # which pays for each program: few and large ones
        tile_p, tile_o = (max(OUTPUTS, min(triton.next_power_of_2(n), 512)) for n in (positions, outputs))
    grid = (triton.cdiv(positions, tile_p), triton.cdiv(outputs, tile_o))
    # a third stage of loads takes registers that float32 spikes lack
    return binary.packed_tile, grid, {"TILE_P": tile_p, "TILE_O": tile_o, "num_stages": 2} | OPTIONS


def packed_product(
    device: AbstractContextManager,
    batch: int,
    channels: int,
    outputs: int,
    in_: Sequence[int],
    out: Sequence[int],
    kernel: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    x_strides: Sequence[int],
    y_strides: Sequence[int],
    bits: int,
    dtype: int,
    x: Tensor,
    words: Tensor,
    scale: Tensor | None,
    bias: Tensor | None,
    y: Tensor,
) -> None:
    positions = batch * prod(out)
    if positions == 0 or outputs == 0:
        return
    run, grid, options = _few(positions, outputs, bits) if positions <= FEW else _tiles(positions, outputs, x)
    sizes = (batch, channels, outputs, *in_, *out, *kernel, *stride, *padding, *dilation, *x_strides, *y_strides)
    with device:
        run[grid](x, words, scale, bias, y, *sizes, BITS=bits, NEIGHBOURS=x_strides[1] == 1, **options)
